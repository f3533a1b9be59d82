package rbac

import (
	"maps"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// mayChange refuses a policy by which somebody in the author's tenant gets what the author
// lacks, or the author gets more. It compares what is in force, not what is stored: rows
// that are stored and were refused give nobody anything yet.
func mayChange(author crmguard.Subject, old, next *snapshot, now int64) error {
	if author.Kind == crmguard.KindSystem && author.OnBehalfOf == "" {
		return nil
	}
	change := edit{add: rowsOnlyIn(next, old, author.Tenant), remove: rowsOnlyIn(old, next, author.Tenant)}
	for _, rule := range change.add {
		if r := rowOf("", rule); r.kind == "p3" {
			if err := mayDeputize(author, old, r, now); err != nil {
				return err
			}
		}
	}
	for _, name := range touched(author.Tenant, old, next, change) {
		persons := holdersOf(author)
		if person, ok := strings.CutPrefix(name, personPrefix); ok {
			persons = append(persons, person)
		}
		moments := slices.Concat(old.moments(now, noEnd, author.Tenant, persons...), next.moments(now, noEnd, author.Tenant, persons...))
		for _, moment := range moments {
			had := old.rights(author.Tenant, name, moment)
			gets := next.rights(author.Tenant, name, moment)
			held := old.heldBy(author, moment)
			maps.DeleteFunc(gets, func(what right, set relationSet) bool { return set&^had[what] == 0 })
			for _, what := range slices.SortedFunc(maps.Keys(gets), compareRights) {
				code := ""
				switch {
				case old.gains(author, name, now) || next.gains(author, name, now):
					code = "self-grant"
				case !held.cover(what, gets[what]&^had[what]):
					code = "lacks-right"
				default:
					continue
				}
				return &crmguard.Denial{By: "rbac", Code: code, Detail: "u:" + author.ID + ": " + name + ": " + what.action + " " + what.object}
			}
		}
	}
	return nil
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
