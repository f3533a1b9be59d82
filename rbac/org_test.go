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
			p := placement{units: test.units, parent: parent}
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
	place := placement{units: []string{"north"}, parent: map[string]string{"north-1": "north"}}
	for _, test := range []struct {
		owner, unit string
		want        relation
	}{
		{"anna", "north", relOwn}, {"anna", "", relOwn}, {"anna", "finance", relOwn},
		{"", "north", relDept}, {"boris", "north", relDept}, {"", "north-1", relTree},
		{"", "", relNone}, {"boris", "sales", relNone}, {"Anna", "North", relNone},
	} {
		r := crmguard.Resource{Owner: test.owner, Unit: test.unit}
		require.Equal(t, test.want, relate("anna", place, r, false), "%+v", test)
		shared := relate("anna", place, r, true)
		require.Equal(t, test.want+relShared, shared)
		want := "shared"
		if test.want != relNone {
			want = test.want.String() + "+shared"
		}
		require.Equal(t, want, shared.String())
	}
	require.Equal(t, relNone, relate("", placement{}, crmguard.Resource{}, false), "nobody owns nothing")
}

func TestTreesAreKeptPerTenantAndBounded(t *testing.T) {
	org := &countingOrg{StaticOrg: &StaticOrg{}}
	cache := orgCache{source: org}
	for i := range maxTenants + 1 {
		_, err := cache.tree(t.Context(), strconv.Itoa(i))
		require.NoError(t, err)
	}
	require.Len(t, cache.trees, 1)
	org.Set("a", Units{Members: map[string][]string{"anna": {"north"}}})
	a, err := cache.tree(t.Context(), "a")
	require.NoError(t, err)
	b, err := cache.tree(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, []string{"north"}, a.Members["anna"])
	require.Empty(t, b.Members)
}

func TestSubunitsAgreeWithBelowOnRandomTrees(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8)) //nolint:gosec // the same run every time
	for range 200 {
		units := randomUnits(rnd)
		for _, person := range somePersons {
			p := placement{units.Members[person], units.Parent}
			for _, unit := range someUnits {
				f := oracle{units: map[string]Units{"t": units}}.factsOf(person, crmguard.Resource{Tenant: "t", Unit: unit}, false)
				require.Equal(t, f.tree && !f.dept, p.below(unit) && !p.inUnit(unit))
				require.Equal(t, f.tree && !f.dept, slices.Contains(p.subunits(), unit))
			}
		}
	}
}
