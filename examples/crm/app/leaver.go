package app

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/rbac"
)

// leaverView is what leaver.html shows: what somebody has, before it is taken, and to whom
// their contacts go.
type leaverView struct {
	Login, Title, Unit string
	Closed             bool
	Unfinished         bool // dismissed, and not everything is taken away yet
	Sessions           int
	Review             rbac.LeaverReview
	Roles, Rights      []string   // in words
	Orphans            []string   // rights that nobody else has, in words
	Heads              []string   // departments that nobody else heads
	Rows, Granted      []shownRow // of Review
	Owned              int
	Heirs              []account
	Handover           *transfer
	Notice             *notice
}

// reviewed is what a request to look at what somebody has is about.
func (a *App) reviewed(r *http.Request) (crmguard.Resource, error) {
	about := sectionOf("staff")
	if _, err := a.personOf(r); err != nil {
		return about, err
	}
	guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = "leaver:" + stateOf(r.Context()).person.ID })
	return about, nil
}

// leaverPage shows what somebody would leave behind.
func (a *App) leaverPage(w http.ResponseWriter, r *http.Request) error {
	return a.showLeaver(w, r, nil)
}

func (a *App) showLeaver(w http.ResponseWriter, r *http.Request, done *notice) error {
	ctx := r.Context()
	p := stateOf(ctx).person
	if err := a.mayReview(r, p); err != nil {
		return err
	}
	closed, sessions, err := a.signIns(ctx, p.ID)
	if err != nil {
		return err
	}
	view := leaverView{
		Login: p.ID, Title: p.Title, Unit: a.people.unitName(p.Unit), Closed: closed, Sessions: sessions,
		Handover: a.handovers.of(p.ID), Notice: done,
	}
	if view.Owned, err = a.ownedBy(ctx, p.ID); err != nil {
		return err
	}
	if view.Review, err = a.rights.ReviewLeaver(ctx, tenant, p.ID, rbac.Records{Kind: kind, Owned: view.Owned}); err != nil {
		return err
	}
	for _, way := range view.Review.Roles {
		names := make([]string, len(way)-1)
		for i, name := range way[1:] {
			names[i] = labelOf(name)
		}
		view.Roles = append(view.Roles, strings.Join(names, " → "))
	}
	if closed {
		has, err := a.factors.Has(ctx, tenant, p.ID)
		if err != nil {
			return err
		}
		view.Unfinished = has || len(view.Review.Rows) > 0
	}
	for _, unit := range view.Review.Orphans.Units {
		view.Heads = append(view.Heads, a.people.unitName(unit))
	}
	view.Rights, view.Orphans = rightsInWords(view.Review.Rights), rightsInWords(view.Review.Orphans.Rights)
	view.Rows, view.Granted = a.authoredRows(view.Review.Rows), a.authoredRows(view.Review.Granted)
	if view.Heirs, err = a.heirs(ctx, p.ID); err != nil {
		return err
	}
	drawn := a.page(r, "Review of "+p.ID, true, view)
	if view.Handover.Running() {
		drawn.Reload, drawn.ReloadFrom = int(handoverReload.Seconds()), "/staff/"+p.ID+"/leaver/live"
	}
	return a.render(w, http.StatusOK, "leaver", drawn)
}

func rightsInWords(rights []rbac.Right) (list []string) {
	for _, right := range rights {
		list = append(list, rightWords(right.Object, right.Action)+relationWords(right.Object, right.Relations))
	}
	return list
}

// mayReview lets those look at what somebody has who may take it.
func (a *App) mayReview(r *http.Request, p account) error {
	resource, _, err := a.personResource(r.Context(), p)
	if err != nil {
		return err
	}
	if p.ID == subjectOf(r.Context()).ID {
		return errSelf
	}
	err = a.guard.Check(r.Context(), crmguard.Revoke, resource)
	if denial, denied := errors.AsType[*crmguard.Denial](err); denied && denial.Status == crmguard.StepUp {
		return nil // looking wants no fresh code
	}
	return err
}

// handoverReload is how often the page loads itself again.
const handoverReload = time.Second

// liveLeaver shows the page while contacts are handed over. That somebody looks was
// recorded when they opened it.
func (a *App) liveLeaver(w http.ResponseWriter, r *http.Request) {
	about, err := a.reviewed(r)
	if err == nil {
		err = a.guard.Check(r.Context(), crmguard.Access, about)
	}
	if err == nil && !a.handovers.of(stateOf(r.Context()).person.ID).Running() {
		http.Redirect(w, r, "/staff/"+stateOf(r.Context()).person.ID+"/leaver", http.StatusSeeOther)
		return
	}
	if err == nil {
		err = a.showLeaver(w, r, nil)
	}
	if err != nil {
		a.guard.WriteError(w, r, err)
	}
}

// handOverContacts gives the contacts of somebody who was dismissed before to somebody
// else.
func (a *App) handOverContacts(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	p := stateOf(ctx).person
	to, err := a.chosenHeir(r, p.ID)
	if err != nil {
		return err
	}
	if to == "" {
		return errNoHeir
	}
	a.staffing.Lock()
	defer a.staffing.Unlock()
	if err := a.stillMay(ctx, crmguard.Revoke, p); err != nil {
		return err
	}
	state, err := a.sessions.State(ctx, tenant, p.ID)
	if err != nil {
		return err
	}
	if !state.Closed {
		return &guard.Problem{Status: http.StatusConflict, Title: "This person works here", Code: "open", Detail: "Contacts are handed over when somebody is dismissed. Until then they change hands one by one."}
	}
	guard.Describe(ctx, func(e *guard.Details) { e.Reason = "handover:" + p.ID + ":" + to })
	owned, err := a.ownedBy(ctx, p.ID)
	if err == nil {
		err = a.handOver(ctx, p.ID, to, owned)
	}
	if err != nil {
		return err
	}
	if owned == 0 {
		return a.showLeaver(w, r, &notice{"Nothing to hand over", goTo(p.ID, to, owned)})
	}
	return a.showLeaver(w, r, &notice{"The contacts go to " + to, "They do so in the background: you may close this page."})
}

// goTo says in the receipt what becomes of the contacts.
func goTo(from, to string, owned int) string {
	switch {
	case owned == 0:
		return fmt.Sprintf("No contact names %s.", from)
	case to == "":
		return "The contacts stay with the department."
	}
	return fmt.Sprintf("The contacts go to %s.", to)
}
