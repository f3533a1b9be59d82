package encrypttest

import (
	"context"
	"fmt"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

// fenceDuties check that new keys appear only under the newest of what wraps them.
func fenceDuties() []duty[encrypt.Store] {
	ctx := context.Background()
	under := func(r encrypt.Record, wrapped string) encrypt.Record {
		r.Under = []byte(wrapped)
		return r
	}
	insert := func(t require.TestingT, s encrypt.Store, records ...encrypt.Record) []encrypt.Record {
		stored, err := s.Insert(ctx, records)
		require.NoError(t, err)
		return stored
	}
	keyset := encrypt.Scope{Tenant: "acme", Purpose: encrypt.TenantKeyset}
	onlyUnderTheNewest := func(of encrypt.Scope) func(t require.TestingT, open func() encrypt.Store) {
		return func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			first := record(of, 1, "one")
			require.Empty(t, insert(t, s, under(first, "w1")), "there is nothing to wrap it")
			insert(t, s, record(of.Wrapping(), 1, "w1"))
			require.Equal(t, []encrypt.Record{first}, insert(t, s, under(first, "w1")), "and Under is not stored")
			insert(t, s, record(of.Wrapping(), 2, "w2"))
			revision, _, err := s.Closing(ctx)
			require.NoError(t, err)
			second := record(of, 2, "two")
			require.Equal(t, []encrypt.Record{first}, insert(t, s, under(second, "w1")))
			same, _, err := s.Closing(ctx)
			require.NoError(t, err)
			require.Equal(t, revision, same, "nothing was added")
			require.Equal(t, []encrypt.Record{first, second}, insert(t, s, under(second, "w2")))
			other, ok := s.(encrypt.Inventory)
			if !ok {
				return
			}
			was := record(of.Wrapping(), 2, "w2")
			n, err := other.Replace(ctx, []encrypt.Record{was}, []encrypt.Record{changed(was, "w3", "")})
			require.NoError(t, err)
			require.Equal(t, 1, n)
			third := record(of, 3, "three")
			require.Len(t, insert(t, s, under(third, "w2")), 2)
			require.Len(t, insert(t, s, under(third, "w3")), 3)
			n, err = other.Replace(ctx, []encrypt.Record{record(of.Wrapping(), 1, "w1")}, []encrypt.Record{changed(was, "", "")})
			require.NoError(t, err)
			require.LessOrEqual(t, n, 1)
			require.Len(t, insert(t, s, under(record(of, 4, "four"), "w3")), 4)
		}
	}
	return []duty[encrypt.Store]{
		{"a key is added only under the newest of what wraps it", onlyUnderTheNewest(scope("c1"))},
		{"a keyset is added only under the newest of what wraps it", onlyUnderTheNewest(keyset)},
		{"each record has a fence of its own", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			insert(t, s, record(keyset, 1, "w1"))
			stored := insert(t, s, under(record(scope("c1"), 1, "k"), "w0"), under(record(scope("c2"), 1, "k"), "w1"), record(scope("c3"), 1, "k"))
			require.ElementsMatch(t, []encrypt.Record{record(scope("c2"), 1, "k"), record(scope("c3"), 1, "k")}, stored)
		}},
		{"nothing appears under an older keyset once there is a newer one", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			clients := make([]encrypt.Scope, racetest.Racers)
			for i := range clients {
				clients[i] = scope(fmt.Sprint("c", i))
			}
			for round := range uint32(5) {
				old, next := fmt.Sprint("w", round), fmt.Sprint("w", round+1)
				insert(t, s, record(keyset, 1, "w0"))
				var then []encrypt.Record
				var mu sync.Mutex
				racetest.Run(t, func(i int) (any, error) {
					if i == racetest.Racers/2 {
						if _, err := s.Insert(ctx, []encrypt.Record{record(keyset, round+2, next)}); err != nil {
							return nil, err
						}
						stored, err := s.Load(ctx, clients)
						mu.Lock()
						then = stored
						mu.Unlock()
						return nil, err
					}
					_, err := s.Insert(ctx, []encrypt.Record{under(record(clients[i], round+1, "k"), old)})
					return nil, err
				})
				now, err := s.Load(ctx, clients)
				require.NoError(t, err)
				require.ElementsMatch(t, then, now)
				for _, c := range clients { // those that were late
					insert(t, s, under(record(c, round+1, "k"), next))
				}
			}
		}},
	}
}
