package rbac

import "slices"

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
	tree  *tree    // of the tenant
}

func (p *placement) inUnit(unit string) bool { return slices.Contains(p.units, unit) }

// below reports whether a unit lies under one of the person's. The walk up is at
// most as long as the tree has units, so a cycle cannot hold it.
func (p *placement) below(unit string) bool {
	if len(p.units) == 0 {
		return false
	}
	for range len(p.tree.Parent) {
		unit = p.tree.Parent[unit]
		if unit == "" {
			return false
		}
		if p.inUnit(unit) {
			return true
		}
	}
	return false
}

// subunits lists what lies below the person's units, sorted, without those units.
func (p *placement) subunits() []string {
	if len(p.units) == 0 {
		return nil
	}
	return descend(p.nonEmptyUnits(), func(unit string) []string { return p.tree.children[unit] })
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

func (p *placement) nonEmptyUnits() []string {
	return slices.DeleteFunc(slices.Clone(p.units), func(unit string) bool { return unit == "" })
}
