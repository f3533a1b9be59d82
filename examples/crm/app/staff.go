package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/session"
)

// person is one line of the staff page.
type person struct {
	Login, Title, Unit, Roles string
	Sessions                  int
	Demo, Closed, MayClose    bool
}

// staffView is what staff.html shows.
type staffView struct {
	People     []person
	MayJournal bool
	Notice     *struct{ Title, Text string }
}

const ownerRole = "owner"

// personResource is what rights on an account are about. Owners are a kind of
// their own, so that an administrator does not close them.
func (a *App) personResource(ctx context.Context, p account) (crmguard.Resource, []string, error) {
	roles, _, err := a.rights.Resolve(ctx, tenant, p.ID)
	if err != nil {
		return crmguard.Resource{}, nil, err
	}
	r := crmguard.Resource{Tenant: tenant, Kind: "staff", ID: p.ID, Unit: p.Unit}
	if slices.Contains(roles, ownerRole) {
		r.Kind = "owners"
	}
	return r, roles, nil
}

// staffPage lists everybody with their sessions.
func (a *App) staffPage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return err
	}
	view := staffView{MayJournal: a.may(r, crmguard.Access, crmguard.Resource{Tenant: tenant, Kind: "section:journal"})}
	for _, p := range accounts {
		resource, roles, err := a.personResource(ctx, p)
		if err != nil {
			return err
		}
		state, err := a.sessions.State(ctx, tenant, p.ID)
		if err != nil {
			return err
		}
		open, err := a.sessions.List(ctx, tenant, p.ID)
		if err != nil {
			return err
		}
		view.People = append(view.People, person{
			Login: p.ID, Title: p.Title, Unit: a.people.unitName(p.Unit), Roles: strings.Join(roles, ", "),
			Sessions: len(open), Demo: p.Demo, Closed: state.Closed,
			MayClose: !state.Closed && p.ID != subjectOf(ctx).ID && a.may(r, crmguard.Revoke, resource),
		})
	}
	if login := r.URL.Query().Get("closed"); slices.ContainsFunc(view.People, func(p person) bool { return p.Login == login && p.Closed }) {
		view.Notice = &struct{ Title, Text string }{login + " is closed",
			"All sessions have ended, the roles are taken away, and nobody can sign in as " + login + ". The contacts stay with the department."}
	}
	return a.render(w, http.StatusOK, "staff", a.page(r, "Staff", true, view))
}

// personOf finds the account that the path names.
func (a *App) personOf(r *http.Request) (crmguard.Resource, error) {
	accounts, err := a.people.accounts(r.Context())
	if err != nil {
		return crmguard.Resource{}, err
	}
	i := slices.IndexFunc(accounts, func(p account) bool { return p.ID == r.PathValue("login") })
	if i < 0 {
		return crmguard.Resource{Tenant: tenant, Kind: "staff"}, guard.ErrNotFound
	}
	stateOf(r.Context()).person = accounts[i]
	resource, _, err := a.personResource(r.Context(), accounts[i])
	return resource, err
}

// closePerson ends everything that a person has: first the state, with which all
// sessions are dead and no new one starts, then what is left. Each step may run
// again, so that an attempt that failed half way is simply repeated.
func (a *App) closePerson(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	p := stateOf(ctx).person
	if p.ID == subjectOf(ctx).ID {
		return &guard.Problem{Status: http.StatusConflict, Title: "You cannot close yourself", Code: "self", Detail: "Somebody else has to do it."}
	}
	// Two owners who close each other at the same moment: the second one finds
	// itself closed and the other one the last.
	a.staffing.Lock()
	defer a.staffing.Unlock()
	if err := a.notTheLastOwner(ctx, p); err != nil {
		return err
	}
	if err := a.sessions.ClosePerson(ctx, tenant, p.ID); err != nil {
		return err
	}
	var failed []error
	for _, holder := range []crmguard.Revoker{a.sessions, a.rights} {
		_, err := holder.Revoke(ctx, tenant, p.ID)
		failed = append(failed, err)
	}
	guard.Describe(ctx, func(e *guard.Details) { e.Reason = "close" })
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("close %s: %w", p.ID, err)
	}
	http.Redirect(w, r, "/staff?closed="+p.ID, http.StatusSeeOther)
	return nil
}

// notTheLastOwner keeps the company from locking itself out.
func (a *App) notTheLastOwner(ctx context.Context, p account) error {
	owners, err := a.openOwners(ctx)
	if err != nil {
		return err
	}
	if len(owners) == 1 && owners[0] == p.ID {
		return &guard.Problem{Status: http.StatusConflict, Title: "This is the last owner", Code: "last-owner", Detail: "Without an owner nobody could give rights any more."}
	}
	return nil
}

// openOwners lists the owners who can sign in here: who is closed cannot, nor can a
// demo account where others reach the CRM.
func (a *App) openOwners(ctx context.Context) ([]string, error) {
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return nil, err
	}
	var owners []string
	for _, p := range accounts {
		if p.Kind != employee || p.Demo && !a.cfg.Loopback {
			continue
		}
		roles, _, err := a.rights.Resolve(ctx, tenant, p.ID)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(roles, ownerRole) {
			continue
		}
		state, err := a.sessions.State(ctx, tenant, p.ID)
		if err != nil && !errors.Is(err, session.ErrState) { // whose state is not genuine cannot sign in either
			return nil, err
		}
		if err == nil && !state.Closed {
			owners = append(owners, p.ID)
		}
	}
	return owners, nil
}
