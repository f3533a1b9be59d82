package rbac

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// mayChange refuses a policy by which somebody in the author's tenant gets what the author
// lacks, or the author gets more, be it in somebody's place. It compares what is in force,
// not what is stored: rows that are stored and were refused give nobody anything yet.
func mayChange(author crmguard.Subject, old, next *snapshot, now int64) error {
	if author.Kind == crmguard.KindSystem && author.OnBehalfOf == "" {
		return nil
	}
	change := edit{add: rowsOnlyIn(next, old, author.Tenant), remove: rowsOnlyIn(old, next, author.Tenant)}
	for _, rule := range change.add {
		if r := rowOf("", rule); r.kind == "p3" {
			if err := mayDeputize(author, old, next, r, now); err != nil {
				return err
			}
		}
	}
	j := newJudge(author, old, next, now)
	if err := j.unites(change.remove); err != nil {
		return err
	}
	names := touched(author.Tenant, old, next, change)
	for _, name := range names {
		if err := j.own(name); err != nil {
			return err
		}
	}
	deputies := j.deputies()
	for _, pair := range slices.SortedFunc(maps.Keys(deputies), comparePairs) {
		_, deputy := slices.BinarySearch(names, pair.Person)
		_, whom := slices.BinarySearch(names, pair.Whom)
		if !deputy && !whom {
			continue
		}
		if err := j.lent(pair, deputies[pair]); err != nil {
			return err
		}
	}
	return nil
}

// judge compares two policies for an author. Whoever has the same by both as somebody who was
// judged, as most members of a role have, needs no look of their own.
type judge struct {
	author    crmguard.Subject
	old, next *snapshot
	now       int64

	holders []string            // who must have what the author gives
	selves  []string            // who has what the author gets
	held    map[int64]held      // by the moment
	judged  map[[2]*holder]bool // by what somebody is, before and after
}

func newJudge(author crmguard.Subject, old, next *snapshot, now int64) *judge {
	return &judge{
		author, old, next, now, holdersOf(author), slices.Concat(old.selves(author, now), next.selves(author, now)),
		make(map[int64]held), make(map[[2]*holder]bool),
	}
}

// unites refuses to end that roles exclude each other if one of them is the author's: then
// somebody could give the author the other one.
func (j *judge) unites(removed [][]string) error {
	for _, rule := range removed {
		r := rowOf("", rule)
		if r.kind != "p4" || j.next.excludes(r.fields[0], r.fields[2], r.fields[1]) {
			continue
		}
		for _, self := range j.selves {
			if is := j.old.rows.is(j.author.Tenant, self, j.now); slices.Contains(is, r.fields[1]) || slices.Contains(is, r.fields[2]) {
				return &crmguard.Denial{By: "rbac", Code: "self-grant", Detail: "u:" + j.author.ID + ": " + self + " is kept apart by " + strings.Join(rule, ", ")}
			}
		}
	}
	return nil
}

// own refuses what a name of a row would have more by itself.
func (j *judge) own(name string) error {
	person, isPerson := strings.CutPrefix(name, personPrefix)
	of := who{j.author.Tenant, person}
	is := [2]*holder{j.old.people[of], j.next.people[of]}
	alike := isPerson && !slices.Contains(j.selves, name)
	if alike && j.judged[is] {
		return nil
	}
	for _, moment := range j.moments(j.holders, name) {
		gets := beyond(j.next.rights(j.author.Tenant, name, moment), j.old.rights(j.author.Tenant, name, moment))
		held, ok := j.held[moment]
		if !ok {
			held = j.old.heldBy(j.author, j.holders, moment)
			j.held[moment] = held
		}
		if err := j.gives(name, gets, held); err != nil {
			return err
		}
	}
	j.judged[is] = j.judged[is] || alike
	return nil
}

// lent refuses what a deputy would have more in the place of another. What is that
// person's own is nobody else's: the author must have it on all records, or be that person.
func (j *judge) lent(pair Deputy, moments []int64) error {
	holders := holdersBut(j.author, pair.Whom)
	if j.author.Kind == crmguard.KindSystem && len(holders) == 0 {
		return nil
	}
	for _, moment := range slices.Concat(moments, j.moments(holders, pair.Person, pair.Whom)) {
		gets := lentBeyond(j.next.rightsAs(pair, moment), j.old.rightsAs(pair, moment))
		for what := range gets {
			gets[what] = possible(what.object)
		}
		if err := j.gives(pair.Person, gets, j.old.heldBy(j.author, holders, moment)); err != nil {
			return err
		}
	}
	return nil
}

// gives refuses what the author lacks, or would have.
func (j *judge) gives(name string, gets map[right]relationSet, held held) error {
	for _, what := range slices.SortedFunc(maps.Keys(gets), compareRights) {
		code := ""
		switch {
		case slices.Contains(j.selves, name):
			code = "self-grant"
		case !held.cover(what, gets[what]):
			code = "lacks-right"
		default:
			continue
		}
		return &crmguard.Denial{By: "rbac", Code: code, Detail: "u:" + j.author.ID + ": " + name + ": " + what.action + " " + what.object}
	}
	return nil
}

// moments are those at which what some have can become other, before or after the change.
func (j *judge) moments(holders []string, names ...string) []int64 {
	persons := slices.Clone(holders)
	for _, name := range names {
		if person, ok := strings.CutPrefix(name, personPrefix); ok {
			persons = append(persons, person)
		}
	}
	moments := slices.Concat(j.old.moments(j.now, noEnd, j.author.Tenant, persons...), j.next.moments(j.now, noEnd, j.author.Tenant, persons...))
	slices.Sort(moments)
	return slices.Compact(moments)
}

// deputies are who stands in for whom, before or after the change, and the moments at
// which that begins and ends.
func (j *judge) deputies() map[Deputy][]int64 {
	found := make(map[Deputy][]int64)
	for _, d := range slices.Concat(j.old.deputies(j.author.Tenant, j.now), j.next.deputies(j.author.Tenant, j.now)) {
		pair := Deputy{Person: d.Person, Whom: d.Whom, Tenant: d.Tenant}
		found[pair] = append(found[pair], max(d.From.Unix(), j.now), d.End.Unix())
	}
	return found
}

func comparePairs(a, b Deputy) int {
	return cmp.Or(strings.Compare(a.Person, b.Person), strings.Compare(a.Whom, b.Whom))
}

// touched are those whose rights a change may alter: whoever is named first in one of
// its rows, and whoever is a member of one of these, before or after. They are sorted.
func touched(tenant string, old, next *snapshot, change edit) []string {
	var changed []string
	for _, rule := range slices.Concat(change.add, change.remove) {
		changed = append(changed, rowOf("", rule).fields[:1]...)
	}
	before, after := old.rows.members(tenant, 0), next.rows.members(tenant, 0)
	names := append(descend(changed, func(name string) []string { return slices.Concat(before[name], after[name]) }), changed...)
	slices.Sort(names)
	return slices.Compact(names)
}
