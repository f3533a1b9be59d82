package rbac

import (
	"maps"
	"slices"
)

// tree is the departments of one tenant in one version, with the way down.
type tree struct {
	Units
	children map[string][]string // unit → the units right below it
}

func newTree(u Units) *tree {
	t := &tree{u, make(map[string][]string, len(u.Parent))}
	for unit, parent := range u.Parent {
		if unit != "" && parent != "" {
			t.children[parent] = append(t.children[parent], unit)
		}
	}
	return t
}

// placement is where one person stands in the tree.
type placement struct {
	units []string // of the person
	heads []string // the units that the person heads
	tree  *tree    // of the tenant
}

// of is where a person stands.
func (t *tree) of(person string) placement {
	return placement{t.Members[person], t.Heads[person], t}
}

// relation is what the person is to the records of a unit that belong to nobody. The
// walk up is at most as long as the tree has units, so a cycle cannot hold it.
func (p *placement) relation(unit string) relation {
	if unit == "" || len(p.units)+len(p.heads) == 0 {
		return relNone
	}
	rel, headed := relNone, slices.Contains(p.heads, unit)
	if slices.Contains(p.units, unit) {
		rel = relDept
	}
	for range len(p.tree.Parent) {
		if (rel != relNone || len(p.units) == 0) && (headed || len(p.heads) == 0) {
			break
		}
		if unit = p.tree.Parent[unit]; unit == "" {
			break
		}
		if rel == relNone && slices.Contains(p.units, unit) {
			rel = relTree
		}
		headed = headed || slices.Contains(p.heads, unit)
	}
	if headed {
		rel = rel.headed()
	}
	return rel
}

// byRelation lists the units to whose records the person has each relation, sorted: all
// that are not listed are none. It looks at each unit once, whatever the shape of the
// tree.
func (p *placement) byRelation() (units [relShared][]string) {
	own, led := nonEmpty(p.units), nonEmpty(p.heads)
	below := p.tree.below(own)
	if len(led) == 0 { // as most people do
		slices.Sort(own)
		units[relDept], units[relTree] = slices.Compact(own), below
		return units
	}
	is := make(map[string]relation, len(below))
	for _, unit := range below {
		is[unit] = relTree
	}
	for _, unit := range own {
		is[unit] = relDept
	}
	all := slices.Concat(led, p.tree.below(led))
	slices.Sort(all)
	for _, unit := range slices.Compact(all) {
		is[unit] = is[unit].headed()
	}
	for _, unit := range slices.Sorted(maps.Keys(is)) {
		units[is[unit]] = append(units[is[unit]], unit)
	}
	return units
}

func nonEmpty(units []string) []string {
	return slices.DeleteFunc(slices.Clone(units), func(unit string) bool { return unit == "" })
}

// below lists what lies below some units, without those.
func (t *tree) below(units []string) []string {
	return descend(units, func(unit string) []string { return t.children[unit] })
}

// descend lists what lies below some units. It asks for the children of each unit
// once, whatever the shape of the tree.
func descend(from []string, children func(unit string) []string) []string {
	seen := make(map[string]bool)
	for _, unit := range from {
		seen[unit] = true
	}
	var found []string
	for todo := from; len(todo) > 0; todo = todo[1:] {
		for _, unit := range children(todo[0]) {
			if !seen[unit] {
				seen[unit] = true
				found = append(found, unit)
				todo = append(todo, unit)
			}
		}
	}
	slices.Sort(found)
	return found
}
