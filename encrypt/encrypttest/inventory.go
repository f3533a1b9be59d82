package encrypttest

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

type full interface {
	encrypt.Store
	encrypt.Inventory
}

// listAll walks over a store in pages.
func listAll(t require.TestingT, s full, limit int) (all []encrypt.Record) {
	for after := (encrypt.Record{}); ; {
		page, err := s.List(context.Background(), after, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), limit)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		after = encrypt.Record{Scope: page[len(page)-1].Scope, Version: page[len(page)-1].Version}
	}
}

// changed returns a record with other bytes and times.
func changed(r encrypt.Record, wrapped, note string) encrypt.Record {
	r.Wrapped, r.Note = []byte(wrapped), []byte(note)
	if wrapped == "" {
		r.Wrapped = nil
	}
	if note == "" {
		r.Note = nil
	}
	return r
}

// inventoryDuties are the duties of encrypt.Inventory.
func inventoryDuties() []duty[encrypt.Store] {
	ctx := context.Background()
	start := func(t require.TestingT, open func() encrypt.Store, records ...encrypt.Record) full {
		s := open().(full)
		for _, r := range records { // of several tenants, so one by one
			_, err := s.Insert(ctx, []encrypt.Record{r})
			require.NoError(t, err)
		}
		return s
	}
	replace := func(t require.TestingT, s full, was, now []encrypt.Record) int {
		n, err := s.Replace(ctx, was, now)
		require.NoError(t, err)
		return n
	}
	load := func(t require.TestingT, s full, scope encrypt.Scope) []encrypt.Record {
		records, err := s.Load(ctx, []encrypt.Scope{scope})
		require.NoError(t, err)
		return records
	}
	revision := func(t require.TestingT, s full) int64 {
		n, _, err := s.Closing(ctx)
		require.NoError(t, err)
		return n
	}
	two, three := record(scope("c1"), 2, "two"), record(scope("c1"), 3, "three")
	return []duty[encrypt.Store]{

		{"the list has everything once, by tenant and purpose", func(t require.TestingT, open func() encrypt.Store) {
			s := start(t, open)
			require.Empty(t, listAll(t, s, 10))
			var want []encrypt.Record
			for _, purpose := range []encrypt.Purpose{encrypt.MACKey, encrypt.TenantKeyset, encrypt.DataKey, encrypt.IndexKey, encrypt.KEKCheck} {
				for _, tenant := range []string{"", "acme", "ACME", "acme2", "фирма"} {
					for _, name := range []string{"", "c1", "C1", "8:contacts/phone", "клиент", "i:c1"} {
						for version := range uint32(3) {
							want = append(want, record(encrypt.Scope{Tenant: tenant, Purpose: purpose, Name: name}, version+1, "k"))
						}
					}
				}
			}
			for _, r := range want {
				_, err := s.Insert(ctx, []encrypt.Record{r})
				require.NoError(t, err)
			}
			for _, limit := range []int{1, 7, 1000} {
				all := listAll(t, s, limit)
				require.ElementsMatch(t, want, all, "limit %d", limit)
				tenants, groups := make(map[string]bool), make(map[encrypt.Scope]bool)
				for i, r := range all {
					group := encrypt.Scope{Tenant: r.Scope.Tenant, Purpose: r.Scope.Purpose}
					if i == 0 || all[i-1].Scope.Tenant != r.Scope.Tenant {
						require.False(t, tenants[r.Scope.Tenant], "tenant %q comes twice", r.Scope.Tenant)
					}
					if i == 0 || all[i-1].Scope.Tenant != r.Scope.Tenant || all[i-1].Scope.Purpose != r.Scope.Purpose {
						require.False(t, groups[group], "%+v comes twice", group)
					}
					if r.Version > 1 {
						require.Equal(t, all[i-1].Scope, r.Scope)
						require.Equal(t, all[i-1].Version+1, r.Version, "oldest first")
					}
					tenants[r.Scope.Tenant], groups[group] = true, true
				}
			}
			for _, from := range []encrypt.Scope{{Tenant: "acme", Purpose: encrypt.IndexKey}, {Tenant: "acme", Purpose: encrypt.DataKey}, {Tenant: "фирма"}} {
				page, err := s.List(ctx, encrypt.Record{Scope: from}, 1)
				require.NoError(t, err)
				require.Equal(t, from.Tenant, page[0].Scope.Tenant)
				if from.Purpose != 0 {
					require.Equal(t, from, page[0].Scope)
					require.EqualValues(t, 1, page[0].Version)
				}
			}
		}},
		{"a record is replaced as long as it is as it was", func(t require.TestingT, open func() encrypt.Store) {
			s := start(t, open, one, two)
			before := revision(t, s)
			next := changed(one, "anew", "note")
			next.ClosedAt, next.DestroyedAt = at.Add(time.Hour), at.Add(2*time.Hour)
			require.Equal(t, 1, replace(t, s, []encrypt.Record{one}, []encrypt.Record{next}))
			require.Equal(t, []encrypt.Record{next, two}, load(t, s, one.Scope))
			require.Greater(t, revision(t, s), before)
			before = revision(t, s)
			for name, was := range map[string]encrypt.Record{
				"key": changed(next, "one", "note"), "no key": changed(next, "", "note"), "note": changed(next, "anew", ""),
				"version": changed(three, "anew", "note"), "scope": {Scope: scope("c2"), Version: 1, Wrapped: next.Wrapped, Note: next.Note},
				"closed":    func() encrypt.Record { r := next; r.ClosedAt = at; return r }(),
				"destroyed": func() encrypt.Record { r := next; r.DestroyedAt = time.Time{}; return r }(),
			} {
				require.Zero(t, replace(t, s, []encrypt.Record{was}, []encrypt.Record{changed(next, "other", "")}), "another %s", name)
			}
			require.Equal(t, []encrypt.Record{next, two}, load(t, s, one.Scope))
			require.Equal(t, before, revision(t, s), "nothing changed")
			require.Zero(t, replace(t, s, nil, nil))
			_, err := s.Replace(ctx, []encrypt.Record{one}, nil)
			require.Error(t, err)
		}},
		{"messages count on", func(t require.TestingT, open func() encrypt.Store) {
			s := start(t, open, one)
			_, err := s.Lease(ctx, []encrypt.Record{one}, 7)
			require.NoError(t, err)
			require.Equal(t, 1, replace(t, s, []encrypt.Record{one}, []encrypt.Record{changed(one, "anew", "")}))
			require.EqualValues(t, 12, load(t, s, one.Scope)[0].Messages)
		}},
		{"a removed version is gone and does not come back", func(t require.TestingT, open func() encrypt.Store) {
			s := start(t, open, one, two, three)
			before := revision(t, s)
			require.Equal(t, 2, replace(t, s, []encrypt.Record{one, two, three}, []encrypt.Record{changed(one, "", ""), changed(two, "", ""), changed(three, "", "")}), "the newest stays")
			require.Greater(t, revision(t, s), before)
			require.Equal(t, []encrypt.Record{three}, load(t, s, one.Scope))
			require.Equal(t, []encrypt.Record{three}, listAll(t, s, 10))
			require.Zero(t, replace(t, s, []encrypt.Record{one}, []encrypt.Record{changed(one, "", "")}))
			require.Zero(t, replace(t, s, []encrypt.Record{changed(one, "", "")}, []encrypt.Record{one}))
			for _, r := range []encrypt.Record{one, two, record(one.Scope, 5, "gap")} {
				stored, err := s.Insert(ctx, []encrypt.Record{r})
				require.NoError(t, err)
				require.Equal(t, []encrypt.Record{three}, stored, "version %d", r.Version)
			}
			leased, err := s.Lease(ctx, []encrypt.Record{one, three}, 1)
			require.NoError(t, err)
			require.Len(t, leased, 1)
			four := record(one.Scope, 4, "four")
			stored, err := s.Insert(ctx, []encrypt.Record{four})
			require.NoError(t, err)
			require.Len(t, stored, 2)
			closing, err := s.Advance(ctx, one.Scope, encrypt.Closing, at)
			require.NoError(t, err)
			require.EqualValues(t, 4, closing.Version)
			_, list, err := s.Closing(ctx)
			require.NoError(t, err)
			require.Len(t, list, 1)
			_, err = s.Advance(ctx, one.Scope, encrypt.Destroyed, at)
			require.NoError(t, err)
			left := load(t, s, one.Scope)
			require.Len(t, left, 2)
			for _, r := range left {
				require.Empty(t, r.Wrapped)
				require.Equal(t, encrypt.Destroyed, r.State)
			}
		}},
		{"a closed scope's note can be written, and nothing else comes of it", func(t require.TestingT, open func() encrypt.Store) {
			s := start(t, open, one)
			_, err := s.Advance(ctx, scope("c2"), encrypt.Closing, at)
			require.NoError(t, err)
			for _, c := range []encrypt.Scope{one.Scope, scope("c2")} {
				was, err := s.Advance(ctx, c, encrypt.Closing, at)
				require.NoError(t, err)
				next := was
				next.Note = []byte("note")
				require.Equal(t, 1, replace(t, s, []encrypt.Record{was}, []encrypt.Record{next}))
				gone, err := s.Advance(ctx, c, encrypt.Destroyed, at.Add(time.Hour))
				require.NoError(t, err)
				require.Equal(t, []any{"note", at, at.Add(time.Hour)}, []any{string(gone.Note), gone.ClosedAt, gone.DestroyedAt})
				require.Zero(t, replace(t, s, []encrypt.Record{next}, []encrypt.Record{was}), "it has been destroyed meanwhile")
				last := gone
				last.Note = []byte("more")
				require.Equal(t, 1, replace(t, s, []encrypt.Record{gone}, []encrypt.Record{last}))
				require.Equal(t, []encrypt.Record{last}, load(t, s, c))
			}
		}},
		{"many at once, of several tenants", func(t require.TestingT, open func() encrypt.Store) {
			s := start(t, open)
			var was, now []encrypt.Record
			for i := range 510 { // more than one statement takes
				r := record(encrypt.Scope{Tenant: fmt.Sprint("t", i%3), Purpose: encrypt.DataKey, Name: fmt.Sprint("c", i)}, 1, fmt.Sprint("key ", i))
				was, now = append(was, r), append(now, changed(r, fmt.Sprint("anew ", i), ""))
			}
			for tenant := range 3 {
				var part []encrypt.Record
				for i := tenant; i < len(was); i += 3 {
					part = append(part, was[i])
				}
				_, err := s.Insert(ctx, part)
				require.NoError(t, err)
			}
			require.Equal(t, len(was), replace(t, s, was, now))
			require.ElementsMatch(t, now, listAll(t, s, 300))
			require.Zero(t, replace(t, s, was, now))
		}},
		{"bytes are not shared with replaced records", func(t require.TestingT, open func() encrypt.Store) {
			s := start(t, open, one)
			next := changed(one, "anew", "note")
			require.Equal(t, 1, replace(t, s, []encrypt.Record{one}, []encrypt.Record{next}))
			next.Wrapped[0], next.Note[0] = 'x', 'x'
			listed := listAll(t, s, 10)
			require.Equal(t, "anewnote", string(listed[0].Wrapped)+string(listed[0].Note))
			listed[0].Wrapped[0], listed[0].Note[0] = 'y', 'y'
			stored := load(t, s, one.Scope)
			require.Equal(t, "anewnote", string(stored[0].Wrapped)+string(stored[0].Note))
		}},
	}
}

// one is the key that the races begin with.
var one = record(scope("c1"), 1, "one")

// inventoryRaces let many goroutines do the same at once on a store with one key.
func inventoryRaces() []duty[encrypt.Store] {
	start := func(t require.TestingT, open func() encrypt.Store) full {
		s := open().(full)
		_, err := s.Insert(context.Background(), []encrypt.Record{one})
		require.NoError(t, err)
		return s
	}
	ctx := context.Background()
	return []duty[encrypt.Store]{
		{"of many that replace a record one does", func(t require.TestingT, open func() encrypt.Store) {
			s := start(t, open)
			total := 0
			for _, n := range racetest.Run(t, func(i int) (int, error) {
				return s.Replace(ctx, []encrypt.Record{one}, []encrypt.Record{changed(one, fmt.Sprint("key ", i), "")})
			}) {
				total += n
			}
			require.Equal(t, 1, total)
		}},
		{"of many that remove versions the newest is always left", func(t require.TestingT, open func() encrypt.Store) {
			s := start(t, open)
			racetest.Run(t, func(i int) (any, error) {
				if i%2 == 0 {
					_, err := s.Insert(ctx, []encrypt.Record{record(one.Scope, uint32(i/2+2), fmt.Sprint("key ", i))}) //nolint:gosec // small
					return nil, err
				}
				records, err := s.Load(ctx, []encrypt.Scope{one.Scope})
				if err != nil {
					return nil, err
				}
				now := make([]encrypt.Record, len(records))
				for j, r := range records {
					now[j] = changed(r, "", "")
				}
				_, _ = s.Replace(ctx, records, now) // others may be in the way of wiping
				return nil, nil
			})
			records, err := s.Load(ctx, []encrypt.Scope{one.Scope})
			require.NoError(t, err)
			require.NotEmpty(t, records)
			for i, r := range records {
				require.Equal(t, records[0].Version+uint32(i), r.Version) //nolint:gosec // small
				require.NotEmpty(t, r.Wrapped)
			}
			_, err = s.Replace(ctx, nil, nil)
			require.NoError(t, err, "nobody is in the way now")
		}},
		{"a record that closes while it is replaced keeps its state and its times", func(t require.TestingT, open func() encrypt.Store) {
			for range 3 {
				s := start(t, open)
				racetest.Run(t, func(i int) (any, error) {
					if i == racetest.Racers/2 {
						_, err := s.Advance(ctx, one.Scope, encrypt.Closing, at)
						return nil, err
					}
					_, err := s.Replace(ctx, []encrypt.Record{one}, []encrypt.Record{changed(one, "anew", "")})
					return nil, err
				})
				records, err := s.Load(ctx, []encrypt.Scope{one.Scope})
				require.NoError(t, err)
				require.Equal(t, encrypt.Closing, records[0].State)
				require.Equal(t, at, records[0].ClosedAt)
			}
		}},
	}
}
