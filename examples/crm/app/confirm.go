package app

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// confirmPage asks for a fresh code, or tells how to come to have one. It is what
// confirm.html shows.
type confirmPage struct {
	Back    string // local path, where the act is done
	Cancel  string // local path that asks for nothing
	Problem string
	Login   string
	Demo    bool // see `crm code`

	NoApp     bool // there is nothing to type
	SignIn    bool // and a fresh sign-in is enough
	Recovered bool // signed in by recovery code

	Act  string // path of the form that was sent, "": what was typed is not kept
	Kept []keptField
	Done bool // the code was good: the form waits to be sent again
}

// keptField is a field of a form that was sent before the code.
type keptField struct{ Name, Value string }

// keptPrefix tells fields of that form from those of the confirmation.
const keptPrefix = "kept."

// needsProof is a problem that a fresh proof solves, or one with a proof just given.
func needsProof(p guard.Problem) bool {
	return p.Code == "step-up" || p.Code == "no-factor" || p.Code == "paused"
}

// askProof draws the page instead of what was asked for. The server keeps nothing of it:
// what was typed waits in the page, and the person sends it again after the code.
func (a *App) askProof(w http.ResponseWriter, r *http.Request, p guard.Problem) error {
	s := subjectOf(r.Context())
	shown := stateOf(r.Context()).confirm
	switch {
	case shown == nil:
		shown = &confirmPage{Back: a.pageNear(r.Method, r.URL.Path)}
		shown.Cancel = shown.Back
		shown.keep(r)
		if r.Method == http.MethodGet { // it would ask again
			shown.Cancel = a.pageNear(http.MethodPost, path.Dir(r.URL.Path))
		}
	case p.RetryAfter > 0:
		shown.Problem = fmt.Sprintf("Too many codes were not accepted. Please wait %s and try again.", inSeconds(p.RetryAfter))
	default:
		shown.Problem = "That code was not accepted. Type the newest one that your app shows."
	}
	has, err := a.factors.Has(r.Context(), tenant, s.ID)
	if err != nil {
		return err
	}
	shown.Login, shown.NoApp, shown.Recovered = s.ID, !has, s.Assurance == crmguard.AssuranceRecovered
	shown.SignIn = !has && p.Need == crmguard.AssuranceRecovered
	shown.Demo = has && a.isDemo(r.Context(), s.ID)
	return a.render(w, p.Status, "confirm", a.page(r, "Confirm that it is you", false, shown))
}

// isDemo reports whether `crm code` knows an app of the account.
func (a *App) isDemo(ctx context.Context, login string) bool {
	_, _, err := a.demoApp(ctx, login)
	return a.cfg.Loopback && err == nil
}

// confirm proves the session anew and leads back. The session's token is replaced:
// a stolen copy of the old one gains nothing by this.
func (a *App) confirm(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if _, ok := crmguard.SubjectFrom(ctx); !ok {
		a.guard.WriteError(w, r, a.guard.Check(ctx, crmguard.SignIn, crmguard.Resource{})) // why there is nobody
		return
	}
	if err := readForm(r); err != nil {
		a.guard.WriteError(w, r, err)
		return
	}
	back := a.localPage(r.PostForm.Get("back"))
	token, err := a.door.StepUp(ctx, a.guard.SessionToken(r), r.PostForm.Get("code"), guard.RequestID(ctx))
	if err == nil {
		a.guard.SetSession(w, token)
		if kept := a.kept(r); kept.Act != "" {
			kept.Back, kept.Cancel, kept.Done = back, back, true
			if err := a.render(w, http.StatusOK, "confirm", a.page(r, "Confirmed", false, kept)); err != nil {
				a.guard.WriteError(w, r, err)
			}
			return
		}
		http.Redirect(w, r, back, http.StatusSeeOther) //nolint:gosec // a page of ours, says localPage
		return
	}
	again := a.kept(r)
	again.Back, again.Cancel = back, home
	stateOf(ctx).confirm = again
	a.guard.WriteError(w, r, err)
}

// keep takes what was typed into the page that asks for a code. A form with a password, a
// passphrase or a secret key is typed again, and so is what would not fit beside the code.
func (c *confirmPage) keep(r *http.Request) {
	if r.Method != http.MethodPost || strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") || readForm(r) != nil ||
		len(r.PostForm.Encode()) > maxForm/2 || holdsSecretKey(r.PostForm) {
		return
	}
	var list []keptField
	for _, name := range slices.Sorted(maps.Keys(r.PostForm)) {
		for _, value := range r.PostForm[name] {
			if value != "" && slices.Contains([]string{"password", "passphrase", "again"}, name) {
				return
			}
			list = append(list, keptField{name, value})
		}
	}
	c.Act, c.Kept = (&url.URL{Path: r.URL.Path}).EscapedPath(), list
}

// kept is what a confirmation carries along. The form leads to an act of this CRM, which
// decides about it as if it came for the first time.
func (a *App) kept(r *http.Request) *confirmPage {
	c := new(confirmPage)
	u, err := url.Parse(r.PostForm.Get("act"))
	if err != nil || u.Scheme != "" || u.Opaque != "" || u.User != nil || u.Host != "" || a.actPattern(u.Path) == "" {
		return c
	}
	c.Act = (&url.URL{Path: u.Path}).EscapedPath()
	for _, name := range slices.Sorted(maps.Keys(r.PostForm)) {
		if field, ok := strings.CutPrefix(name, keptPrefix); ok {
			for _, value := range r.PostForm[name] {
				c.Kept = append(c.Kept, keptField{field, value})
			}
		}
	}
	return c
}

// home is the page for whoever has no other to go to.
const home = "/contacts"

// localPage returns a page of this CRM that a form names, and home for anything
// else, or a form could lead people to another site that looks like this one.
func (a *App) localPage(named string) string {
	u, err := url.Parse(named)
	if err != nil || u.Scheme != "" || u.Opaque != "" || u.User != nil || u.Host != "" || a.pagePattern(u.Path) == "" {
		return home
	}
	return (&url.URL{Path: u.Path}).EscapedPath()
}

// pageNear returns the page from which a request came, as far as its own path
// tells: the nearest page at or above it. The last word of a form's path is what it
// does, so that no page is meant whose last word can be anything.
func (a *App) pageNear(method, asked string) string {
	for at := asked; at != "/" && at != "."; at = path.Dir(at) {
		pattern := a.pagePattern(at)
		if pattern != "" && (method == http.MethodGet || at != asked || !strings.HasSuffix(pattern, "}")) {
			return (&url.URL{Path: at}).EscapedPath()
		}
	}
	return home
}

// pagePattern returns the route of a page, "" if there is none with this path.
func (a *App) pagePattern(at string) string {
	if strings.HasPrefix(at, "/static/") {
		return ""
	}
	return a.pattern(http.MethodGet, at)
}

// actPattern returns the route of a form, "" if there is none with this path. To sign in
// or out, or to confirm, is nothing that waits for a code.
func (a *App) actPattern(at string) string {
	if at == "/sign-in" || at == "/sign-out" || at == "/confirm" {
		return ""
	}
	return a.pattern(http.MethodPost, at)
}

func (a *App) pattern(method, at string) string {
	if at != path.Clean(at) || !strings.HasPrefix(at, "/") {
		return ""
	}
	_, pattern := a.mux.Handler(&http.Request{Method: method, URL: &url.URL{Path: at}})
	if !strings.HasPrefix(pattern, method+" ") {
		return ""
	}
	return pattern
}
