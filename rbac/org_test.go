package rbac

import (
	"math/rand/v2"
	"slices"
	"strconv"
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
		units []string
		below []string
	}{
		"leaf":            {[]string{"north-1"}, nil},
		"middle":          {[]string{"north"}, []string{"north-1"}},
		"top":             {[]string{"acme"}, []string{"finance", "north", "north-1", "sales"}},
		"two, one within": {[]string{"sales", "north"}, []string{"north-1"}},
		"cycle":           {[]string{"a"}, []string{"b", "c"}},
		"self":            {[]string{"self"}, nil},
		"empty name":      {[]string{""}, nil},
		"none":            {nil, nil},
		"not in the tree": {[]string{"elsewhere"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := &placement{test.units, newTree(Units{Parent: parent})}
			require.Equal(t, test.below, p.subunits())
			for unit := range parent {
				if unit != "" {
					require.Equal(t, slices.Contains(test.below, unit), p.below(unit) && !p.inUnit(unit), unit)
				}
			}
		})
	}
}

func TestRelateFindsTheNarrowest(t *testing.T) {
	place := &placement{[]string{"north"}, newTree(Units{Parent: map[string]string{"north-1": "north"}})}
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
	place := placement{[]string{"north"}, newTree(Units{})}
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
		{party{"anna", nil, place, true, true}, of(relOwn), of(relDeptShared)},
		{party{"anna", nil, place, true, false}, of(relOwn, relOwnShared), of(relDept, relDeptShared)},
		{party{"anna", nil, placement{}, false, true}, of(relOwn), of(relShared, relDeptShared, relTreeShared)},
		{party{"anna", nil, placement{}, false, false}, of(relOwn, relOwnShared), everyRelation &^ of(relOwn, relOwnShared)},
	} {
		require.Equal(t, test.own, test.p.relations(&own))
		require.Equal(t, test.north, test.p.relations(&north))
		for allows := range relationSet(255) { // certain says for all records what relations says for one
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
	require.Equal(t, found, (&placement{[]string{"0", "17"}, ring}).subunits())
	require.False(t, (&placement{[]string{"elsewhere"}, ring}).below("5"))
}

func TestSubunitsAgreeWithBelowOnRandomTrees(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8)) //nolint:gosec // the same run every time
	for range 200 {
		units := randomUnits(rnd)
		for _, person := range somePersons {
			p := &placement{units.Members[person], newTree(units)}
			for _, unit := range someUnits {
				f := oracle{units: map[string]Units{"t": units}}.factsOf(person, crmguard.Resource{Tenant: "t", Unit: unit}, false)
				require.Equal(t, f.tree && !f.dept, p.below(unit) && !p.inUnit(unit))
				require.Equal(t, f.tree && !f.dept, slices.Contains(p.subunits(), unit))
			}
		}
	}
}
