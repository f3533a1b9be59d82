package rbac

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/crmguard/crmguard"
)

// Filter chooses the rows of a kind for which Check says yes. It is for one
// subject and one moment: make a new one for each request.
type Filter struct {
	tenant string
	parts  []filterPart // a row must satisfy each; none: no row does
}

// filterPart is what one person may reach.
type filterPart struct {
	person string
	units  [relShared][]string // by relation: to whose rows that nobody is responsible for the person has it
	plain  relationSet         // of those before relShared: rows not shared with the person
	shared relationSet         // likewise: rows shared with the person

	whom     []filterPart // those for whom the person stands in
	undenied *filterPart  // the rows where that counts, if there are any
}

// Filter decides which rows of a kind s may do a to. Where Check would deny every
// row it is a filter that chooses none; errors are only for what could not be
// decided.
//
// With kind#field, such as contacts#phone, it chooses the rows on whose field s may do
// a, as Check with that Field says; that says nothing about the records themselves.
func (e *Engine) Filter(ctx context.Context, s crmguard.Subject, a crmguard.Action, object string) (Filter, error) {
	kind, field, isField := strings.Cut(object, "#")
	d := decision{subject: &s}
	if err := e.begin(ctx, &d, s.Tenant); err != nil {
		return Filter{}, err
	}
	if kind == "" || isSection(kind) || isField && field == "" {
		return Filter{}, fmt.Errorf("rbac: %q is not a kind of records", object)
	}
	f := Filter{tenant: s.Tenant}
	if s.Scopes != nil && !inScopes(s.Scopes, kind, a) {
		return f, nil
	}
	if isField {
		a = fieldAction(a)
	}
	for i := range d.all() {
		p := &d.parties[i]
		m := d.policy.ask(p.holder, kind, field, actOf(a))
		part := p.filterPart(m)
		for j := range p.standIns {
			if whom, ok := p.inPlaceOf(&p.standIns[j]); ok {
				part.whom = append(part.whom, whom.filterPart(d.policy.ask(whom.holder, kind, field, actOf(a))))
				part.undenied = new(p.filterPart(m.undenied()))
			}
		}
		f.parts = append(f.parts, part)
	}
	return f, nil
}

func (p *party) filterPart(m masks) filterPart {
	set := p.certain(m.yes())
	part := filterPart{person: p.person, plain: set & unsharedRelations, shared: set >> relShared}
	if set != 0 && set != everyRelation {
		part.units = p.place.byRelation()
	}
	return part
}

// Columns names the columns of the host's table, as identifiers of letters,
// digits, _ and dots. They go into the SQL as they are.
type Columns struct {
	Tenant string // required
	Owner  string // empty: records of this table have no owner
	Unit   string // empty: they belong to no department
	ID     string // needed with Shares only
	Shares *Shares
}

// Shares names the host's table of records that were shared with persons one by
// one: a row there is what Resource.Shared says. Its columns are names without a
// table. Nil: nothing is ever shared.
type Shares struct {
	Table, Tenant, Record, Person string
}

// sharesAlias is what the table of shares is called within the condition.
const sharesAlias = "crmguard_share"

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,2}$`)

// check lists the identifiers and whether each may be left out.
func (c Columns) check() error {
	for _, column := range []struct {
		what, name string
		optional   bool
	}{{"Tenant", c.Tenant, false}, {"Owner", c.Owner, true}, {"Unit", c.Unit, true}, {"ID", c.ID, c.Shares == nil}} {
		if err := checkIdentifier(column.what, column.name, column.optional); err != nil {
			return err
		}
	}
	if c.Shares == nil {
		return nil
	}
	for _, name := range []string{c.Shares.Tenant, c.Shares.Record, c.Shares.Person} {
		if strings.Contains(name, ".") || !identifier.MatchString(name) {
			return fmt.Errorf("rbac: a column of Columns.Shares is %q: want a name of letters, digits and _, without its table", name)
		}
	}
	return checkIdentifier("Shares.Table", c.Shares.Table, false)
}

func checkIdentifier(what, name string, optional bool) error {
	if optional && name == "" || identifier.MatchString(name) {
		return nil
	}
	return fmt.Errorf("rbac: Columns.%s is %q: want a name of letters, digits and _", what, name)
}

// SQL returns a condition for WHERE, in parentheses if it needs any, and the
// values of its parameters, which are $firstParam, $firstParam+1, …, each once
// and in that order, as PostgreSQL and SQLite both take them: parameters before
// it in the query have lower numbers, those after it higher ones. No row allowed
// is "1=0". The tenant is always part of it.
func (f Filter) SQL(c Columns, firstParam int) (where string, args []any, err error) {
	wheres, args, err := f.conditions(c, firstParam, func(whole predicate) []predicate { return []predicate{whole} })
	if err != nil {
		return "", nil, err
	}
	return wheres[0], args, nil
}

// Union is SQL as one or more conditions: the rows that at least one of them chooses, which
// may be several. A database that looks for the first rows in some order finds those of
// each by an index, and those of an OR of owner, departments and shares only by
// reading rows until there are enough. So a page is a UNION:
//
//	SELECT * FROM (SELECT … WHERE first ORDER BY id DESC LIMIT 50) AS a
//	UNION SELECT * FROM (SELECT … WHERE second ORDER BY id DESC LIMIT 50) AS b
//	ORDER BY id DESC LIMIT 50
//
// Parameters are numbered on from one condition to the next.
func (f Filter) Union(c Columns, firstParam int) (wheres []string, args []any, err error) {
	return f.conditions(c, firstParam, predicate.alternatives)
}

func (f Filter) conditions(c Columns, firstParam int, split func(whole predicate) []predicate) (wheres []string, args []any, err error) {
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	if firstParam < 1 {
		return nil, nil, fmt.Errorf("rbac: the first parameter is $%d: want $1 or more", firstParam)
	}
	all := always
	if len(f.parts) == 0 {
		all = never
	}
	for _, part := range f.parts {
		all = and(all, part.predicate(c))
	}
	w := &sqlWriter{columns: c, tenant: f.tenant, next: firstParam}
	for _, p := range split(all) {
		w.text.Reset()
		w.write(and(in(c.Tenant, []string{f.tenant}), p))
		wheres = append(wheres, w.text.String())
	}
	return wheres, w.args, nil
}
