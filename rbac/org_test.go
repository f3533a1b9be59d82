package rbac

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func TestPlacement(t *testing.T) {
	parent := map[string]string{
		"sales": "acme", "north": "sales", "north-1": "north", "finance": "acme",
		"a": "b", "b": "c", "c": "a", // a cycle
		"self": "self", "": "sales", "orphan": "",
	}
	for name, test := range map[string]struct {
		units, heads       []string
		tree, headed, both []string // headed: no more than that; both: dept+headed or tree+headed
	}{
		"leaf":            {units: []string{"north-1"}},
		"middle":          {units: []string{"north"}, tree: []string{"north-1"}},
		"top":             {units: []string{"acme"}, tree: []string{"finance", "north", "north-1", "sales"}},
		"two, one within": {units: []string{"sales", "north"}, tree: []string{"north-1"}},
		"cycle":           {units: []string{"a"}, tree: []string{"b", "c"}},
		"self":            {units: []string{"self"}},
		"empty name":      {units: []string{""}, heads: []string{""}},
		"none":            {},
		"not in the tree": {units: []string{"elsewhere"}},
		"head alone":      {heads: []string{"north"}, headed: []string{"north", "north-1"}},
		"head and member": {units: []string{"north"}, heads: []string{"north"}, both: []string{"north", "north-1"}},
		"head elsewhere":  {units: []string{"finance"}, heads: []string{"sales"}, headed: []string{"north", "north-1", "sales"}},
		"head within":     {units: []string{"sales"}, heads: []string{"north"}, both: []string{"north", "north-1"}},
		"head above":      {units: []string{"north-1"}, heads: []string{"sales"}, headed: []string{"north", "sales"}, both: []string{"north-1"}},
		"head of a cycle": {units: []string{"b"}, heads: []string{"a"}, both: []string{"a", "b", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &placement{test.units, test.heads, newTree(Units{Parent: parent})}
			units := p.byRelation()
			require.Equal(t, test.tree, units[relTree])
			require.Equal(t, test.headed, units[relHeaded])
			both := slices.Concat(units[relDeptHeaded], units[relTreeHeaded])
			slices.Sort(both)
			require.Equal(t, test.both, both)
			requireSamePlacement(t, p, slices.Collect(maps.Keys(parent)))
		})
	}
}

// requireSamePlacement compares what is said of each unit with what is said of one.
func requireSamePlacement(t *testing.T, p *placement, among []string) {
	t.Helper()
	units := p.byRelation()
	for _, unit := range among {
		want := relNone
		for r := range relShared {
			if slices.Contains(units[r], unit) {
				want = r
			}
		}
		require.Equal(t, want, p.relation(unit), unit)
	}
}

func TestRelateFindsTheNarrowest(t *testing.T) {
	place := &placement{units: []string{"north"}, tree: newTree(Units{Parent: map[string]string{"north-1": "north"}})}
	for _, test := range []struct {
		owner, unit string
		want        relation
	}{
		{"anna", "north", relOwn}, {"anna", "", relOwn}, {"anna", "finance", relOwn},
		{"", "north", relDept}, {"boris", "north", relDept}, {"", "north-1", relTree},
		{"", "", relNone}, {"boris", "sales", relNone}, {"Anna", "North", relNone},
	} {
		r := crmguard.Resource{Owner: test.owner, Unit: test.unit}
		require.Equal(t, test.want, relate("anna", place, &r), "%+v", test)
		want := "shared"
		if test.want != relNone {
			want = test.want.String() + "+shared"
		}
		require.Equal(t, want, (test.want + relShared).String())
	}
	require.Equal(t, relNone, relate("", &placement{}, &crmguard.Resource{}), "nobody owns nothing")
}

// What a party is not known to be it may be; what is known is one relation.
func TestRelationsOfAParty(t *testing.T) {
	place := placement{units: []string{"north"}, tree: newTree(Units{})}
	of := func(rs ...relation) (set relationSet) {
		for _, r := range rs {
			set |= 1 << r
		}
		return set
	}
	own, north := crmguard.Resource{Owner: "anna"}, crmguard.Resource{Unit: "north", Shared: true}
	for _, test := range []struct {
		p          party
		own, north relationSet
	}{
		{party{person: "anna", place: place, placed: true, shares: true}, of(relOwn), of(relDeptShared)},
		{party{person: "anna", place: place, placed: true}, of(relOwn, relOwnShared), of(relDept, relDeptShared)},
		{party{person: "anna", shares: true}, of(relOwn), unplaced << relShared},
		{party{person: "anna"}, of(relOwn, relOwnShared), everyRelation &^ of(relOwn, relOwnShared)},
	} {
		require.Equal(t, test.own, test.p.relations(&own))
		require.Equal(t, test.north, test.p.relations(&north))
		for allows := range everyRelation { // certain says for all records what relations says for one
			require.Equal(t, test.own&^allows == 0, test.own&^test.p.certain(allows) == 0)
			require.Equal(t, test.north&^allows == 0, test.north&^test.p.certain(allows) == 0)
		}
	}
}

// Eight thousand departments in a ring: nothing is looked at twice.
func TestARingOfDepartments(t *testing.T) {
	const n = 8000
	parent := make(map[string]string, n)
	for i := range n {
		parent[strconv.Itoa(i)] = strconv.Itoa((i + 1) % n)
	}
	ring, asked := newTree(Units{Parent: parent}), 0
	found := descend([]string{"0", "17"}, func(unit string) []string {
		asked++
		return ring.children[unit]
	})
	require.Len(t, found, n-2)
	require.Equal(t, n, asked)
	units := (&placement{units: []string{"0", "17"}, heads: []string{"18"}, tree: ring}).byRelation()
	require.Len(t, units[relTreeHeaded], n-2)
	require.Equal(t, relNone, (&placement{units: []string{"elsewhere"}, heads: []string{"x"}, tree: ring}).relation("5"))
}

func TestPlacementsAgreeWithTheSpecOnRandomTrees(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8)) //nolint:gosec // the same run every time
	for range 200 {
		units := randomUnits(rnd)
		for _, person := range somePersons {
			p := newTree(units).of(person)
			requireSamePlacement(t, &p, someUnits)
			for _, unit := range someUnits {
				f := oracle{units: map[string]Units{"t": units}}.factsOf(person, crmguard.Resource{Tenant: "t", Unit: unit}, false)
				is := factsIn(p.relation(unit))
				require.Equal(t, f.dept, is.dept)
				require.Equal(t, f.tree, is.dept || is.tree)
				require.Equal(t, f.headed, is.headed)
			}
		}
	}
}

// Anna heads sales and is a plain member of support: her rights as a head reach sales
// and what is below, as a member support, and neither the other.
func TestAHeadHasNothingWhereTheyAreAMember(t *testing.T) {
	org := &StaticOrg{}
	org.Set("acme", Units{
		Parent:  map[string]string{"north": "sales", "desk": "support"},
		Members: map[string][]string{"anna": {"support"}},
		Heads:   map[string][]string{"anna": {"sales"}},
	})
	const policy = `
p, role:head, acme, contacts, view, headed, allow
p, role:head, acme, tickets, view, dept, allow
g, u:anna, role:head, acme
`
	may := func(policy, kind, unit string) bool {
		r := crmguard.Resource{Tenant: "acme", Kind: kind, ID: "1", Unit: unit}
		return engineFromCSV(t, policy, org).Check(t.Context(), person("anna"), crmguard.View, r) == nil
	}
	for unit, headed := range map[string]bool{"sales": true, "north": true, "support": false, "desk": false, "": false} {
		require.Equal(t, headed, may(policy, "contacts", unit), unit)
		require.Equal(t, unit == "support", may(policy, "tickets", unit), unit)
	}
	byTree := strings.Replace(policy, "headed", "tree", 1)
	require.True(t, may(byTree, "contacts", "support"), "planted fault: a head by membership")
	require.False(t, may(byTree, "contacts", "sales"))
}
