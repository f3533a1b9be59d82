package app

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/signin"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/session"
)

// The page of a person about themselves: how they prove who they are, and where
// they are signed in. Nobody sees it of somebody else.

// mePage is what me.html shows.
type mePage struct {
	Login, Roles string
	Notice       string
	Problem      string
	Recovered    bool // signed in by recovery code
	NoApp        bool
	MayAdd       bool
	Apps         []ownApp
	Recovery     int // codes that are left
	Sessions     []ownSession
}

type ownApp struct {
	mfa.App
	Demo bool // see `crm code`
	Last bool // without it there is no second factor
}

type ownSession struct {
	session.Info
	How     string
	Current bool
}

var assuranceNames = map[crmguard.Assurance]string{
	crmguard.AssuranceRecovered:    "password and recovery code",
	crmguard.AssurancePassword:     "password",
	crmguard.AssuranceSecondFactor: "password and code",
}

// What was done, as the page says it afterwards.
var ownChanges = map[string]string{
	"added":   "The app was added. If you do not know one of the sessions below, end it.",
	"removed": "The app was removed. Its codes are worth nothing any more; sessions that began with them go on until you end them below.",
	"ended":   "The session was ended. That device has to sign in again.",
}

// ownFactors is what a person proves with; reason is the code for what is done to it.
func ownFactors(reason string) guard.Loader {
	return func(r *http.Request) (crmguard.Resource, error) {
		guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = reason })
		return crmguard.Resource{Tenant: tenant, Kind: factorsKind, Owner: subjectOf(r.Context()).ID}, nil
	}
}

func (a *App) me(w http.ResponseWriter, r *http.Request) error {
	return a.showMe(w, r, http.StatusOK, "")
}

func (a *App) showMe(w http.ResponseWriter, r *http.Request, httpStatus int, problem string) error {
	ctx := r.Context()
	s := subjectOf(ctx)
	status, err := a.factors.Status(ctx, tenant, s.ID)
	if err != nil {
		return err
	}
	open, err := a.sessions.List(ctx, tenant, s.ID)
	if err != nil {
		return err
	}
	body := mePage{
		Login: s.ID, Roles: strings.Join(s.Roles, ", "), Notice: ownChanges[r.URL.Query().Get("done")], Problem: problem,
		Recovered: s.Assurance == crmguard.AssuranceRecovered, Recovery: status.Recovery,
	}
	demo, _, _ := a.demoApp(ctx, s.ID)
	confirmed := confirmedApps(status)
	for _, app := range confirmed {
		body.Apps = append(body.Apps, ownApp{app, app.ID == demo, len(confirmed) == 1})
	}
	body.NoApp, body.MayAdd = len(confirmed) == 0, len(confirmed) < mfa.MaxApps
	slices.SortStableFunc(open, func(x, y session.Info) int { return y.Used.Compare(x.Used) })
	for _, info := range open {
		body.Sessions = append(body.Sessions, ownSession{info, assuranceNames[info.Assurance], info.ID == s.Session})
	}
	return a.render(w, httpStatus, "me", a.page(r, "Your page", false, body))
}

func confirmedApps(status mfa.Status) []mfa.App {
	return slices.DeleteFunc(slices.Clone(status.Apps), func(app mfa.App) bool { return !app.Confirmed })
}

// enrolPage shows the secret of a new app, this once, and asks for its first code.
// It is what enrol.html shows.
type enrolPage struct {
	ID      string
	Secret  string       // in groups; "" when it was shown before
	QR      template.URL // of an image
	Problem string
}

// passwordProblem is the code of a password that is not good: the own page says so.
const passwordProblem = "password"

// addApp makes a secret and shows it in the answer: it lies at no address. Whoever has
// no app yet could prove nothing by a code, so that the password is asked for again.
func (a *App) addApp(w http.ResponseWriter, r *http.Request) error {
	if err := readForm(r); err != nil {
		return err
	}
	s := subjectOf(r.Context())
	has, err := a.factors.Has(r.Context(), tenant, s.ID)
	if err == nil && !has {
		err = a.provePassword(w, r)
	}
	if err != nil {
		return err
	}
	enrolment, err := a.factors.Enrol(r.Context(), tenant, s.ID, s.ID)
	if errors.Is(err, mfa.ErrTooMany) {
		return &guard.Problem{Status: http.StatusConflict, Title: "You have enough apps", Code: "too-many", Detail: "Remove one that you no longer use first."}
	}
	if err != nil {
		return err
	}
	png, err := enrolment.QR()
	if err != nil {
		return err
	}
	body := enrolPage{ID: enrolment.ID, QR: template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(png))} //nolint:gosec // our own image
	for group := range slices.Chunk([]byte(enrolment.Secret()), 4) {
		body.Secret += string(group) + " "
	}
	h := w.Header()
	h.Set("Content-Security-Policy", strings.Replace(h.Get("Content-Security-Policy"), "img-src 'self'", "img-src 'self' data:", 1))
	return a.render(w, http.StatusOK, "enrol", a.page(r, "Add an app", false, &body))
}

// provePassword signs the person in anew. A session that was stolen knows no password,
// guesses as slowly as at the door, and ends when its person does this.
func (a *App) provePassword(w http.ResponseWriter, r *http.Request) error {
	s := subjectOf(r.Context())
	_, err := a.enter(w, r, signin.Attempt{Login: s.ID, Password: r.PostForm.Get("password"), Addr: s.Addr})
	denial, denied := errors.AsType[*crmguard.Denial](err)
	switch {
	case !denied:
		return err
	case denial.Status == crmguard.Exhausted:
		return &guard.Problem{Status: http.StatusTooManyRequests, Title: "Too many attempts", Code: passwordProblem, RetryAfter: denial.RetryAfter,
			Detail: fmt.Sprintf("Too many attempts. Please wait %s and try again.", inSeconds(denial.RetryAfter))}
	}
	return &guard.Problem{Status: http.StatusUnprocessableEntity, Title: "Wrong password", Code: passwordProblem,
		Detail: "This is not your password. Type the one with which you sign in."}
}

// confirmApp makes a new app a factor. With the first one come the recovery codes, and
// other sessions of the person end: they began with less than is needed from now on.
func (a *App) confirmApp(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := readForm(r); err != nil {
		return err
	}
	s := subjectOf(ctx)
	id := r.PostForm.Get("id")
	err := a.factors.Confirm(ctx, tenant, s.ID, id, r.PostForm.Get("code"))
	if denial, denied := errors.AsType[*crmguard.Denial](err); denied {
		if denial.Detail == mfa.ReasonAbsent {
			return &guard.Problem{Status: http.StatusConflict, Title: "This took too long", Code: "enrolment", Detail: "A new app waits 15 minutes for its first code. Add it again on your page."}
		}
		stateOf(ctx).enrol = &enrolPage{ID: id, Problem: "This is not the code that the app shows for this account now. Type the newest one."}
		return &guard.Problem{Status: http.StatusUnprocessableEntity, Title: "Wrong code", Code: "code"}
	}
	if err != nil {
		return err
	}
	status, err := a.factors.Status(ctx, tenant, s.ID)
	if err != nil {
		return err
	}
	added := "The app was added."
	if len(confirmedApps(status)) == 1 {
		if err := a.endOtherSessions(ctx, s); err != nil {
			return err
		}
		added += " All your other sessions were ended."
	}
	if status.Recovery > 0 {
		http.Redirect(w, r, "/me?done=added", http.StatusSeeOther)
		return nil
	}
	return a.showRecovery(w, r, added)
}

// endOtherSessions leaves the one that asks for it.
func (a *App) endOtherSessions(ctx context.Context, s crmguard.Subject) error {
	open, err := a.sessions.List(ctx, tenant, s.ID)
	if err != nil {
		return err
	}
	open = slices.DeleteFunc(open, func(info session.Info) bool { return info.ID == s.Session })
	for _, info := range open {
		if err := a.sessions.EndByID(ctx, tenant, s.ID, info.ID); err != nil {
			return err
		}
	}
	guard.Describe(ctx, func(e *guard.Details) { e.Reason, e.Count = e.Reason+":others-ended", len(open) })
	return nil
}

func (a *App) replaceRecovery(w http.ResponseWriter, r *http.Request) error {
	return a.showRecovery(w, r, "")
}

// recoveryPage is what recovery.html shows, once.
type recoveryPage struct {
	Login  string
	Codes  []string
	Made   time.Time
	Notice string // what was done before
}

func (a *App) showRecovery(w http.ResponseWriter, r *http.Request, done string) error {
	s := subjectOf(r.Context())
	codes, err := a.factors.ReplaceRecovery(r.Context(), tenant, s.ID)
	if errors.Is(err, mfa.ErrNoFactor) {
		return &guard.Problem{Status: http.StatusConflict, Title: "Add an app first", Code: "no-app", Detail: "Recovery codes stand in for an app that was lost."}
	}
	if err != nil {
		return err
	}
	p := a.page(r, "Recovery codes", false, recoveryPage{s.ID, codes.Show(), a.now(), done})
	p.Printable = true
	return a.render(w, http.StatusOK, "recovery", p)
}

// ownAppOf finds the app of the person that the path names.
func (a *App) ownAppOf(r *http.Request) (crmguard.Resource, error) {
	resource, err := ownFactors("remove-app")(r)
	if err != nil {
		return resource, err
	}
	status, err := a.factors.Status(r.Context(), tenant, resource.Owner)
	if err != nil {
		return resource, err
	}
	id := r.PathValue("id")
	if !slices.ContainsFunc(status.Apps, func(app mfa.App) bool { return app.ID == id }) {
		return resource, guard.ErrNotFound
	}
	resource.ID = id
	return resource, nil
}

func (a *App) removeApp(w http.ResponseWriter, r *http.Request) error {
	if err := a.factors.Remove(r.Context(), tenant, subjectOf(r.Context()).ID, r.PathValue("id")); err != nil {
		return err
	}
	http.Redirect(w, r, "/me?done=removed", http.StatusSeeOther)
	return nil
}

// ownSessionOf finds the session of the person that the path names.
func (a *App) ownSessionOf(r *http.Request) (crmguard.Resource, error) {
	resource := crmguard.Resource{Tenant: tenant, Kind: "sessions", Owner: subjectOf(r.Context()).ID}
	open, err := a.sessions.List(r.Context(), tenant, resource.Owner)
	if err != nil {
		return resource, err
	}
	id := r.PathValue("id")
	if !slices.ContainsFunc(open, func(info session.Info) bool { return info.ID == id }) {
		return resource, guard.ErrNotFound
	}
	resource.ID = id
	return resource, nil
}

func (a *App) endSession(w http.ResponseWriter, r *http.Request) error {
	if err := a.sessions.EndByID(r.Context(), tenant, subjectOf(r.Context()).ID, r.PathValue("id")); err != nil {
		return err
	}
	http.Redirect(w, r, "/me?done=ended", http.StatusSeeOther)
	return nil
}
