package rbac

import (
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
	j := judge{author, old, next, now}
	names := touched(author.Tenant, old, next, change)
	for _, name := range names {
		if err := j.own(name); err != nil {
			return err
		}
	}
	for pair, moments := range j.deputies() {
		_, deputy := slices.BinarySearch(names, pair.Person)
		_, whom := slices.BinarySearch(names, pair.Whom)
		if !deputy && !whom {
			continue
		}
		if err := j.lent(pair, moments); err != nil {
			return err
		}
	}
	return nil
}

// judge compares two policies for an author.
type judge struct {
	author    crmguard.Subject
	old, next *snapshot
	now       int64
}

// own refuses what a name of a row would have more by itself.
func (j *judge) own(name string) error {
	holders := holdersOf(j.author)
	for _, moment := range j.moments(holders, name) {
		gets := beyond(j.next.rights(j.author.Tenant, name, moment), j.old.rights(j.author.Tenant, name, moment))
		if err := j.gives(name, gets, j.old.heldBy(j.author, holders, moment)); err != nil {
			return err
		}
	}
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
		case j.old.gains(j.author, name, j.now) || j.next.gains(j.author, name, j.now):
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
