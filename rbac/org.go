package rbac

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// Org is the host's tree of departments.
//
// Version changes whenever Units would answer differently, and is asked once for
// each decision, each CheckAll and each Filter; Units is asked only when the
// version changed. So a change shows in the next decision after Version tells of
// it, and a host that caches Version states that bound itself. What Units
// returned must not be changed afterwards.
type Org interface {
	Version(ctx context.Context, tenant string) (int64, error)
	Units(ctx context.Context, tenant string) (Units, error)
}

// Units are the departments of one tenant. A person may belong to several. Empty
// names mean nothing here, and a cycle among parents ends where it closes.
type Units struct {
	Parent  map[string]string   // unit → the unit above it
	Members map[string][]string // person → units
}

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

// maxTenants bounds the trees that are kept. Beyond it all are dropped.
const maxTenants = 4096

// orgCache keeps the tree of each tenant for as long as its version stays. Decisions
// take no lock; whoever brings a new tree replaces the map.
type orgCache struct {
	source Org // nil: the host has no departments

	mu    sync.Mutex // one replacement at a time
	trees atomic.Pointer[map[string]cachedTree]
}

type cachedTree struct {
	version int64
	tree    *tree
}

var noDepartments = newTree(Units{})

// tree returns the tenant's departments as of now.
func (c *orgCache) tree(ctx context.Context, tenant string) (*tree, error) {
	if c.source == nil {
		return noDepartments, nil
	}
	version, err := c.source.Version(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("rbac: version of the departments: %w", err)
	}
	if known, ok := of(&c.trees)[tenant]; ok && known.version == version {
		return known.tree, nil
	}
	units, err := c.source.Units(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("rbac: departments: %w", err)
	}
	built := newTree(units)
	c.mu.Lock()
	defer c.mu.Unlock()
	replaceIn(&c.trees, tenant, cachedTree{version, built}, maxTenants)
	return built, nil
}

// of is the map that is in place now.
func of[V any](maps *atomic.Pointer[map[string]V]) map[string]V {
	if m := maps.Load(); m != nil {
		return *m
	}
	return nil
}

// replaceIn puts a copy with a new value in its place, alone if it is full.
func replaceIn[V any](in *atomic.Pointer[map[string]V], key string, value V, limit int) {
	next := make(map[string]V)
	if old := of(in); len(old) < limit {
		maps.Copy(next, old)
	}
	next[key] = value
	in.Store(&next)
}

// StaticOrg is an [Org] in memory, for tests and for hosts whose departments
// rarely change. The zero value has no departments.
type StaticOrg struct {
	mu    sync.Mutex // one Set at a time
	trees atomic.Pointer[map[string]versionedUnits]
}

type versionedUnits struct {
	version int64
	units   Units
}

// Set replaces the departments of a tenant; the next decision sees them.
func (o *StaticOrg) Set(tenant string, units Units) {
	members := make(map[string][]string, len(units.Members))
	for person, of := range units.Members {
		members[person] = slices.Clone(of)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	next := versionedUnits{of(&o.trees)[tenant].version + 1, Units{Parent: maps.Clone(units.Parent), Members: members}}
	replaceIn(&o.trees, tenant, next, math.MaxInt)
}

// Version counts the calls of Set for the tenant.
func (o *StaticOrg) Version(_ context.Context, tenant string) (int64, error) {
	return of(&o.trees)[tenant].version, nil
}

// Units returns what Set got.
func (o *StaticOrg) Units(_ context.Context, tenant string) (Units, error) {
	return of(&o.trees)[tenant].units, nil
}
