package rbac

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// Static separation of duty, as NIST's RBAC (ANSI INCITS 359) calls it: pairs of roles of
// which nobody may have both at the same time, by whatever way. It is about roles, so a
// rule for a person alone is no way to have one.

// exclusion is a p4 row. Names are indexes into rowSet.names.
type exclusion struct {
	tenant, role, other uint32
	place               place
}

func compareExclusions(a, b exclusion) int {
	return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.role, b.role), cmp.Compare(a.other, b.other))
}

func (s *rowSet) exclusion(x exclusion) row {
	return row{s.where(x.place), "p4", []string{s.names[x.tenant], s.names[x.role], s.names[x.other]}}
}

// clockSkew is by how many seconds the clocks of two processes may differ: what one of them
// gave when something else had just ended must not look like both at once to the other.
const clockSkew = 60

// compileAt is compile that refuses whoever has, or could get at the end of a chain of
// roles, two roles at once that exclude each other.
func compileAt(rows []row, now func() int64) (*snapshot, error) {
	next, err := compile(rows)
	if err != nil {
		return nil, err
	}
	if findings := next.rows.conflicts(now()); len(findings) > 0 {
		return nil, &PolicyError{findings}
	}
	return next, nil
}

// conflicts finds who has two roles that exclude each other at some moment from now on.
// Whoever has them only because a role has them is not named beside that role.
func (s *rowSet) conflicts(now int64) (findings []Finding) {
	if len(s.exclusions) == 0 {
		return nil
	}
	members := make(map[node][]link)
	for _, l := range s.links {
		role := node{l.tenant, l.role}
		members[role] = append(members[role], l)
	}
	for _, x := range s.exclusions {
		one, other := holdersOfRole(x.tenant, x.role, members), holdersOfRole(x.tenant, x.other, members)
		both := func(subject uint32) bool { return min(one[subject].end, other[subject].end) > now } // all grants have begun
		for subject := range other {
			inherits := func(l link) bool { return now < l.end && both(l.role) }
			if both(subject) && !slices.ContainsFunc(s.linksOf(x.tenant, subject), inherits) {
				findings = append(findings, s.conflict(x, subject, one, other))
			}
		}
		findings = append(findings, s.conflictsOfDeputies(x, one, other, now)...)
	}
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.Reason, b.Reason) })
	return findings
}

// holding is until when somebody has a role, and by which row of theirs; none if they are
// the role.
type holding struct {
	end int64
	by  link
}

// holdersOfRole are those who have a role, itself included, each until their last end.
func holdersOfRole(tenant, role uint32, members map[node][]link) map[uint32]holding {
	holders := map[uint32]holding{role: {end: noEnd}}
	for todo := []uint32{role}; len(todo) > 0; todo = todo[1:] {
		for _, l := range members[node{tenant, todo[0]}] {
			had, seen := holders[l.subject]
			if !seen { // what roles have does not end, so their members need no second look
				todo = append(todo, l.subject)
			}
			if had.end < l.end {
				holders[l.subject] = holding{l.end, l}
			}
		}
	}
	return holders
}

func (s *rowSet) conflict(x exclusion, subject uint32, one, other map[uint32]holding) Finding {
	by, first := other[subject].by, one[subject].by
	if subject == x.other || subject != x.role && first.place.after(by.place) {
		by = first
	}
	return s.refused(s.link(by), x, subject, s.way(subject, one), s.way(subject, other))
}

// refused is a finding about a row by which somebody would have two roles, each by its way.
func (s *rowSet) refused(r row, x exclusion, subject uint32, way, other string) Finding {
	return Finding{Where: r.where, Rule: r.rule(), Reason: fmt.Sprintf("%s would have %s and %s at once, which %s excludes",
		s.names[subject], way, other, located(s.exclusion(x).rule(), s.where(x.place)))}
}

// conflictsOfDeputies finds who would have two roles that exclude each other while standing
// in for others: one of their own and one of those, or two of those.
func (s *rowSet) conflictsOfDeputies(x exclusion, one, other map[uint32]holding, now int64) (findings []Finding) {
	for i, d := range s.deputies {
		if d.tenant != x.tenant || d.end <= now {
			continue
		}
		for _, b := range s.besides(i) {
			for _, pair := range [][2]map[uint32]holding{{one, other}, {other, one}} {
				end := min(d.end, b.end, pair[0][d.role].end, pair[1][b.role].end)
				if max(d.from, b.from, now) >= end {
					continue
				}
				r := s.deputy(d)
				if b.role != b.subject && b.place.after(d.place) {
					r = s.deputy(b)
				}
				findings = append(findings, s.refused(r, x, d.subject, s.wayAs(b, pair[1]), s.wayAs(d, pair[0])))
			}
		}
	}
	return findings
}

// besides are what a deputy is besides standing in for one person: themselves, and deputy of
// others in rows that follow. The order of deputies has those of one person together.
func (s *rowSet) besides(i int) []deputy {
	d := s.deputies[i]
	all := []deputy{{link{subject: d.subject, role: d.subject, end: noEnd}, math.MinInt64}}
	for _, b := range s.deputies[i+1:] {
		if b.subject != d.subject || b.tenant != d.tenant {
			break
		}
		if b.role != d.role {
			all = append(all, b)
		}
	}
	return all
}

// wayAs is how somebody comes to a role by standing in, or by themselves.
func (s *rowSet) wayAs(d deputy, to map[uint32]holding) string {
	way := s.way(d.role, to)
	if d.role != d.subject {
		way += " as deputy of " + s.names[d.role]
	}
	return way
}

// way is how somebody comes to a role.
func (s *rowSet) way(subject uint32, to map[uint32]holding) string {
	var names []string
	for ; ; subject = to[subject].by.role {
		names = append(names, s.names[subject])
		if to[subject].by == (link{}) {
			break
		}
	}
	if len(names) > 1 {
		names = names[1:]
	}
	return strings.Join(names, " → ")
}

// separates refuses a link, or a deputy, by which a person would have roles that exclude
// each other.
func (s *snapshot) separates(added row, now int64) error {
	if len(s.rows.exclusions) == 0 {
		return nil
	}
	rows := append(s.rows.linksOfRoles(), added)
	persons := slices.Clone(added.fields[:1])
	if added.kind == "p3" {
		persons = append(persons, added.fields[1])
	}
	in, _ := s.rows.name(added.tenant())
	for _, d := range s.rows.deputies {
		if d.tenant == in {
			r := s.rows.deputy(d)
			rows, persons = append(rows, r), append(persons, r.fields[:2]...)
		}
	}
	for _, name := range sorted(persons) {
		person, _ := s.rows.name(name)
		for _, l := range s.rows.linksOf(in, person) {
			rows = append(rows, s.rows.link(l))
		}
	}
	for _, x := range s.rows.exclusions {
		rows = append(rows, s.rows.exclusion(x))
	}
	if findings := rowSetOf(rows).conflicts(now); len(findings) > 0 {
		return &crmguard.Denial{By: "rbac", Code: "separation-of-duties", Detail: findings[0].Reason}
	}
	return nil
}

// excludes reports whether a p4 row has these roles, in this order.
func (s *snapshot) excludes(tenant, role, other string) bool {
	return slices.ContainsFunc(s.rows.exclusions, func(x exclusion) bool {
		name := s.rows.names
		return name[x.tenant] == tenant && name[x.role] == role && name[x.other] == other
	})
}

// after reports whether a row seems to have come after another one: what is not in a file
// yet, or stands lower in it.
func (p place) after(other place) bool {
	return p.number == 0 || other.number != 0 && p.number > other.number
}
