package encrypt

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever the hashes are, scopes are asked for once, and each caller gets the keys of its own.
func TestQueryAsksForEachScopeOnce(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- the same scopes each time
	for name, hash := range map[string]func(i int) uint64{
		"spread":  func(i int) uint64 { return uint64(i) * 0x9e3779b97f4a7c15 }, //nolint:gosec // never negative
		"alike":   func(i int) uint64 { return uint64(i % 3) },                  //nolint:gosec // never negative
		"one":     func(int) uint64 { return 7 },
		"highest": func(int) uint64 { return 1<<64 - 1 },
	} {
		t.Run(name, func(t *testing.T) {
			for n := range 60 {
				q := newKeyQuery("acme", n)
				var wanted []Scope
				known := make(map[Scope]int) // the slow model
				for i := range n {
					client := random.IntN(n)
					s := Scope{"acme", DataKey, strconv.Itoa(client)}
					if _, again := known[s]; !again {
						known[s] = len(known) + 1
					}
					wanted = append(wanted, s)
					q.add(i, &s, hash(client))
				}
				require.NoError(t, q.check())
				require.Len(t, q.scopes, 1+len(known))
				require.Equal(t, Scope{Tenant: "acme", Purpose: TenantKeyset}, q.scopes[0])
				require.Len(t, q.places, n)
				for i, p := range q.places {
					require.EqualValues(t, i, p.group)
					require.EqualValues(t, known[wanted[i]], p.scope)
					require.Equal(t, wanted[i], q.scopes[p.scope])
				}
			}
		})
	}
}

func TestQueryRefusesOtherTenantsAndNames(t *testing.T) {
	c := newCache(8)
	for _, s := range []Scope{{"other", DataKey, "c1"}, {"", DataKey, "c1"}} {
		q := newKeyQuery("acme", 1)
		q.add(0, &s, c.hash(&s))
		require.ErrorIs(t, q.check(), errScope)
	}
	for tenant, name := range map[string]string{"acme": "c\x001", "ac\xffme": "c1"} {
		q := newKeyQuery(tenant, 1)
		s := Scope{tenant, DataKey, name}
		q.add(0, &s, c.hash(&s))
		require.ErrorIs(t, q.check(), errName)
	}
}

// A store may answer in any order, in several runs, and with what nobody asked for.
func TestQuerySortsRecords(t *testing.T) {
	c := newCache(8)
	q := newKeyQuery("acme", 3)
	var scopes []Scope
	for i := range 3 {
		s := Scope{"acme", DataKey, "c" + strconv.Itoa(i)}
		q.add(i, &s, c.hash(&s))
		scopes = append(scopes, s)
	}
	keyset := Scope{Tenant: "acme", Purpose: TenantKeyset}
	record := func(s Scope, version uint32) Record { return Record{Scope: s, Version: version} }
	for name, records := range map[string][]Record{
		"in order":  {record(keyset, 1), record(scopes[0], 1), record(scopes[0], 2), record(scopes[2], 1)},
		"backwards": {record(scopes[2], 1), record(scopes[0], 1), record(scopes[0], 2), record(keyset, 1)},
		"in runs":   {record(scopes[0], 1), record(scopes[2], 1), record(scopes[0], 2), record(keyset, 1)},
		"others too": {
			record(Scope{"acme", DataKey, "c9"}, 1), record(keyset, 1), record(Scope{"other", DataKey, "c0"}, 1),
			record(scopes[2], 1), record(Scope{"acme", MACKey, "c0"}, 1), record(scopes[0], 1), record(scopes[0], 2),
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, [][]Record{
				{record(keyset, 1)}, {record(scopes[0], 1), record(scopes[0], 2)}, nil, {record(scopes[2], 1)},
			}, q.sort(records, c))
		})
	}
}
