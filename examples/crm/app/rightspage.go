package app

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/rbac"
)

// rightsKind is the policy itself: who may configure it changes who may do what.
const rightsKind = "rights"

var rightsResource = crmguard.Resource{Tenant: tenant, Kind: rightsKind}

// rightsView is what rights.html shows.
type rightsView struct {
	Holders []holderLink // a column each
	Columns int          // with that of the rights' names
	Persons []holderLink // with rules of their own
	Groups  []group[rightsRow]
	Version rbac.Version
	Problem string // why what is stored is not in force
	May     bool   // change them
	Drafted bool   // a change is being prepared
	Notice  *notice
}

// holderLink is somebody whom rules are about.
type holderLink struct {
	Name   string // role:NAME, unit:NAME or u:LOGIN
	Label  string
	People int
}

// group is a part of a table.
type group[T any] struct {
	Title string
	Rows  []T
}

type rightsRow struct {
	Label string
	Cells []rightsCell
}

// rightsCell leads to the row that says so.
type rightsCell struct{ Text, Class, Link string }

// rightsPage shows roles, what they may do, and on whose records.
func (a *App) rightsPage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	stored, err := a.policy.Load(ctx)
	if err != nil {
		return err
	}
	matrix, err := a.rights.Matrix(ctx, tenant)
	if err != nil {
		return err
	}
	people, err := a.peopleWith(ctx)
	if err != nil {
		return err
	}
	status := a.rights.Status()
	view := rightsView{Version: stored.Version, May: a.mayChangeRights(r), Drafted: !a.drafts.of(subjectOf(ctx).ID).empty()}
	if status.Err != nil || status.Stale {
		view.Problem = "What is stored is not in force. The history says more."
	}
	if r.URL.Query().Has("saved") {
		view.Notice = &notice{"The rights are in force", "They hold for everybody, from the next click on."}
	}
	for _, holder := range matrix.Holders {
		view.Holders = append(view.Holders, holderLink{holder, labelOf(holder), len(people[holder])})
	}
	view.Columns = len(view.Holders) + 1
	for _, row := range stored.Rules {
		if holder := row[1]; row[0] == "p" && strings.HasPrefix(holder, personPrefix) &&
			!slices.ContainsFunc(view.Persons, func(known holderLink) bool { return known.Name == holder }) {
			view.Persons = append(view.Persons, holderLink{Name: holder, Label: labelOf(holder)})
		}
	}
	for _, object := range matrix.Objects {
		for _, right := range object.Rights {
			title, label := placeOf(object.Object, right.Action)
			row := rightsRow{Label: label}
			for _, cell := range right.Cells {
				row.Cells = append(row.Cells, cellOf(cell))
			}
			view.Groups = inGroup(view.Groups, title, row)
		}
	}
	contactsFirst(view.Groups)
	return a.render(w, http.StatusOK, "rights", a.page(r, "Rights", false, view))
}

// personPrefix begins the names of people in rows.
const personPrefix = "u:"

// labelOf is how pages call somebody whom rules are about.
func labelOf(holder string) string {
	if role, ok := strings.CutPrefix(holder, "role:"); ok {
		return role
	}
	return strings.TrimPrefix(holder, personPrefix)
}

// peopleWith are those who have each role, by its name in rows.
func (a *App) peopleWith(ctx context.Context) (map[string][]string, error) {
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return nil, err
	}
	with := map[string][]string{}
	for _, p := range accounts {
		roles, _, err := a.rights.Resolve(ctx, tenant, p.ID)
		if err != nil {
			return nil, err
		}
		for _, role := range roles {
			with["role:"+role] = append(with["role:"+role], p.ID)
		}
	}
	return with, nil
}

// Groups of the table that hold more than one object.
const (
	sectionRights = "Sections"
	otherRights   = "Everything else"
)

// placeOf says in which group a right stands, and how its row is called.
func placeOf(object string, action crmguard.Action) (group, label string) {
	if name, ok := strings.CutPrefix(object, "section:"); ok {
		return sectionRights, name
	}
	if field, ok := strings.CutPrefix(object, kind+"#"); ok {
		return "Contacts: " + field, string(action)
	}
	if object == kind {
		return "Contacts", string(action)
	}
	return otherRights, string(action) + " " + object
}

// contactsFirst orders the groups.
func contactsFirst[T any](groups []group[T]) {
	rank := func(g group[T]) int { return slices.Index([]string{sectionRights, otherRights}, g.Title) }
	slices.SortStableFunc(groups, func(x, y group[T]) int { return cmp.Compare(rank(x), rank(y)) })
}

// inGroup adds a row to the group with this title.
func inGroup[T any](groups []group[T], title string, row T) []group[T] {
	i := slices.IndexFunc(groups, func(g group[T]) bool { return g.Title == title })
	if i < 0 {
		i, groups = len(groups), append(groups, group[T]{Title: title})
	}
	groups[i].Rows = append(groups[i].Rows, row)
	return groups
}

func cellOf(cell rbac.MatrixCell) rightsCell {
	c := rightsCell{Text: cell.String(), Class: "no"}
	if len(cell.Allow) > 0 {
		c.Class = string(cell.Allow[0])
	}
	if len(cell.Rules) > 0 {
		rule := cell.Rules[0]
		c.Link = "/rights/" + rule.Path[len(rule.Path)-1] + "#" + rowID(rule.Where)
	}
	return c
}

// rowID names a row within a page.
func rowID(where string) string { return strings.ReplaceAll(where, " ", "-") }

// mayChangeRights reports whether somebody may change rights, be it after a fresh code.
func (a *App) mayChangeRights(r *http.Request) bool {
	return a.may(r, crmguard.Configure, rightsResource)
}

// holderView is what holder.html shows.
type holderView struct {
	Name, Label string
	People      []string
	Links       []rowLine // roles that it has, and who has it
	Groups      []group[choiceRow]
	Version     int64
	May         bool
	Drafted     bool
}

// choiceRow is one right of a holder.
type choiceRow struct {
	Label, Name, Text, Class string // as in force
	Chosen                   string // of its own rows, with what is being prepared
	Choices                  []choice
	Rules                    []rowLine
}

// rowLine is a row of the policy.
type rowLine struct {
	ID, Text string
	Through  string // the role whose row it is, if that is another one
}

// holderPage shows what one role may do, with the rows that say so, and lets those who
// may change them choose anew.
func (a *App) holderPage(w http.ResponseWriter, r *http.Request) error {
	ctx, holder := r.Context(), r.PathValue("holder")
	stored, err := a.policy.Load(ctx)
	if err != nil {
		return err
	}
	draft := a.drafts.of(subjectOf(ctx).ID)
	drafted := draft.on(stored.Rules)
	if !slices.ContainsFunc(slices.Concat(stored.Rules, drafted), func(row []string) bool { return slices.Contains(row[1:], holder) }) {
		return guard.ErrNotFound
	}
	view := holderView{Name: holder, Label: labelOf(holder), Version: stored.Version.Number, May: a.mayChangeRights(r), Drafted: !draft.empty()}
	people, err := a.peopleWith(ctx)
	if err != nil {
		return err
	}
	view.People = people[holder]
	var mine []rowLine
	for i, row := range stored.Rules {
		line := rowLine{ID: rowID(stored.Where[i]), Text: strings.Join(row, ", ")}
		switch {
		case row[0] != "p" && slices.Contains(row[1:], holder):
			view.Links = append(view.Links, line)
		case row[0] == "p" && row[1] == holder:
			mine = append(mine, line)
		}
	}
	matrix, err := a.rights.Matrix(ctx, tenant)
	if err != nil {
		return err
	}
	column := slices.Index(matrix.Holders, holder)
	for _, object := range matrix.Objects {
		for _, right := range object.Rights {
			title, label := placeOf(object.Object, right.Action)
			row := choiceRow{
				Label: label, Name: rightName(object.Object, right.Action),
				Chosen: chosen(drafted, holder, object.Object, right.Action),
			}
			row.Choices = choicesOf(object.Object, row.Chosen)
			if column >= 0 { // persons have none
				cell := cellOf(right.Cells[column])
				row.Text, row.Class = cell.Text, cell.Class
				for _, rule := range right.Cells[column].Rules {
					row.Rules = append(row.Rules, ruleLine(rule, holder))
				}
			}
			view.Groups = inGroup(view.Groups, title, row)
		}
	}
	if column < 0 {
		view.Links = append(view.Links, mine...)
	}
	contactsFirst(view.Groups)
	return a.render(w, http.StatusOK, "holder", a.page(r, "Rights of "+view.Label, false, view))
}

// ruleLine names a row of another role without its anchor: that is on the other's page.
func ruleLine(rule rbac.Reason, holder string) rowLine {
	line := rowLine{ID: rowID(rule.Where), Text: strings.Join(rule.Rule, ", ")}
	if of := rule.Path[len(rule.Path)-1]; of != holder {
		line.Through = of
	}
	return line
}
