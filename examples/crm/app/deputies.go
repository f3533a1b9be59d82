package app

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/rbac"
)

// deputiesKind is who stands in for somebody, who is responsible for it.
const deputiesKind = "deputies"

// deputiesView is what deputies.html shows.
type deputiesView struct {
	Login      string
	Own        bool
	May        bool
	StandIns   []deputyLine // for this person
	For        []deputyLine // for whom this person stands in
	Colleagues []account
	Deputy     string // what was typed
	From, To   string
	Today      string
	Problem    string
	Notice     *notice
}

// deputyLine is one time of standing in, in days of the company.
type deputyLine struct {
	Login, First, Last string
	Now                bool
}

// deputiesOf is what a request about the deputies of somebody is about.
func (a *App) deputiesOf(r *http.Request) (crmguard.Resource, error) {
	about := crmguard.Resource{Tenant: tenant, Kind: deputiesKind}
	if _, err := a.personOf(r); err != nil {
		return about, err
	}
	p := stateOf(r.Context()).person
	about.ID, about.Owner, about.Unit = p.ID, p.ID, p.Unit
	if r.Method == http.MethodGet {
		return about, nil
	}
	return about, readForm(r)
}

func (a *App) deputiesPage(w http.ResponseWriter, r *http.Request) error {
	return a.showDeputies(w, r, http.StatusOK, new(deputiesView))
}

func (a *App) showDeputies(w http.ResponseWriter, r *http.Request, status int, view *deputiesView) error {
	ctx := r.Context()
	p := stateOf(ctx).person
	about, err := a.deputiesOf(r)
	if err != nil {
		return err
	}
	view.Login, view.Own, view.Today = p.ID, p.ID == subjectOf(ctx).ID, a.norms.today().Format(time.DateOnly)
	view.May = a.may(r, crmguard.Configure, about)
	if view.Colleagues, err = a.colleagues(r, p.ID); err != nil {
		return err
	}
	all, err := a.rights.Deputies(ctx, tenant)
	if err != nil {
		return err
	}
	zone := a.zone()
	for _, d := range all {
		line := deputyLine{
			First: d.From.In(zone).Format(time.DateOnly), Last: d.End.Add(-time.Second).In(zone).Format(time.DateOnly), Now: !a.now().Before(d.From),
		}
		switch personPrefix + p.ID {
		case d.Whom:
			line.Login = strings.TrimPrefix(d.Person, personPrefix)
			view.StandIns = append(view.StandIns, line)
		case d.Person:
			line.Login = strings.TrimPrefix(d.Whom, personPrefix)
			view.For = append(view.For, line)
		}
	}
	return a.render(w, status, "deputies", a.page(r, "Deputies of "+p.ID, false, view))
}

// colleagues are those who can stand in for somebody: nobody makes themselves a deputy.
func (a *App) colleagues(r *http.Request, login string) ([]account, error) {
	open, err := a.openEmployees(r.Context())
	return slices.DeleteFunc(open, func(p account) bool { return p.ID == login || p.ID == subjectOf(r.Context()).ID }), err
}

// longestDeputy is for how many days somebody can stand in at once.
const longestDeputy = 92

// setDeputy has somebody stand in for a person from one day to another, both of them whole.
// What the deputy gets by it, and who may give that, the rights decide.
func (a *App) setDeputy(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	p, form := stateOf(ctx).person, r.PostForm
	view := &deputiesView{Deputy: form.Get("deputy"), From: form.Get("from"), To: form.Get("to")}
	a.staffing.Lock() // nobody is dismissed meanwhile
	defer a.staffing.Unlock()
	if err := a.guard.Recheck(ctx); err != nil {
		return err
	}
	colleagues, err := a.colleagues(r, p.ID)
	if err != nil {
		return err
	}
	state, err := a.sessions.State(ctx, tenant, p.ID)
	if err != nil {
		return err
	}
	today := a.norms.today()
	from, fromErr := time.ParseInLocation(time.DateOnly, view.From, today.Location())
	last, lastErr := time.ParseInLocation(time.DateOnly, view.To, today.Location())
	switch {
	case state.Closed:
		view.Problem = "This person is dismissed."
	case !slices.ContainsFunc(colleagues, func(c account) bool { return c.ID == view.Deputy }):
		view.Problem = "Choose a colleague of the list."
	case fromErr != nil || lastErr != nil || last.Before(from):
		view.Problem = "Give a first and a last day."
	case from.Before(today) || last.After(from.AddDate(0, 0, longestDeputy-1)):
		view.Problem = "A time begins today or later and lasts three months at most."
	}
	if view.Problem != "" {
		stateOf(ctx).deputies = view
		return &guard.Problem{Status: http.StatusUnprocessableEntity, Title: "Not saved", Code: deputyProblem}
	}
	guard.Describe(ctx, func(e *guard.Details) { e.Reason = "deputy:" + view.Deputy })
	if err := a.rights.Deputize(rbac.WithReason(ctx, "deputy of "+p.ID), tenant, view.Deputy, p.ID, from, last.AddDate(0, 0, 1)); err != nil {
		return err
	}
	return a.showDeputies(w, r, http.StatusOK, &deputiesView{Notice: &notice{view.Deputy + " stands in for " + p.ID, "It begins and ends by itself."}})
}

const deputyProblem = "deputy"

// endDeputy ends it before its time.
func (a *App) endDeputy(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	p, deputy := stateOf(ctx).person, r.PostForm.Get("deputy")
	if !loginShape.MatchString(deputy) {
		return unreadable()
	}
	guard.Describe(ctx, func(e *guard.Details) { e.Reason = "end-deputy:" + deputy })
	if err := a.rights.EndDeputy(rbac.WithReason(ctx, "end of the deputy of "+p.ID), tenant, deputy, p.ID); err != nil {
		return err
	}
	return a.showDeputies(w, r, http.StatusOK, &deputiesView{Notice: &notice{"It has ended", deputy + " does not stand in for " + p.ID + "."}})
}
