package app

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
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
}

// needsProof is a problem that a fresh proof solves, or one with a proof just given.
func needsProof(p guard.Problem) bool {
	return p.Code == "step-up" || p.Code == "no-factor" || p.Code == "paused"
}

// askProof draws the page instead of what was asked for. The act is not kept: the
// person goes back and does it again.
func (a *App) askProof(w http.ResponseWriter, r *http.Request, p guard.Problem) error {
	s := subjectOf(r.Context())
	shown := stateOf(r.Context()).confirm
	switch {
	case shown == nil:
		shown = &confirmPage{Back: a.pageNear(r.Method, r.URL.Path)}
		shown.Cancel = shown.Back
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
		http.Redirect(w, r, back, http.StatusSeeOther) //nolint:gosec // a page of ours, says localPage
		return
	}
	stateOf(ctx).confirm = &confirmPage{Back: back, Cancel: home}
	a.guard.WriteError(w, r, err)
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
	if at != path.Clean(at) || !strings.HasPrefix(at, "/") {
		return ""
	}
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: at}}
	_, pattern := a.mux.Handler(r)
	if !strings.HasPrefix(pattern, http.MethodGet+" ") || strings.HasPrefix(at, "/static/") {
		return ""
	}
	return pattern
}
