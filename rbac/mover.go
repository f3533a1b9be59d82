package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// Place is where somebody works: what a move is from, and to.
type Place struct {
	Roles []string // role:NAME or unit:NAME, as in rows
	Units []string // departments
}

// MoverReview is what a person gains, loses and keeps by a move, to be read before it is
// done. It names roles and rows, so it is for whoever administers rights.
type MoverReview struct {
	Tenant string
	Person string // such as "u:anna"
	Policy string // version that was read, as of [Engine.Version]
	// Change is what the new roles give and the old ones take. Its rows are the move: those
	// that take the old roles, and those that give the new ones.
	Change Change
	// Keeps are rights that the person has after it and that the new place does not give:
	// old grants, other roles, rules for this person alone.
	Keeps []Kept
	Rows  []Authored // that name the person first, after it, and are not the new place's
	// GainsUnits are departments that come to be the person's or below one of theirs, and
	// LosesUnits those that cease to; dept and tree reach others then. KeepsUnits are those
	// that stay, and are neither of the new place nor below one. All are sorted.
	GainsUnits, LosesUnits, KeepsUnits []string
	KeepsHeads                         []string  // departments that the person heads, of which the same is true
	Records                            []Records // that go along, unless the host hands them over
}

// Kept is a right and the rules that still give it.
type Kept struct {
	Right
	By []Reason
}

// ReviewMover tells what a move of a person from one place to another changes and what it
// leaves: old roles go, however long they would have lasted, new ones come without end, and
// all else stays. It changes nothing. A move by which the person would have roles that
// exclude each other is refused with a [*PolicyError]. The counts of records are the
// host's, and so is who may ask.
func (e *Engine) ReviewMover(ctx context.Context, tenant, person string, from, to Place, records ...Records) (MoverReview, error) {
	if err := reaches(ctx, tenant, person); err != nil {
		return MoverReview{}, err
	}
	departments, err := e.org.tree(ctx, tenant)
	if err != nil {
		return MoverReview{}, err
	}
	before, err := e.inForce()
	if err != nil {
		return MoverReview{}, err
	}
	rows, err := e.authored(ctx, tenant, before)
	if err != nil {
		return MoverReview{}, err
	}
	subject, now := personPrefix+person, e.now()
	after, err := moved(before, tenant, subject, from.Roles, to.Roles)
	if err != nil {
		return MoverReview{}, err
	}
	if findings := after.rows.conflicts(now); len(findings) > 0 {
		return MoverReview{}, &PolicyError{findings}
	}
	m := MoverReview{
		Tenant: tenant, Person: subject, Policy: before.version,
		Change: changeBetween(before, after, tenant, now), Records: slices.Clone(records),
	}
	stays := func(r row) bool { // though the new place does not give it
		return r.tenant() == tenant && Authored{Rule: r.rule()}.names(subject) && (r.kind != "g" || !slices.Contains(to.Roles, r.fields[1]))
	}
	for _, a := range rows {
		gone := slices.ContainsFunc(m.Change.Removed, func(rule []string) bool { return slices.Equal(rule, a.Rule) })
		if stays(rowOf(a.Where, a.Rule)) && !gone {
			m.Rows = append(m.Rows, a)
		}
	}
	given := rowSetOf(slices.DeleteFunc(after.rows.all(), stays)) // what the new place gives
	has, gives := after.rights(tenant, subject, now), (&snapshot{rows: given}).rights(tenant, subject, now)
	for what := range has {
		has[what] &^= gives[what]
	}
	for _, r := range rightsOf(has) {
		what := right{r.Object, string(r.Action)}
		m.Keeps = append(m.Keeps, Kept{r, after.rows.reasons(tenant, subject, what, has[what], now)})
	}
	m.units(departments, person, from.Units, to.Units)
	return m, nil
}

// Move takes roles and teams from a person and gives others without end, named as in rows,
// as one version: at no moment has the person both, or neither. What [Engine.ReviewMover]
// says of it holds, but that roles which exclude each other are a denial as of [Engine.GrantRole].
// Who does it is the subject of ctx, who is denied as of [Engine.Replace];
// what the person had already need not be theirs. Nobody moves themselves. The adapter must be a [Store], or
// the error is [ErrNoVersions].
func (e *Engine) Move(ctx context.Context, tenant, person string, from, to []string, reason string) error {
	author, store, err := e.author(ctx, tenant, reason)
	if err != nil {
		return err
	}
	if err := reaches(ctx, tenant, person); err != nil {
		return err
	}
	if strings.HasPrefix(person, systemPrefix) {
		return systemName(person)
	}
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	return e.revise(WithReason(ctx, reason), store, func(Stored) (edit, error) {
		old := e.current.Load()
		if old.gains(author, personPrefix+person, e.now()) {
			return edit{}, &crmguard.Denial{By: "rbac", Code: "self-grant", Detail: personPrefix + author.ID + ": moves " + personPrefix + person}
		}
		next, err := moved(old, tenant, personPrefix+person, from, to)
		if err != nil {
			return edit{}, err
		}
		if findings := next.rows.conflicts(e.now()); len(findings) > 0 {
			return edit{}, &crmguard.Denial{By: "rbac", Code: "separation-of-duties", Detail: findings[0].Reason}
		}
		change := edit{add: rowsOnlyIn(next, old, tenant), remove: rowsOnlyIn(old, next, tenant), put: func() { e.put(next) }}
		change.gives = old.frees(change.remove)
		return change, mayChange(author, old, next, e.now())
	})
}

// moved is a policy in which a person has other roles. They must be ones that it knows.
func moved(before *snapshot, tenant, subject string, from, to []string) (*snapshot, error) {
	known := make(map[string]bool)
	var rows []row
	for _, r := range before.rows.all() {
		isLink := r.kind == "g" || r.kind == "p2"
		if r.tenant() == tenant && r.kind != "p4" {
			known[r.fields[0]] = true
			known[r.fields[1]] = known[r.fields[1]] || isLink
		}
		if !isLink || r.tenant() != tenant || r.fields[0] != subject || !slices.Contains(from, r.fields[1]) {
			rows = append(rows, r)
		}
	}
	for _, role := range to {
		if !known[role] {
			return nil, fmt.Errorf("rbac: move: no row of tenant %q knows %q", tenant, role)
		}
		rows = append(rows, row{"the move", "g", []string{subject, role, tenant}})
	}
	return compile(rows)
}

// units tells what the move does to the departments that the person's dept and tree reach.
func (m *MoverReview) units(departments *tree, person string, from, to []string) {
	reach := func(units []string) []string { return sorted(slices.Concat(units, departments.below(nonEmpty(units)))) }
	without := func(units, others []string) []string {
		return slices.DeleteFunc(slices.Clone(units), func(unit string) bool { return slices.Contains(others, unit) })
	}
	member := departments.Members[person]
	old, next, place := reach(member), reach(slices.Concat(without(member, from), to)), reach(to)
	m.GainsUnits, m.LosesUnits, m.KeepsUnits = without(next, old), without(old, next), without(next, place)
	m.KeepsUnits = without(m.KeepsUnits, m.GainsUnits)
	m.KeepsHeads = without(sorted(departments.Heads[person]), place)
}

// reasons are the rules that give somebody a right under some of these relations.
func (s *rowSet) reasons(tenant, subject string, what right, under relationSet, now int64) (reasons []Reason) {
	in, _ := s.name(tenant)
	of, _ := s.name(subject)
	is, from := s.paths(in, of, now)
	for i, identity := range is {
		for _, r := range s.rulesOf(in, identity) {
			if r.effect == effectAllow && s.names[r.object] == what.object && string(actWords[r.act]) == what.action && relationsIn[r.scope]&under != 0 {
				row := s.rule(r)
				reasons = append(reasons, Reason{row.rule(), row.where, s.path(is, from, i)})
			}
		}
	}
	return reasons
}

// String tells the review, for people.
func (m MoverReview) String() string {
	var w reviewWriter
	fmt.Fprintf(&w.text, "%s of %s\n", shown(m.Person), shown(m.Tenant))
	for _, r := range m.Change.Rights {
		fmt.Fprintf(&w.text, "  %s\n", r)
	}
	w.section("keeps, though the new place does not give it", texts(m.Keeps, Kept.String))
	w.section("rows that stay", texts(m.Rows, Authored.String))
	w.section("departments that come", texts(m.GainsUnits, shown))
	w.section("departments that go", texts(m.LosesUnits, shown))
	w.section("departments that stay, though they are not of the new place", texts(m.KeepsUnits, shown))
	w.section("heads departments that are not of the new place", texts(m.KeepsHeads, shown))
	w.section("records", texts(m.Records, Records.String))
	return w.text.String()
}

// String tells the right and its rules.
func (k Kept) String() string {
	by := texts(k.By, func(r Reason) string { return located(r.Rule, r.Where) })
	return k.Right.String() + " by " + strings.Join(by, " and ")
}
