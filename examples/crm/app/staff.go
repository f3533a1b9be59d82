package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/session"
)

// person is one line of the staff page.
type person struct {
	Login, Title, Unit, Roles           string
	Sessions                            int
	Demo, Closed, MayDismiss, MayChange bool
	MayReview, MayDeputies              bool
}

// notice is what has just been done.
type notice struct{ Title, Text string }

// staffView is what staff.html shows.
type staffView struct {
	People     []person
	Roles      []string
	MayJournal bool
	Notice     *notice
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
	return a.showStaff(w, r, nil)
}

func (a *App) showStaff(w http.ResponseWriter, r *http.Request, done *notice) error {
	ctx := r.Context()
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return err
	}
	assignable, err := a.staffRoles(ctx)
	if err != nil {
		return err
	}
	view := staffView{Roles: assignable, Notice: done, MayJournal: a.may(r, crmguard.Access, sectionOf("journal"))}
	for _, p := range accounts {
		resource, roles, err := a.personResource(ctx, p)
		if err != nil {
			return err
		}
		closed, sessions, err := a.signIns(ctx, p.ID)
		if err != nil {
			return err
		}
		mayRevoke := p.ID != subjectOf(ctx).ID && a.may(r, crmguard.Revoke, resource)
		view.People = append(view.People, person{
			Login: p.ID, Title: p.Title, Unit: a.people.unitName(p.Unit), Roles: strings.Join(roles, ", "),
			Sessions: sessions, Demo: p.Demo, Closed: closed,
			MayDismiss: !closed && mayRevoke, MayReview: mayRevoke,
			MayDeputies: !closed && p.Kind == employee && a.may(r, crmguard.Access, crmguard.Resource{Tenant: tenant, Kind: deputiesKind, ID: p.ID, Owner: p.ID, Unit: p.Unit}),
			MayChange:   !closed && p.ID != subjectOf(ctx).ID && p.Kind == employee && a.may(r, crmguard.Grant, resource),
		})
	}
	return a.render(w, http.StatusOK, "staff", a.page(r, "Staff", true, view))
}

// signIns tells whether a person's account is closed, and how often they are signed in.
func (a *App) signIns(ctx context.Context, id string) (closed bool, sessions int, err error) {
	state, err := a.sessions.State(ctx, tenant, id)
	if err != nil {
		return false, 0, err
	}
	open, err := a.sessions.List(ctx, tenant, id)
	return state.Closed, len(open), err
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

// stillMay decides an act on an account again, for who has waited for their turn to
// change the staff: meanwhile the person may have become an owner, or whoever acts
// have lost their rights. Of two owners who dismiss each other at the same moment
// the second one is let do nothing any more.
func (a *App) stillMay(ctx context.Context, action crmguard.Action, p account) error {
	if err := a.guard.Recheck(ctx); err != nil {
		return err
	}
	resource, _, err := a.personResource(ctx, p)
	if err != nil {
		return err
	}
	return a.guard.Check(ctx, action, resource)
}

var errSelf = &guard.Problem{Status: http.StatusConflict, Title: "You cannot dismiss yourself", Code: "self", Detail: "Somebody else has to do it."}

// dismiss ends everything that a person has, has the contacts handed over to whom the form
// names, and shows the receipt.
func (a *App) dismiss(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	p := stateOf(ctx).person
	if p.ID == subjectOf(ctx).ID {
		return errSelf
	}
	to, err := a.chosenHeir(r, p.ID)
	if err != nil {
		return err
	}
	a.staffing.Lock()
	defer a.staffing.Unlock()
	if err := a.stillMay(ctx, crmguard.Revoke, p); err != nil {
		return err
	}
	if err := a.notTheLastOwner(ctx, p); err != nil {
		return err
	}
	guard.Describe(ctx, func(e *guard.Details) { e.Reason = "dismiss" })
	before, _, err := a.signIns(ctx, p.ID)
	if err != nil {
		return err
	}
	receipt, err := a.guard.Dismiss(ctx, tenant, p.ID)
	if err != nil {
		a.log.ErrorContext(ctx, "a dismissal is not complete", "person", p.ID, "error", err)
		return &guard.Problem{Status: http.StatusInternalServerError, Title: "Not everything is ended yet", Code: "incomplete", Detail: stillToEnd(p.ID, receipt)}
	}
	guard.Describe(ctx, func(e *guard.Details) { e.Count = total(receipt) })
	owned, err := a.ownedBy(ctx, p.ID)
	if err == nil && to != "" {
		err = a.handOver(ctx, p.ID, to, owned)
	}
	if err != nil {
		return err
	}
	done := &notice{p.ID + " is dismissed", a.receiptText(p.ID, receipt)}
	if before {
		done = &notice{p.ID + " was dismissed before", restText(receipt)}
	}
	done.Text += " " + goTo(p.ID, to, owned)
	return a.showStaff(w, r, done)
}

func total(receipt guard.Receipt) (n int) {
	for _, ended := range receipt.Ended {
		n += ended.Count
	}
	return n
}

// What a dismissal takes away, in words.
var takenNames = map[string]string{"factors": "second factors", "roles and rules": "roles and rights"}

// taken lists what a dismissal took away.
func taken(receipt guard.Receipt) string {
	var list []string
	for _, part := range receipt.Ended {
		if part.Count > 0 {
			list = append(list, fmt.Sprintf("%s (%s)", takenNames[part.What], grouped(part.Count)))
		}
	}
	return strings.Join(list, ", ")
}

// receiptText says what a dismissal ended.
func (a *App) receiptText(login string, receipt guard.Receipt) string {
	text := fmt.Sprintf("Since %s no session of %s is good and none can start.", receipt.Closed.In(a.zone()).Format(time.TimeOnly), login)
	if list := taken(receipt); list != "" {
		text += " Taken away: " + list + "."
	}
	return text
}

// restText says what there was left to end of somebody who was dismissed before.
func restText(receipt guard.Receipt) string {
	if list := taken(receipt); list != "" {
		return "What was left is taken away now: " + list + "."
	}
	return "There was nothing left to take away."
}

func stillToEnd(login string, receipt guard.Receipt) string {
	if receipt.Closed.IsZero() {
		return "The sessions of " + login + " could not be ended. Please try again at once; if it fails again, lock the CRM down."
	}
	return "Nobody can act as " + login + " any more, but not everything that " + login + " had is removed. Dismiss once more, on the review of " + login + "; it goes on from here. So does the next start of the CRM."
}

// finishDismissals ends what dismissals left that a crash cut off: whoever is
// closed has nothing.
func (a *App) finishDismissals(ctx context.Context) error {
	ctx = crmguard.System(ctx, tenant, "dismissals")
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return err
	}
	for _, p := range accounts {
		state, err := a.sessions.State(ctx, tenant, p.ID)
		if err != nil || !state.Closed || state.Epoch == 0 {
			continue // open, never opened, or not genuine: then nobody is let in either
		}
		e := systemEvent(ctx, crmguard.Revoke, crmguard.Resource{Tenant: tenant, Kind: "staff", ID: p.ID, Unit: p.Unit}, a.now())
		receipt, err := a.guard.Dismiss(ctx, tenant, p.ID)
		if err != nil {
			a.log.ErrorContext(ctx, "a dismissal is not complete", "person", p.ID, "error", err)
			continue
		}
		if e.Count = total(receipt); e.Count == 0 {
			continue
		}
		e.Reason = "dismissal-finished"
		if err := a.recorder.Record(ctx, e); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}

// changeRole gives a person another role instead of those they have. Nobody gives
// what they lack, nor to themselves: the rights see to that.
func (a *App) changeRole(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := readForm(r); err != nil {
		return err
	}
	p, role := stateOf(ctx).person, r.PostForm.Get("role")
	assignable, err := a.staffRoles(ctx)
	if err != nil {
		return err
	}
	if p.Kind != employee || !slices.Contains(assignable, role) {
		return &guard.Problem{Status: http.StatusUnprocessableEntity, Title: "No such role", Code: "role", Detail: "Choose one of the roles in the list."}
	}
	a.staffing.Lock()
	defer a.staffing.Unlock()
	if err := a.stillMay(ctx, crmguard.Grant, p); err != nil {
		return err
	}
	state, err := a.sessions.State(ctx, tenant, p.ID)
	if err != nil {
		return err
	}
	if state.Closed {
		return &guard.Problem{Status: http.StatusConflict, Title: "This person is dismissed", Code: "closed", Detail: "Roles are for people who can sign in."}
	}
	if role == ownerRole {
		if err := a.guard.Check(ctx, crmguard.Grant, crmguard.Resource{Tenant: tenant, Kind: "owners", ID: p.ID, Unit: p.Unit}); err != nil {
			return err
		}
	} else if err := a.notTheLastOwner(ctx, p); err != nil {
		return err
	}
	guard.Describe(ctx, func(e *guard.Details) { e.Reason = "role:" + role })
	had, _, err := a.rights.Resolve(ctx, tenant, p.ID)
	if err != nil {
		return err
	}
	for i := range had {
		had[i] = "role:" + had[i]
	}
	err = a.rights.Move(ctx, tenant, p.ID, had, []string{"role:" + role}, "role:"+role)
	if denial, denied := errors.AsType[*crmguard.Denial](err); denied && denial.Code == "separation-of-duties" {
		return &guard.Problem{Status: http.StatusConflict, Title: "This role excludes another one", Code: "separation-of-duties", Detail: "Nobody may have it together with a team that this person is in, or with what they have as a deputy."}
	}
	if refused, unsound := errors.AsType[*rbac.PolicyError](err); unsound {
		return &guard.Problem{Status: http.StatusConflict, Title: "This role cannot be given", Code: "unsound", Detail: refused.Findings[0].Reason}
	}
	if err != nil {
		return err
	}
	return a.showStaff(w, r, &notice{p.ID + " is " + role + " now", "It holds from the next click on."})
}

// integrationRole is for programs, which do not sign in with passwords.
const integrationRole = "integration"

// staffRoles are the roles of people, those included that the policy has got since
// the first start.
func (a *App) staffRoles(ctx context.Context) ([]string, error) {
	roles, err := a.rights.Roles(ctx, tenant)
	return slices.DeleteFunc(roles, func(role string) bool { return role == integrationRole }), err
}

// notTheLastOwner keeps the company from locking itself out: by its owners, and by those
// who may change rights.
func (a *App) notTheLastOwner(ctx context.Context, p account) error {
	owners, err := a.openOwners(ctx)
	if err != nil {
		return err
	}
	if len(owners) == 1 && owners[0] == p.ID {
		return &guard.Problem{Status: http.StatusConflict, Title: "This is the last owner", Code: "last-owner", Detail: "Without an owner nobody could give rights any more."}
	}
	stored, err := a.policy.Load(ctx)
	if err != nil {
		return err
	}
	changers, err := a.whoMayChangeRights(ctx, stored.Rules)
	if err == nil && len(changers) == 1 && changers[0] == p.ID {
		return &guard.Problem{Status: http.StatusConflict, Title: "This is the last one who may change rights", Code: "last-changer", Detail: "Let somebody else change rights first."}
	}
	return err
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
