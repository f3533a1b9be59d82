// Package encrypttest checks implementations of what package encrypt asks of others:
//
//   - [Store] checks an encrypt.Store, and its encrypt.Inventory when it has one;
//   - [Pending] an encrypt.Pending;
//   - [Index] an encrypt.Index;
//   - [Rows] an encrypt.Rows;
//   - [KEK] an encrypt.RotatingKEK, on this machine or in a KMS.
//
// Each subtest is named after the duty that it checks. [MemoryRows] is an encrypt.Rows
// for tests of applications and of jobs.
package encrypttest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

func scope(name string) encrypt.Scope {
	return encrypt.Scope{Tenant: "acme", Purpose: encrypt.DataKey, Name: name}
}

func record(s encrypt.Scope, version uint32, wrapped string) encrypt.Record {
	return encrypt.Record{Scope: s, Version: version, State: encrypt.Active, Wrapped: []byte(wrapped), Messages: 5, CreatedAt: at}
}

// Store runs all checks, and those of encrypt.Inventory on a store that is one. Each
// call of open returns an empty store.
func Store(t *testing.T, open func(t *testing.T) encrypt.Store) {
	duties := slices.Concat(storeDuties(), fenceDuties(), storeRaces())
	if _, ok := open(t).(encrypt.Inventory); ok {
		duties = slices.Concat(duties, inventoryDuties(), inventoryRaces())
	}
	run(t, duties, open)
}

func storeDuties() []duty[encrypt.Store] {
	ctx := context.Background()
	insert := func(t require.TestingT, s encrypt.Store, records ...encrypt.Record) []encrypt.Record {
		stored, err := s.Insert(ctx, records)
		require.NoError(t, err)
		return stored
	}
	load := func(t require.TestingT, s encrypt.Store, scopes ...encrypt.Scope) []encrypt.Record {
		found, err := s.Load(ctx, scopes)
		require.NoError(t, err)
		return found
	}
	advance := func(t require.TestingT, s encrypt.Store, scope encrypt.Scope, to encrypt.State, at time.Time) encrypt.Record {
		r, err := s.Advance(ctx, scope, to, at)
		require.NoError(t, err)
		return r
	}

	return []duty[encrypt.Store]{
		{"a record comes back as it was stored", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			for _, purpose := range []encrypt.Purpose{encrypt.TenantKeyset, encrypt.DataKey, encrypt.IndexKey, encrypt.MACKey, encrypt.KEKCheck} {
				for _, tenant := range []string{"", "acme", "ACME", "фирма"} {
					for _, name := range []string{"", "c1", "C1", "8:contacts/phone", "%_'\"; --", "клиент", "d:c1"} {
						scope := encrypt.Scope{Tenant: tenant, Purpose: purpose, Name: name}
						want := record(scope, 1, fmt.Sprint("key of ", scope))
						require.Equal(t, []encrypt.Record{want}, insert(t, s, want))
						require.Equal(t, []encrypt.Record{want}, load(t, s, scope), "%q: exactly this scope, letter by letter", scope)
					}
				}
			}
		}},
		{"nothing is no error", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			require.Empty(t, load(t, s))
			require.Empty(t, load(t, s, scope("nobody")))
			require.Empty(t, insert(t, s))
			leased, err := s.Lease(ctx, nil, 1)
			require.NoError(t, err)
			require.Empty(t, leased)
		}},
		{"many scopes at once", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			var scopes []encrypt.Scope
			var records []encrypt.Record
			for i := range 1700 {
				scopes = append(scopes, scope(fmt.Sprint("c", i)))
				records = append(records, record(scopes[i], 1, "k"))
			}
			require.Len(t, insert(t, s, records...), len(scopes))
			require.Len(t, load(t, s, append(scopes, scope("nobody"))...), len(scopes))
			leased, err := s.Lease(ctx, records, 3)
			require.NoError(t, err)
			require.Len(t, leased, len(scopes))
		}},
		{"insert keeps what exists", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			insert(t, s, record(scope("c1"), 1, "first"))
			stored := insert(t, s, record(scope("c1"), 1, "second"), record(scope("c2"), 1, "other"))
			require.ElementsMatch(t, []encrypt.Record{record(scope("c1"), 1, "first"), record(scope("c2"), 1, "other")}, stored)
		}},
		{"versions come in order and without gaps", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			insert(t, s, record(scope("c1"), 2, "too early"))
			require.Empty(t, load(t, s, scope("c1")))
			insert(t, s, record(scope("c1"), 1, "one"))
			for v := uint32(2); v <= 11; v++ { // 10 sorts before 2 as text
				insert(t, s, record(scope("c1"), v, "more"))
			}
			insert(t, s, record(scope("c1"), 13, "gap"))
			found := load(t, s, scope("c1"))
			require.Len(t, found, 11)
			for i, r := range found {
				require.EqualValues(t, i+1, r.Version)
			}
		}},
		{"bytes are not shared", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			r := record(scope("c1"), 1, "first")
			stored := insert(t, s, r)
			r.Wrapped[0], stored[0].Wrapped[0] = 'x', 'y'
			load(t, s, scope("c1"))[0].Wrapped[0] = 'z'
			require.Equal(t, "first", string(load(t, s, scope("c1"))[0].Wrapped))
		}},
		{"states go one way", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			insert(t, s, record(scope("c1"), 1, "one"))
			insert(t, s, record(scope("c1"), 2, "two"))
			for _, to := range []encrypt.State{0, encrypt.Active, encrypt.Destroyed, 4} {
				_, err := s.Advance(ctx, scope("c1"), to, at)
				require.Error(t, err, "from active to %v", to)
			}
			closing := advance(t, s, scope("c1"), encrypt.Closing, at)
			require.Equal(t, []any{uint32(2), encrypt.Closing, at}, []any{closing.Version, closing.State, closing.ClosedAt})
			require.Equal(t, closing, advance(t, s, scope("c1"), encrypt.Closing, at.Add(time.Hour)), "the first time counts")
			insert(t, s, record(scope("c1"), 3, "late"))
			insert(t, s, record(scope("c1"), 1, "again"))
			found := load(t, s, scope("c1"))
			require.Len(t, found, 2, "a closing scope gets no new key")
			require.Equal(t, [2]encrypt.State{encrypt.Closing, encrypt.Closing}, [2]encrypt.State{found[0].State, found[1].State})
			require.NotEmpty(t, found[0].Wrapped, "the keys stay until they are destroyed")

			later := at.Add(time.Hour)
			gone := advance(t, s, scope("c1"), encrypt.Destroyed, later)
			require.Equal(t, []any{encrypt.Destroyed, at, later}, []any{gone.State, gone.ClosedAt, gone.DestroyedAt})
			require.Equal(t, gone, advance(t, s, scope("c1"), encrypt.Destroyed, later.Add(1)))
			require.Equal(t, gone, advance(t, s, scope("c1"), encrypt.Closing, later), "destroyed stays destroyed")
			insert(t, s, record(scope("c1"), 1, "again"))
			insert(t, s, record(scope("c1"), 3, "again"))
			for _, r := range load(t, s, scope("c1")) {
				require.Empty(t, r.Wrapped)
				require.Equal(t, encrypt.Destroyed, r.State)
			}
		}},
		{"an unknown scope can be closed, so that it never comes to be", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			r := advance(t, s, scope("c1"), encrypt.Closing, at)
			require.Equal(t, encrypt.Closing, r.State)
			stored := insert(t, s, record(scope("c1"), 1, "new"))
			require.Len(t, stored, 1)
			require.Equal(t, encrypt.Closing, stored[0].State)
			require.Empty(t, stored[0].Wrapped)
			require.Equal(t, encrypt.Destroyed, advance(t, s, scope("c1"), encrypt.Destroyed, at).State)
			_, err := s.Advance(ctx, scope("c2"), encrypt.Destroyed, at)
			require.Error(t, err, "what never closed is not destroyed")
		}},
		{"closing scopes are listed, and each change moves the revision", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			revision := func() (int64, []encrypt.Record) {
				n, closing, err := s.Closing(ctx)
				require.NoError(t, err)
				return n, closing
			}
			start, closing := revision()
			require.Empty(t, closing)
			insert(t, s, record(scope("c1"), 1, "one"), record(scope("c2"), 1, "one"))
			same, _ := revision()
			require.Equal(t, start, same, "first versions invalidate nothing")
			insert(t, s, record(scope("c1"), 2, "two"))
			rotated, _ := revision()
			require.Greater(t, rotated, start)
			insert(t, s, record(scope("c1"), 2, "again"), record(scope("c1"), 4, "too early"))
			start, _ = revision()
			require.Equal(t, rotated, start, "nothing was added")
			advance(t, s, scope("c1"), encrypt.Closing, at)
			first, closing := revision()
			require.Greater(t, first, start)
			require.Len(t, closing, 1)
			require.Equal(t, []any{scope("c1"), uint32(2), at}, []any{closing[0].Scope, closing[0].Version, closing[0].ClosedAt})
			advance(t, s, scope("c1"), encrypt.Closing, at)
			same, _ = revision()
			require.Equal(t, first, same, "nothing changed")
			advance(t, s, scope("c1"), encrypt.Destroyed, at)
			last, closing := revision()
			require.Greater(t, last, first)
			require.Empty(t, closing)
		}},
		{"leases add up", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			insert(t, s, record(scope("c1"), 1, "one"), record(scope("c2"), 1, "one"), record(scope("c3"), 1, "one"))
			insert(t, s, record(scope("c1"), 2, "two"))
			advance(t, s, scope("c3"), encrypt.Closing, at)
			leased, err := s.Lease(ctx, []encrypt.Record{{Scope: scope("c1"), Version: 2}, {Scope: scope("c2"), Version: 1}, {Scope: scope("c3"), Version: 1}, {Scope: scope("c2"), Version: 9}, {Scope: scope("c4"), Version: 1}}, 100)
			require.NoError(t, err)
			require.Len(t, leased, 2, "closed and unknown keys are left out")
			for _, r := range leased {
				require.EqualValues(t, 105, r.Messages)
			}
			require.EqualValues(t, 5, load(t, s, scope("c1"))[0].Messages, "the other version is not touched")
		}},
	}
}

// storeRaces let many goroutines do the same at once.
func storeRaces() []duty[encrypt.Store] {
	ctx := context.Background()
	return []duty[encrypt.Store]{
		{"of many concurrent inserts one wins, and all are told which", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			got := racetest.Run(t, func(i int) ([]encrypt.Record, error) {
				key := fmt.Sprint("key ", i)
				return s.Insert(ctx, []encrypt.Record{record(scope("c1"), 1, key), record(scope("c2"), 1, key)})
			})
			for i := range got {
				require.ElementsMatch(t, got[0], got[i])
			}
		}},
		{"of many concurrent leases each gets its own total", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			_, err := s.Insert(ctx, []encrypt.Record{record(scope("c1"), 1, "one")})
			require.NoError(t, err)
			seen := make(map[uint64]bool)
			for _, leased := range racetest.Run(t, func(int) ([]encrypt.Record, error) {
				return s.Lease(ctx, []encrypt.Record{{Scope: scope("c1"), Version: 1}}, 10)
			}) {
				require.Len(t, leased, 1)
				require.False(t, seen[leased[0].Messages], "%d was given out twice", leased[0].Messages)
				seen[leased[0].Messages] = true
			}
			require.True(t, seen[5+10*racetest.Racers])
		}},
		{"keys that are made while the scope closes close with it", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			for round := range 3 {
				c := scope(fmt.Sprint("c", round))
				_, err := s.Insert(ctx, []encrypt.Record{record(c, 1, "one")})
				require.NoError(t, err)
				racetest.Run(t, func(i int) (any, error) {
					if i == racetest.Racers/2 {
						_, err := s.Advance(ctx, c, encrypt.Closing, at)
						return nil, err
					}
					_, err := s.Insert(ctx, []encrypt.Record{record(c, 2, fmt.Sprint("two ", i)), record(c, 3, "three")})
					return nil, err
				})
				found, err := s.Load(ctx, []encrypt.Scope{c})
				require.NoError(t, err)
				for _, r := range found {
					require.Equal(t, encrypt.Closing, r.State, "version %d", r.Version)
				}
			}
		}},
		{"of many that close, all get the first time", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			got := racetest.Run(t, func(i int) (encrypt.Record, error) {
				return s.Advance(ctx, scope("c1"), encrypt.Closing, at.Add(time.Duration(i)*time.Second))
			})
			for i := range got {
				require.Equal(t, got[0], got[i])
			}
		}},
		{"of many that destroy, all that succeed get the first time", func(t require.TestingT, open func() encrypt.Store) {
			s := open()
			_, err := s.Insert(ctx, []encrypt.Record{record(scope("c1"), 1, "one")})
			require.NoError(t, err)
			_, err = s.Advance(ctx, scope("c1"), encrypt.Closing, at)
			require.NoError(t, err)
			got := racetest.Run(t, func(i int) (encrypt.Record, error) {
				r, err := s.Advance(ctx, scope("c1"), encrypt.Destroyed, at.Add(time.Duration(i)*time.Second))
				if err != nil { // it may be that the others are in the way
					return encrypt.Record{}, nil
				}
				return r, nil
			})
			want, err := s.Advance(ctx, scope("c1"), encrypt.Destroyed, at.Add(time.Hour))
			require.NoError(t, err, "nobody is in the way now")
			for _, r := range got {
				if r.State != 0 {
					require.Equal(t, want, r)
				}
			}
		}},
	}
}
