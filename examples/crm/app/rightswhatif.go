package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// effect is what a change of the rights means for one right.
type effect struct {
	Amount string // such as "+412 phones"; empty where nothing can be counted
	Text   string // such as "7 people can reveal them"
	Class  string
	Each   []string // a person each
}

// portfolio is what one person is responsible for in one department: how many contacts,
// and how many of them have each field. Who may do what is the same for all of it,
// because no contact here is shared.
type portfolio struct {
	owner, unit string
	of          map[string]int // by field; "": the contacts themselves
}

// portfolios counts all contacts. It opens none.
func (s *store) portfolios(ctx context.Context) ([]portfolio, error) {
	rows, err := s.QueryContext(ctx, `SELECT owner, unit, COUNT(*), COUNT(name), COUNT(phone), COUNT(email), COUNT(company), COUNT(city), COUNT(note), COUNT(files.contact)
		FROM contacts LEFT JOIN (SELECT DISTINCT contact FROM attachments) files ON files.contact = contacts.id
		WHERE erased_at = 0 GROUP BY owner, unit ORDER BY owner, unit`)
	if err != nil {
		return nil, fmt.Errorf("count contacts: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	var all []portfolio
	for rows.Next() {
		p := portfolio{of: map[string]int{}}
		var n [8]int
		if err := rows.Scan(&p.owner, &p.unit, &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6], &n[7]); err != nil {
			return nil, fmt.Errorf("count contacts: %w", err)
		}
		for i, field := range slices.Concat([]string{""}, fieldNames, []string{attachmentField}) {
			p.of[field] = n[i]
		}
		all = append(all, p)
	}
	return all, rows.Err()
}

// countedNouns are what a right on contacts is about, one of them and several.
var countedNouns = map[string][2]string{
	"": {"contact", "contacts"}, "name": {"name", "names"}, "phone": {"phone", "phones"}, "email": {"e-mail address", "e-mail addresses"},
	"company": {"company", "companies"}, "city": {"city", "cities"}, "note": {"note", "notes"}, attachmentField: {"contact with files", "contacts with files"},
}

// doneTo says what people can do to them.
var doneTo = map[crmguard.Action]string{
	crmguard.View: "open them", crmguard.List: "find them in lists", crmguard.Search: "search them", crmguard.Update: "change them", crmguard.Delete: "delete them",
	crmguard.Export: "export them", crmguard.Erase: "forget them", crmguard.Call: "call them", crmguard.Reveal: "reveal them", crmguard.Unmask: "see them in the clear",
	"read": "see them masked", "write": "change them",
}

// counted is a right on records that exist already.
func counted(object string, action crmguard.Action) (field string, ok bool) {
	of, field, _ := strings.Cut(object, "#")
	_, known := countedNouns[field]
	_, done := doneTo[action]
	return field, of == kind && known && done
}

// effects says in words and numbers who gains and loses what if another policy comes into
// force: records first, and then what cannot be counted.
func (a *App) effects(ctx context.Context, then *rbac.Engine, change rbac.Change) ([]effect, error) {
	all, err := a.db.portfolios(ctx)
	if err != nil {
		return nil, err
	}
	subjects, err := a.subjectsOf(ctx, change)
	if err != nil {
		return nil, err
	}
	now := sight{a.rights, all, map[string][]bool{}}
	next := sight{then, all, map[string][]bool{}}
	rights, err := allRights(ctx, a.rights, then)
	if err != nil {
		return nil, err
	}
	var list []effect
	for _, right := range rights {
		field, ok := counted(right.Object, right.Action)
		if !ok {
			continue
		}
		gain, loss := tally{field: field, sign: "+"}, tally{field: field, sign: "−"}
		for _, s := range subjects {
			before := now.of(ctx, s, right.Action, field)
			after := next.of(ctx, s, right.Action, field)
			gain.add(s.ID, all, after, before)
			loss.add(s.ID, all, before, after)
		}
		if gain.total(all) > 0 {
			list = append(list, gain.effect(all, "can "+doneTo[right.Action], "warn"))
		}
		if loss.total(all) > 0 {
			list = append(list, loss.effect(all, "can no longer "+doneTo[right.Action], ""))
		}
	}
	return append(list, uncounted(change)...), nil
}

// right is an object and an action.
type right struct {
	Object string
	Action crmguard.Action
}

// allRights are those that either policy knows.
func allRights(ctx context.Context, engines ...*rbac.Engine) (rights []right, err error) {
	for _, engine := range engines {
		matrix, err := engine.Matrix(ctx, tenant)
		if err != nil {
			return nil, err
		}
		for _, object := range matrix.Objects {
			for _, action := range object.Rights {
				if what := (right{object.Object, action.Action}); !slices.Contains(rights, what) {
					rights = append(rights, what)
				}
			}
		}
	}
	return rights, nil
}

// subjectsOf are the people whose rights change.
func (a *App) subjectsOf(ctx context.Context, change rbac.Change) ([]crmguard.Subject, error) {
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return nil, err
	}
	var subjects []crmguard.Subject
	for _, p := range accounts {
		if slices.ContainsFunc(change.Rights, func(c rbac.RightChange) bool { return c.Person == personPrefix+p.ID }) {
			subjects = append(subjects, crmguard.Subject{Tenant: tenant, ID: p.ID, Kind: p.Kind})
		}
	}
	return subjects, nil
}

// sight is what people may do to contacts by one policy.
type sight struct {
	engine *rbac.Engine
	all    []portfolio
	known  map[string][]bool
}

// of says of each portfolio whether somebody may do something to it. What may be done to a
// field counts only where the contact can be opened or stands in a list.
func (s sight) of(ctx context.Context, who crmguard.Subject, action crmguard.Action, field string) []bool {
	key := who.ID + " " + string(action) + " " + field
	if may, ok := s.known[key]; ok {
		return may
	}
	resources := make([]crmguard.Resource, len(s.all))
	for i, p := range s.all {
		resources[i] = crmguard.Resource{Tenant: tenant, Kind: kind, ID: "any", Field: field, Owner: p.owner, Unit: p.unit}
	}
	may := make([]bool, len(s.all))
	for i, err := range s.engine.CheckAll(ctx, who, action, resources) {
		may[i] = err == nil
	}
	if field != "" {
		opened, listed := s.of(ctx, who, crmguard.View, ""), s.of(ctx, who, crmguard.List, "")
		for i := range may {
			may[i] = may[i] && (opened[i] || listed[i])
		}
	}
	s.known[key] = may
	return may
}

// tally counts what people gain, or lose, of one right.
type tally struct {
	field, sign string
	any         []bool // of the portfolios
	each        []string
}

// add counts what somebody may by one policy and not by the other.
func (t *tally) add(login string, all []portfolio, may, mayNot []bool) {
	n := 0
	for i, p := range all {
		if may[i] && !mayNot[i] && p.of[t.field] > 0 {
			if t.any == nil {
				t.any = make([]bool, len(all))
			}
			t.any[i], n = true, n+p.of[t.field]
		}
	}
	if n > 0 {
		t.each = append(t.each, login+" "+t.sign+grouped(n))
	}
}

// total counts each record once, whoever it is about.
func (t *tally) total(all []portfolio) (n int) {
	for i, is := range t.any {
		if is {
			n += all[i].of[t.field]
		}
	}
	return n
}

func (t *tally) effect(all []portfolio, text, class string) effect {
	n, noun := t.total(all), countedNouns[t.field][1]
	if n == 1 {
		noun = countedNouns[t.field][0]
	}
	return effect{Amount: t.sign + grouped(n) + " " + noun, Text: peopleText(len(t.each)) + " " + text, Class: class, Each: t.each}
}

func peopleText(n int) string {
	if n == 1 {
		return "1 person"
	}
	return fmt.Sprintf("%d people", n)
}

// changeText says what people can and can no longer do.
func changeText(c rbac.RightChange) string {
	var parts []string
	for _, part := range []struct {
		can       string
		relations []string
	}{{"can ", c.Gains}, {"can no longer ", c.Loses}} {
		if len(part.relations) > 0 {
			parts = append(parts, part.can+rightWords(c.Object, c.Action)+relationWords(c.Object, part.relations))
		}
	}
	text := strings.Join(parts, "; ")
	if c.As != "" {
		text += ", as deputy of " + labelOf(c.As)
	}
	return text
}

// uncounted tells changes of rights that no records are about, those of several people
// together.
func uncounted(change rbac.Change) (list []effect) {
	for _, c := range change.Rights {
		if _, ok := counted(c.Object, c.Action); ok {
			continue
		}
		text := changeText(c)
		person := strings.TrimPrefix(c.Person, personPrefix)
		i := slices.IndexFunc(list, func(e effect) bool { return e.Text == text })
		if i < 0 {
			e := effect{Text: text}
			if len(c.Gains) > 0 {
				e.Class = "warn"
			}
			i, list = len(list), append(list, e)
		}
		list[i].Each = append(list[i].Each, person)
	}
	for i := range list {
		list[i].Amount = peopleText(len(list[i].Each))
	}
	return list
}
