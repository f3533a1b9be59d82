package rbac

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// Org is the host's tree of departments. An [Engine] keeps each tenant's and asks for it
// aside, so no decision pays a query: Version at most once in [DefaultEvery], and Load
// when the version changed.
//
// A change shows in the next decision after [Engine.Invalidate], and otherwise within
// [DefaultEvery] where decisions go on, at the latest after [DefaultMaxAge]; what nobody
// could look at for so long decides nothing. Reading all departments of a tenant must
// take less. What Load returned must not be changed afterwards.
type Org interface {
	// Version changes whenever Load would answer differently.
	Version(ctx context.Context, tenant string) (int64, error)

	// Load returns the departments of a version that is at least the one that Version
	// told before.
	Load(ctx context.Context, tenant string) (Units, error)
}

// Units are the departments of one tenant. A person may belong to several, and head
// several: a head need not be a member, nor is a member of one department anything in
// another that they head. Empty names mean nothing here, and a cycle among parents ends
// where it closes.
type Units struct {
	Parent  map[string]string   // unit → the unit above it
	Members map[string][]string // person → units
	Heads   map[string][]string // person → units
}

// StaticOrg is an [Org] in memory, for tests and for hosts that keep their departments there. An engine asks it at
// each decision, so the next one sees what Set brought. The zero value has no departments.
type StaticOrg struct {
	mu    sync.Mutex // one Set at a time
	trees atomic.Pointer[map[string]versionedTree]
}

type versionedTree struct {
	version int64
	tree    *tree
}

// Set replaces the departments of a tenant.
func (o *StaticOrg) Set(tenant string, units Units) {
	copied := newTree(Units{Parent: maps.Clone(units.Parent), Members: cloneLists(units.Members), Heads: cloneLists(units.Heads)})
	o.mu.Lock()
	defer o.mu.Unlock()
	replaceIn(&o.trees, tenant, versionedTree{of(&o.trees)[tenant].version + 1, copied}, math.MaxInt)
}

func cloneLists(lists map[string][]string) map[string][]string {
	clone := make(map[string][]string, len(lists))
	for name, list := range lists {
		clone[name] = slices.Clone(list)
	}
	return clone
}

func (o *StaticOrg) tree(tenant string) *tree {
	if t := of(&o.trees)[tenant].tree; t != nil {
		return t
	}
	return noDepartments
}

// Version counts the calls of Set for the tenant.
func (o *StaticOrg) Version(_ context.Context, tenant string) (int64, error) {
	return of(&o.trees)[tenant].version, nil
}

// Load returns what Set got.
func (o *StaticOrg) Load(_ context.Context, tenant string) (Units, error) {
	return o.tree(tenant).Units, nil
}
