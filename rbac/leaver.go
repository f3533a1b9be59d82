package rbac

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// LeaverReview is what a person has in a tenant, to be read before [Engine.Revoke] takes it:
// what the person may do and where from, who gave it, what the person gave to others, which
// records wait for somebody else, and what nobody could do any more.
//
// It names roles and rows, so it is for whoever administers rights.
type LeaverReview struct {
	Tenant string
	Person string     // such as "u:anna"
	Policy string     // version that was read, as of [Engine.Version]
	Units  []string   // departments of which the person is a member, sorted
	Heads  []string   // departments that the person heads, sorted
	Roles  [][]string // the way to each, nearest first: u:anna, role:head, role:seller
	Rights []Right    // at this moment, by object and action
	Rows   []Authored // that name the person first; those that deny stay, Revoke takes all others
	// Granted are rows for others that the person put there and that are in force. They
	// stay; whether they should is a question to their department. Nil without a [Store].
	Granted []Authored
	Records []Records
	Orphans Orphans
}

// Right is what somebody may do, and under which relations to records.
type Right struct {
	Object    string          // a kind, kind#field or section:name
	Action    crmguard.Action // as in rows
	Relations []string
}

// Authored is a row and who put it there.
type Authored struct {
	Rule  []string // the row, its type first
	Where string   // it stands, as in [Finding]
	By    Version  // that added it, without its rows; zero if that is not known
}

// Records are how many records of a kind a person is responsible for, and how many are
// shared with that person: counts of the host's.
type Records struct {
	Kind          string
	Owned, Shared int
}

// ReviewLeaver tells what a person has in a tenant. The host says how many records of
// which kinds the person has; handing them over is the host's too, as a change of their
// owner: see the package comment. Who may ask is a question of the host.
func (e *Engine) ReviewLeaver(ctx context.Context, tenant, person string, records ...Records) (LeaverReview, error) {
	if err := reaches(ctx, tenant, person); err != nil {
		return LeaverReview{}, err
	}
	departments, err := e.org.tree(ctx, tenant)
	if err != nil {
		return LeaverReview{}, err
	}
	policy, err := e.inForce()
	if err != nil {
		return LeaverReview{}, err
	}
	authors, err := e.authors(ctx, tenant)
	if err != nil {
		return LeaverReview{}, err
	}
	subject, now := personPrefix+person, e.now()
	rights := policy.rights(tenant, subject, now)
	l := LeaverReview{
		Tenant: tenant, Person: subject, Policy: policy.version,
		Units:   sorted(departments.Members[person]),
		Heads:   sorted(departments.Heads[person]),
		Roles:   policy.waysToRoles(tenant, subject, now),
		Rights:  rightsOf(rights),
		Records: slices.Clone(records),
	}
	for _, r := range policy.rows.all() {
		if r.tenant() != tenant || r.kind == "p4" { // which names nobody
			continue
		}
		row := Authored{r.rule(), r.where, authors[r.key()]}
		switch {
		case r.fields[0] == subject:
			l.Rows = append(l.Rows, row)
		case row.By.Tenant == tenant && row.By.Author == person && !row.By.Whole:
			l.Granted = append(l.Granted, row)
		}
	}
	l.Orphans = policy.orphans(&l, rights, departments)
	return l, nil
}

// sorted are names, each once, without empty ones.
func sorted(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(nonEmpty(names))))
}

// authors are the versions that added the rows of a tenant last; none without a [Store].
func (e *Engine) authors(ctx context.Context, tenant string) (map[[7]string]Version, error) {
	const page = 200
	authors := make(map[[7]string]Version)
	for before := int64(0); ; {
		versions, err := e.History(ctx, tenant, before, page)
		if err != nil && !errors.Is(err, ErrNoVersions) {
			return nil, fmt.Errorf("rbac: who gave what: %w", err)
		}
		for _, v := range versions {
			before = v.Number
			added := v.Added
			v.Added, v.Removed = nil, nil
			for _, rule := range added {
				if key := rowOf("", rule).key(); authors[key].Number == 0 {
					authors[key] = v
				}
			}
		}
		if len(versions) < page {
			return authors, nil
		}
	}
}

// rightsOf lists rights, without those that rules deny wholly.
func rightsOf(rights map[right]relationSet) (list []Right) {
	for what, under := range rights {
		if under = under & possible(what.object); under != 0 {
			list = append(list, Right{what.object, crmguard.Action(what.action), under.words()})
		}
	}
	slices.SortFunc(list, func(a, b Right) int {
		return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(string(a.Action), string(b.Action)))
	})
	return list
}

// possible are the relations that there are to an object.
func possible(object string) relationSet {
	if isSection(object) {
		return 1 << relNone
	}
	return everyRelation
}

// waysToRoles are the nearest ways to all that a subject is besides itself.
func (s *snapshot) waysToRoles(tenant, subject string, now int64) (ways [][]string) {
	in, ok := s.rows.name(tenant)
	of, known := s.rows.name(subject)
	if !ok || !known {
		return nil
	}
	is, from := s.rows.paths(in, of, now)
	for i := range is[1:] {
		ways = append(ways, s.rows.path(is, from, i+1))
	}
	return ways
}

// String tells the review, for people.
func (l LeaverReview) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s\n", shown(l.Person), shown(l.Tenant))
	section := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(&b, "%s:\n  %s\n", title, strings.Join(lines, "\n  "))
		}
	}
	section("departments", texts(l.Units, shown))
	section("heads", texts(l.Heads, shown))
	section("roles", texts(l.Roles, func(way []string) string { return strings.Join(way[1:], " → ") }))
	section("rights", texts(l.Rights, Right.String))
	section("rows", texts(l.Rows, Authored.String))
	section("rows for others that the person put there, which stay", texts(l.Granted, Authored.String))
	section("records", texts(l.Records, Records.String))
	section("rights that nobody else has", texts(l.Orphans.Rights, Right.String))
	section("roles that nobody else has", l.Orphans.Roles)
	section("records that nobody else may view", l.Orphans.Kinds)
	section("departments that nobody else heads", texts(l.Orphans.Units, shown))
	return b.String()
}

// String tells what may be done.
func (r Right) String() string {
	return string(r.Action) + " " + r.Object + recordsThatAre(r.Object, r.Relations)
}

// String tells the row, where it stands and who put it there.
func (a Authored) String() string {
	text := located(a.Rule, a.Where)
	if a.By.Number == 0 {
		return text
	}
	author := "nobody"
	if a.By.Author != "" {
		author = personPrefix + a.By.Author
	}
	return fmt.Sprintf("%s, by %s on %s in version %d: %s", text, shown(author), a.By.Time.UTC().Format("2006-01-02"), a.By.Number, shown(a.By.Reason))
}

// located is a row and where it stands.
func located(rule []string, where string) string {
	text := strings.Join(rule, ", ")
	if where != "" {
		text += " (" + where + ")"
	}
	return text
}

// String tells the counts.
func (r Records) String() string {
	return fmt.Sprintf("%s: responsible for %d, shared %d", shown(r.Kind), r.Owned, r.Shared)
}

func texts[T any](of []T, text func(T) string) (lines []string) {
	for _, v := range of {
		lines = append(lines, text(v))
	}
	return lines
}
