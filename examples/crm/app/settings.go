package app

import (
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// settingsView is what settings.html shows: two forms, each with a version of what
// it changes.
type settingsView struct {
	Notice    *notice // of Saved
	Saved     string  // the part that was just saved: norms or addresses
	Norms     *normsForm
	Addresses *addressForm
	Explained *explanation
}

func (a *App) settingsPage(w http.ResponseWriter, r *http.Request) error {
	return a.showSettings(w, r, http.StatusOK, new(settingsView))
}

// showSettings fills in what the view does not have yet.
func (a *App) showSettings(w http.ResponseWriter, r *http.Request, status int, view *settingsView) error {
	if view.Norms == nil {
		view.Norms = a.normsForm(*a.norms.rules.Load())
	}
	if view.Addresses == nil {
		document, _ := a.addresses.InForce(tenant)
		form, err := a.addressForm(r.Context(), document)
		if err != nil {
			return err
		}
		view.Addresses = form
	}
	if view.Explained == nil {
		view.Explained = new(explanation)
	}
	view.Norms.May = a.may(r, crmguard.Configure, crmguard.Resource{Tenant: tenant, Kind: normsSetting})
	view.Addresses.May = a.may(r, crmguard.Configure, crmguard.Resource{Tenant: tenant, Kind: addressSetting})
	return a.render(w, status, "settings", a.page(r, "Settings", false, view))
}

const settingsProblem = "settings"

// notSaved has the settings drawn again, with what was typed.
func notSaved(r *http.Request, status int, view *settingsView) error {
	stateOf(r.Context()).settings = view
	return &guard.Problem{Status: status, Title: "Not saved", Code: settingsProblem}
}

// settingOf is what a request to change a setting is about.
func settingOf(name string) guard.Loader {
	return func(r *http.Request) (crmguard.Resource, error) {
		return crmguard.Resource{Tenant: tenant, Kind: name}, readForm(r)
	}
}

// stale reports whether a form was made of another version than this one. One of this
// version has each of its fields once and no other, or it is refused: what is missing
// would be read as emptied, and what is unknown would be dropped.
func stale(posted url.Values, version int64, fields []string) (bool, error) {
	seen, err := strconv.ParseInt(posted.Get("version"), 10, 64)
	if err != nil {
		return false, unreadable()
	}
	if seen != version {
		return true, nil
	}
	left := maps.Clone(posted)
	for _, name := range append(fields, "version") {
		if len(left[name]) != 1 {
			return false, unreadable()
		}
		delete(left, name)
	}
	delete(left, "force") // the button
	if len(left) > 0 {
		return false, unreadable()
	}
	return false, nil
}

// typedOr replaces a value with what was typed into a field, if the form has it.
func typedOr(posted url.Values, field string, value *string) {
	if posted.Has(field) {
		*value = posted.Get(field)
	}
}
