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
}

func (a *App) signInPage(w http.ResponseWriter, r *http.Request) {
	if _, ok := crmguard.SubjectFrom(r.Context()); ok {
		http.Redirect(w, r, "/contacts", http.StatusSeeOther)
		return
	}
	if err := a.render(w, http.StatusOK, "signin", page{Title: "Sign in", Body: signInForm{Demo: a.cfg.Loopback}}); err != nil {
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
		a.log.WarnContext(r.Context(), "a proxy did not say for whom it asks", "proxy", r.RemoteAddr, "error", err)
		a.guard.WriteError(w, r, &guard.Problem{Status: http.StatusBadRequest, Title: "It is not known where you come from", Code: "address",
			Detail: "The proxy before the CRM did not say it in a form that can be read. Please tell the administrator."})
		return
	}
	login := r.PostForm.Get("login")
	token, err := a.door.SignIn(r.Context(), signin.Attempt{
		Login: login, Password: r.PostForm.Get("password"), Code: r.PostForm.Get("code"), Addr: addr, Request: guard.RequestID(r.Context()),
	})
	if err == nil {
		// The cookie is replaced: its session would live on with nobody to end it.
		old, request := a.guard.SessionToken(r), guard.RequestID(r.Context())
		if err := a.door.SignOut(r.Context(), old, request); err != nil {
			a.guard.WriteError(w, r, errors.Join(err, a.door.SignOut(r.Context(), token, request)))
			return
		}
		a.guard.SetSession(w, token)
		http.Redirect(w, r, a.firstPage(r.Context(), token), http.StatusSeeOther)
		return
	}
	denial, denied := errors.AsType[*crmguard.Denial](err)
	if !denied {
		a.guard.WriteError(w, r, err)
		return
	}
	form := signInForm{Login: login, Demo: a.cfg.Loopback, Problem: "Login, password or code is wrong, or the account is closed."}
	status := http.StatusUnauthorized
	if denial.Status == crmguard.Exhausted {
		status = http.StatusTooManyRequests
		wait := inSeconds(denial.RetryAfter)
		form.Problem = fmt.Sprintf("Too many attempts. Please wait %s and try again.", wait)
		w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())))
	}
	if err := a.render(w, status, "signin", page{Title: "Sign in", Body: form}); err != nil {
		a.guard.WriteError(w, r, err)
	}
}

// firstPage is where somebody arrives who has just signed in. Without an app, or
// without its code, the own page says what is missing.
func (a *App) firstPage(ctx context.Context, token string) string {
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
