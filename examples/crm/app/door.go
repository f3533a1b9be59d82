package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/signin"
)

// signInForm is what signin.html shows.
type signInForm struct {
	Login   string
	Problem string
	Demo    bool
	Closed  bool // the CRM is locked down
}

func (a *App) signInPage(w http.ResponseWriter, r *http.Request) {
	if _, ok := crmguard.SubjectFrom(r.Context()); ok {
		http.Redirect(w, r, "/contacts", http.StatusSeeOther)
		return
	}
	if err := a.render(w, http.StatusOK, "signin", a.doorForm(r.Context(), signInForm{})); err != nil {
		a.guard.WriteError(w, r, err)
	}
}

func (a *App) signIn(w http.ResponseWriter, r *http.Request) {
	if err := readForm(r); err != nil {
		a.guard.WriteError(w, r, err)
		return
	}
	addr, err := a.guard.Addr(r)
	if err != nil {
		a.guard.WriteError(w, r, err)
		return
	}
	login := r.PostForm.Get("login")
	token, err := a.enter(w, r, signin.Attempt{Login: login, Password: r.PostForm.Get("password"), Code: r.PostForm.Get("code"), Addr: addr})
	if err == nil {
		http.Redirect(w, r, a.firstPage(r.Context(), token), http.StatusSeeOther)
		return
	}
	denial, denied := errors.AsType[*crmguard.Denial](err)
	if !denied {
		a.guard.WriteError(w, r, err)
		return
	}
	form := signInForm{Login: login, Problem: "Login, password or code is wrong, or the account is closed."}
	status := http.StatusUnauthorized
	if denial.Status == crmguard.Exhausted {
		status = http.StatusTooManyRequests
		wait := inSeconds(denial.RetryAfter)
		form.Problem = fmt.Sprintf("Too many attempts. Please wait %s and try again.", wait)
		w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())))
	}
	if err := a.render(w, status, "signin", a.doorForm(r.Context(), form)); err != nil {
		a.guard.WriteError(w, r, err)
	}
}

// enter goes through the door. The new session takes the place of the cookie's, which
// would live on with nobody to end it.
func (a *App) enter(w http.ResponseWriter, r *http.Request, attempt signin.Attempt) (token string, err error) {
	ctx := r.Context()
	attempt.Request = guard.RequestID(ctx)
	if token, err = a.door.SignIn(ctx, attempt); err != nil {
		return "", err
	}
	if err := a.door.SignOut(ctx, a.guard.SessionToken(r), attempt.Request); err != nil {
		return "", errors.Join(err, a.door.SignOut(ctx, token, attempt.Request))
	}
	a.guard.SetSession(w, token)
	return token, nil
}

// mayEnter asks at the door what is asked of each request: from where somebody comes,
// and whether the CRM is locked down for them.
func (a *App) mayEnter(ctx context.Context, s crmguard.Subject, action crmguard.Action, r crmguard.Resource) error {
	if err := a.addresses.Check(ctx, s, action, r); err != nil {
		return err
	}
	return a.guard.CheckLockdown(ctx, s)
}

// doorForm is the sign-in page.
func (a *App) doorForm(ctx context.Context, form signInForm) page {
	form.Demo = a.cfg.Loopback
	form.Closed, _ = a.guard.LockedDown(ctx, tenant) // what cannot be read keeps everybody out, which they will see
	return page{Title: "Sign in", Body: form}
}

// firstPage is where somebody arrives who has just signed in. Without an app, or
// without its code, the own page says what is missing.
func (a *App) firstPage(ctx context.Context, token string) string {
	if closed, err := a.guard.LockedDown(ctx, tenant); err != nil || closed {
		return "/lockdown"
	}
	if s, err := a.sessions.Authenticate(ctx, token); err == nil && s.Assurance < crmguard.AssuranceSecondFactor {
		return "/me"
	}
	return "/contacts"
}

func (a *App) signOut(w http.ResponseWriter, r *http.Request) {
	if err := a.door.SignOut(r.Context(), a.guard.SessionToken(r), guard.RequestID(r.Context())); err != nil {
		a.guard.WriteError(w, r, err)
		return
	}
	a.guard.ClearSession(w)
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
}

// inSeconds rounds up: who tries again then does not come too early.
func inSeconds(wait time.Duration) time.Duration {
	return (wait + time.Second - 1).Truncate(time.Second)
}
