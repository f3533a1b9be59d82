package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/rbac"
)

// draftView is what draft.html shows: what a change would mean, before it is saved.
type draftView struct {
	ID, Reason string
	Version    int64 // of the rights that it was held against
	Effects    []effect
	Removed    []shownRow
	Added      []shownRow
	Refused    []string // why it cannot be saved
	Warnings   []string
	Lost       []string // rights that nobody would have any more
	NotAgreed  bool     // that nobody would
	Conflict   bool     // somebody saved another change meanwhile
	NoReason   bool
	Typed      string // the rows, to be changed
	TypedError string
}

// MaySave reports whether there is something to save.
func (v *draftView) MaySave() bool { return v.ID != "" && len(v.Refused) == 0 }

// draftProblem is the code of a draft that is drawn again with what is wrong with it.
const draftProblem = "rights-draft"

func notSavedDraft(r *http.Request, status int, view *draftView) error {
	stateOf(r.Context()).draft = view
	return &guard.Problem{Status: status, Title: "Not saved", Code: draftProblem}
}

// draftPage shows what the change that somebody prepares would mean. It shows no client's
// data and changes nothing, so that nothing is recorded.
func (a *App) draftPage(w http.ResponseWriter, r *http.Request) {
	err := a.guard.Check(r.Context(), crmguard.Access, sectionOf("rights"))
	if err == nil {
		err = a.mayDraft(r)
	}
	if err == nil {
		err = a.showDraft(w, r, http.StatusOK, new(draftView))
	}
	if err != nil {
		a.guard.WriteError(w, r, err)
	}
}

// showDraft fills in what the draft of whoever asks would mean for the rights as they are
// now.
func (a *App) showDraft(w http.ResponseWriter, r *http.Request, status int, view *draftView) error {
	ctx := r.Context()
	draft := a.drafts.of(subjectOf(ctx).ID)
	stored, err := a.policy.Load(ctx)
	if err != nil {
		return err
	}
	view.ID, view.Reason, view.Version = draft.ID, draft.Reason, stored.Version.Number
	if view.TypedError == "" {
		view.Typed = draft.text()
	}
	if !draft.empty() {
		then, err := a.prepared(ctx, draft, stored.Rules, view)
		if err != nil {
			return err
		}
		if then != nil {
			if err := a.whatIf(ctx, then, draft.on(stored.Rules), view); err != nil {
				return err
			}
		}
	}
	return a.render(w, status, "draft", a.page(r, "What if", false, view))
}

// prepared is an engine with the rights as they would be, nil if they would be refused.
func (a *App) prepared(ctx context.Context, draft rightsDraft, rows [][]string, view *draftView) (*rbac.Engine, error) {
	problems, err := a.notOfThisPage(ctx, draft)
	if err != nil {
		return nil, err
	}
	view.Refused = append(view.Refused, problems...)
	next := draft.on(rows)
	then, err := a.rights.Draft(ctx, tenant, next)
	if refused, ok := errors.AsType[*rbac.PolicyError](err); ok {
		for _, f := range refused.Findings {
			view.Refused = append(view.Refused, strings.Join(f.Rule, ", ")+": "+f.Reason)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	left, err := a.whoMayChangeRights(ctx, next)
	if err != nil {
		return nil, err
	}
	if len(left) == 0 {
		view.Refused = append(view.Refused, "Nobody who can sign in could change rights any more.")
	}
	return then, nil
}

// notOfThisPage keeps what the staff page decides on the staff page: who has which role
// there depends on more than rights, such as that somebody is dismissed. And a rule is
// for nobody who is not there yet, or a login could be given rights before it is taken.
func (a *App) notOfThisPage(ctx context.Context, draft rightsDraft) (problems []string, err error) {
	open, err := a.openAccounts(ctx)
	if err != nil {
		return nil, err
	}
	for _, row := range slices.Concat(draft.Add, draft.Remove) {
		login, isPerson := strings.CutPrefix(row[1], personPrefix)
		switch {
		case isPerson && row[0] != "p":
			problems = append(problems, strings.Join(row, ", ")+": who has which role is changed on the staff page.")
		case isPerson && hasRow(draft.Add, row) && !slices.ContainsFunc(open, func(p account) bool { return p.ID == login }):
			problems = append(problems, strings.Join(row, ", ")+": nobody with this login works here.")
		}
	}
	return problems, nil
}

// whoMayChangeRights lists those who can sign in here and change rights by the rows of a
// policy, without those that end. There must always be one, or the company has locked
// itself out of its own rights.
func (a *App) whoMayChangeRights(ctx context.Context, rows [][]string) (logins []string, err error) {
	policy, err := a.rights.Draft(ctx, tenant, slices.DeleteFunc(slices.Clone(rows), func(row []string) bool { return row[0] == "p2" || row[0] == "p3" }))
	if err != nil {
		return nil, err
	}
	open, err := a.openEmployees(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range open {
		s := crmguard.Subject{Tenant: tenant, ID: p.ID, Kind: p.Kind}
		if (!p.Demo || a.cfg.Loopback) && policy.Check(ctx, s, crmguard.Configure, rightsResource) == nil &&
			policy.Check(ctx, s, crmguard.Access, sectionOf("rights")) == nil {
			logins = append(logins, p.ID)
		}
	}
	return logins, nil
}

// whatIf says what a change would mean, and what saving would be refused for.
func (a *App) whatIf(ctx context.Context, then *rbac.Engine, rows [][]string, view *draftView) error {
	change, err := a.rights.WhatIf(ctx, tenant, then)
	if err != nil {
		return err
	}
	view.Removed, view.Added = a.shownRows(change.Removed), a.shownRows(change.Added)
	if len(change.Added)+len(change.Removed) == 0 {
		view.Refused = append(view.Refused, "The rights are like this already.")
	}
	for _, lost := range change.Lost {
		text, _, partly := strings.Cut(lost.String(), " of records that are ")
		if partly {
			text += ", as widely as now"
		}
		view.Lost = append(view.Lost, text)
	}
	me := personPrefix + subjectOf(ctx).ID
	if slices.ContainsFunc(change.Rights, func(c rbac.RightChange) bool { return c.Person == me && len(c.Loses) > 0 }) {
		view.Warnings = append(view.Warnings, "You would lose rights yourself. You could not give them back to yourself.")
	}
	err = a.rights.MayReplace(ctx, tenant, rows) // who asks, and what they have
	if denial, denied := errors.AsType[*crmguard.Denial](err); denied {
		view.refuse(whyNotGiven(denial))
	} else if err != nil {
		return err
	}
	view.Effects, err = a.effects(ctx, then, change)
	return err
}

// refuse notes why the draft cannot be saved, once.
func (v *draftView) refuse(why string) {
	if !slices.Contains(v.Refused, why) {
		v.Refused = append(v.Refused, why)
	}
}

const selfText = "You would get a right yourself. Somebody else has to do that."

func lackText(what string) string { return "Nobody gives what they lack: " + what + "." }

// savedDraft is what a request to save a change is about. The reason stays in the draft if
// a fresh code is asked for first.
func (a *App) savedDraft(r *http.Request) (crmguard.Resource, error) {
	if err := readForm(r); err != nil {
		return rightsResource, err
	}
	login := subjectOf(r.Context()).ID
	if draft := a.drafts.of(login); !draft.empty() && draft.ID == r.PostForm.Get("draft") && a.mayChangeRights(r) {
		a.drafts.reason(login, strings.TrimSpace(r.PostForm.Get("reason")))
	}
	return rightsResource, nil
}

// reason remembers why, as long as the draft is that one.
func (d *rightsDrafts) reason(login, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if draft, ok := d.by[login]; ok {
		draft.Reason = reason
		d.by[login] = draft
	}
}

// saveDraft puts a change in force: the one that was looked at, over the rights against
// which it was held. Nobody gives what they lack, nor to themselves: the rights see to that.
func (a *App) saveDraft(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	login := subjectOf(ctx).ID
	version, err := strconv.ParseInt(r.PostForm.Get("version"), 10, 64)
	if err != nil {
		return unreadable()
	}
	a.staffing.Lock() // who could change rights then stays
	defer a.staffing.Unlock()
	if err := a.guard.Recheck(ctx); err != nil {
		return err
	}
	draft := a.drafts.of(login)
	stored, err := a.policy.Load(ctx)
	if err != nil {
		return err
	}
	view := new(draftView)
	if draft.empty() || draft.ID != r.PostForm.Get("draft") || stored.Version.Number != version {
		view.Conflict = true
		return notSavedDraft(r, http.StatusConflict, view)
	}
	if draft.Reason == "" || len(draft.Reason) > maxReason {
		view.NoReason = true
		return notSavedDraft(r, http.StatusUnprocessableEntity, view)
	}
	checked := new(draftView)
	then, err := a.prepared(ctx, draft, stored.Rules, checked)
	if err != nil {
		return err
	}
	if len(checked.Refused) > 0 { // and drawn again they are said
		return notSavedDraft(r, http.StatusUnprocessableEntity, view)
	}
	change, err := a.rights.WhatIf(ctx, tenant, then)
	if err != nil {
		return err
	}
	if len(change.Lost) > 0 && r.PostForm.Get("lost") != draft.ID {
		view.NotAgreed = true
		return notSavedDraft(r, http.StatusUnprocessableEntity, view)
	}
	saved, err := a.rights.Replace(ctx, tenant, version, draft.on(stored.Rules), draft.Reason)
	denial, denied := errors.AsType[*crmguard.Denial](err)
	switch {
	case errors.Is(err, rbac.ErrChanged):
		view.Conflict = true
		return notSavedDraft(r, http.StatusConflict, view)
	case denied:
		view.refuse(whyNotGiven(denial))
		return notSavedDraft(r, http.StatusForbidden, view)
	case err != nil:
		return err
	}
	guard.Describe(ctx, func(e *guard.Details) {
		e.Reason, e.Count = fmt.Sprintf("version:%d", saved.Number), len(draft.Add)+len(draft.Remove)
	})
	a.drafts.put(login, rightsDraft{})
	http.Redirect(w, r, "/rights?saved", http.StatusSeeOther)
	return nil
}

// maxReason is what a version keeps of a reason, in bytes.
const maxReason = 300

// whyNotGiven puts the denial of a change into words.
func whyNotGiven(denial *crmguard.Denial) string {
	if denial.Code == "self-grant" {
		return selfText
	}
	_, what, _ := strings.Cut(denial.Detail, ": ") // who does it
	_, what, _ = strings.Cut(what, ": ")           // and to whom
	return lackText(what)
}
