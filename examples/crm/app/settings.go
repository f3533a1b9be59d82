package app

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// settingsView is what settings.html shows: two forms, each with a version of what
// it changes.
type settingsView struct {
	Notice    *notice
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
		view.Addresses = a.addressForm(document)
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

// stale reports whether a form was made of another version than this one.
func stale(form url.Values, version int64) bool {
	return form.Get("version") != strconv.FormatInt(version, 10)
}

// errSettingChanged says that a setting is not what it was when it was read.
var errSettingChanged = errors.New("the setting was changed meanwhile")

// swapSetting replaces a setting that is still what it was; nil: there was none.
func swapSetting(ctx context.Context, tx *sql.Tx, name string, was, value []byte) error {
	query, args := `UPDATE settings SET value = $1 WHERE name = $2 AND value = $3`, []any{value, name, was}
	if was == nil {
		query, args = `INSERT INTO settings (value, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, args[:2]
	}
	result, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil {
		return err
	} else if n != 1 {
		return errSettingChanged
	}
	return nil
}

// setIn stores a setting in a transaction.
func setIn(ctx context.Context, tx *sql.Tx, name string, value []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}

// recorded makes a change and its entry in the journal in one transaction.
func (a *App) recorded(ctx context.Context, done crmguard.Event, change func(ctx context.Context, tx *sql.Tx) error) error {
	return a.journal.InTx(ctx, a.db.DB, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
		if err := change(ctx, tx); err != nil {
			return err
		}
		return record(done)
	})
}
