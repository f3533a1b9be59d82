package app

import (
	"context"
	"net/http"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// lockdownResource is the emergency switch of the company.
func lockdownResource(*http.Request) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: tenant, Kind: guard.LockdownKind}, nil
}

// lockdownView is what lockdown.html shows.
type lockdownView struct {
	Closed, MayLock, MayReopen bool
	Journal                    journalHealth
}

func (a *App) lockdownPage(w http.ResponseWriter, r *http.Request) error {
	closed, err := a.guard.LockedDown(r.Context(), tenant)
	if err != nil {
		return err
	}
	emergency, _ := lockdownResource(r)
	view := lockdownView{Closed: closed, MayLock: a.may(r, crmguard.Revoke, emergency), MayReopen: a.may(r, crmguard.Grant, emergency), Journal: health(a.recorder.Status())}
	return a.render(w, http.StatusOK, "lockdown", a.page(r, "Emergency", false, view))
}

// lockedDown says what somebody does who is refused meanwhile.
func (a *App) lockedDown(r *http.Request, p problemPage) problemPage {
	p.Title = "The CRM is locked down"
	emergency, _ := lockdownResource(r)
	if _, in := crmguard.SubjectFrom(r.Context()); in && a.may(r, crmguard.Grant, emergency) {
		p.Text = "Nobody opens clients until it is reopened, owners neither. The switch is on the page Emergency."
		p.On = navLink{Path: "/lockdown", Label: "Emergency"}
		return p
	}
	p.Text = "It was closed because of an incident, for you too if you did it. Nothing of yours is lost; it goes on when the owner reopens it, on the page Emergency. If no owner can sign in, whoever runs the server reopens it there."
	p.On.Label = "Try again"
	return p
}

// lockDown closes the CRM for everybody who may not reopen it.
func (a *App) lockDown(w http.ResponseWriter, r *http.Request) error {
	if err := a.guard.LockDown(r.Context(), tenant); err != nil {
		return err
	}
	http.Redirect(w, r, "/lockdown", http.StatusSeeOther)
	return nil
}

func (a *App) reopen(w http.ResponseWriter, r *http.Request) error {
	if err := a.guard.Reopen(r.Context(), tenant); err != nil {
		return err
	}
	http.Redirect(w, r, "/lockdown", http.StatusSeeOther)
	return nil
}

// reopenHere ends a lockdown for whoever holds the keys folder: the way back when no
// owner can sign in any more.
func (a *App) reopenHere(ctx context.Context) error {
	ctx = crmguard.System(ctx, tenant, "reopen")
	e := systemEvent(ctx, crmguard.Grant, crmguard.Resource{Tenant: tenant, Kind: guard.LockdownKind}, a.now())
	return a.announced(ctx, e, func() error { return a.guard.Reopen(ctx, tenant) })
}
