package encrypttest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

// Pending runs all checks. Each call of open returns an empty store.
func Pending(t *testing.T, open func(t *testing.T) encrypt.Pending) {
	run(t, pendingDuties(), open)
}

func pendingDuties() []duty[encrypt.Pending] {
	ctx := context.Background()
	phone := encrypt.PendingField{Tenant: "acme", Kind: "contacts", Field: "phone"}
	names := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("r%04d", i))
		}
		return list
	}
	signed := func(records ...string) (list []encrypt.PendingRecord) {
		for _, record := range records {
			list = append(list, encrypt.PendingRecord{Record: record, MAC: []byte("of " + record)})
		}
		return list
	}
	count := func(t require.TestingT, p encrypt.Pending, f encrypt.PendingField) (encrypt.PendingState, int) {
		state, n, err := p.CountPending(ctx, f)
		require.NoError(t, err)
		return state, n
	}
	remove := func(t require.TestingT, p encrypt.Pending, records ...string) int {
		left, err := p.RemovePending(ctx, phone, records)
		require.NoError(t, err)
		return left
	}

	return []duty[encrypt.Pending]{
		{"without a beginning nothing is in the set", func(t require.TestingT, open func() encrypt.Pending) {
			p := open()
			before, n := count(t, p, phone)
			require.Equal(t, encrypt.PendingNever, before)
			require.Zero(t, n)
			state, found, err := p.HasPending(ctx, phone, names(3))
			require.NoError(t, err)
			require.Equal(t, encrypt.PendingNever, state)
			require.Empty(t, found)
			next, err := p.NextPending(ctx, phone, "", 10)
			require.NoError(t, err)
			require.Empty(t, next)
		}},
		{"records are collected, each once", func(t require.TestingT, open func() encrypt.Pending) {
			p := open()
			require.NoError(t, p.AddPending(ctx, phone, nil))
			state, n := count(t, p, phone)
			require.Equal(t, encrypt.PendingCollecting, state)
			require.Zero(t, n)
			require.NoError(t, p.AddPending(ctx, phone, signed(names(1700)...)))
			require.NoError(t, p.AddPending(ctx, phone, signed(names(1701)...)))
			_, n = count(t, p, phone)
			require.Equal(t, 1701, n)
			_, found, err := p.HasPending(ctx, phone, append(names(1300), "x", "R0001"))
			require.NoError(t, err)
			require.ElementsMatch(t, signed(names(1300)...), found)
			again := []encrypt.PendingRecord{{Record: "r0001", MAC: []byte("another")}}
			require.NoError(t, p.AddPending(ctx, phone, again))
			_, found, err = p.HasPending(ctx, phone, names(2)[1:])
			require.NoError(t, err)
			require.Equal(t, again, found, "the newer proof")
			seen := make(map[string]bool)
			for after := ""; ; {
				next, err := p.NextPending(ctx, phone, after, 400)
				require.NoError(t, err)
				if len(next) == 0 {
					break
				}
				for _, r := range next {
					require.False(t, seen[r.Record])
					require.NotEmpty(t, r.MAC)
					seen[r.Record] = true
				}
				after = next[len(next)-1].Record
			}
			require.Len(t, seen, 1701)
		}},
		{"fields, kinds and tenants are apart", func(t require.TestingT, open func() encrypt.Pending) {
			p := open()
			require.NoError(t, p.AddPending(ctx, phone, signed(names(1)...)))
			for _, other := range []encrypt.PendingField{{Tenant: "other", Kind: "contacts", Field: "phone"}, {Tenant: "acme", Kind: "deals", Field: "phone"}, {Tenant: "acme", Kind: "contacts", Field: "note"}} {
				_, found, err := p.HasPending(ctx, other, names(1))
				require.NoError(t, err)
				require.Empty(t, found)
				_, err = p.RemovePending(ctx, other, names(1))
				require.NoError(t, err)
			}
			state, n := count(t, p, phone)
			require.Equal(t, encrypt.PendingCollecting, state)
			require.Equal(t, 1, n)
		}},
		{"once it shrinks nothing is added", func(t require.TestingT, open func() encrypt.Pending) {
			p := open()
			require.NoError(t, p.AddPending(ctx, phone, signed(names(3)...)))
			require.Equal(t, 3, remove(t, p))
			require.ErrorIs(t, p.AddPending(ctx, phone, signed("planted")), encrypt.ErrCutOff)
			require.ErrorIs(t, p.AddPending(ctx, phone, nil), encrypt.ErrCutOff)
			require.Equal(t, 2, remove(t, p, "r0001", "unknown"))
			state, n := count(t, p, phone)
			require.Equal(t, encrypt.PendingShrinking, state)
			require.Equal(t, 2, n)
			require.ErrorIs(t, p.AddPending(ctx, phone, signed("r0001")), encrypt.ErrCutOff, "what was removed does not come back")
		}},
		{"at zero it is strict for ever", func(t require.TestingT, open func() encrypt.Pending) {
			p := open()
			require.NoError(t, p.AddPending(ctx, phone, signed(names(2)...)))
			require.Equal(t, 1, remove(t, p, "r0000"))
			require.Zero(t, remove(t, p, "r0001"))
			state, _ := count(t, p, phone)
			require.Equal(t, encrypt.PendingStrict, state)
			require.ErrorIs(t, p.AddPending(ctx, phone, signed(names(2)...)), encrypt.ErrCutOff)
			require.Zero(t, remove(t, p))
			state, n := count(t, p, phone)
			require.Equal(t, encrypt.PendingStrict, state)
			require.Zero(t, n)
			state, found, err := p.HasPending(ctx, phone, names(2))
			require.NoError(t, err)
			require.Equal(t, encrypt.PendingStrict, state)
			require.Empty(t, found)
		}},
		{"the fields of a tenant that are between its beginning and its end are named", func(t require.TestingT, open func() encrypt.Pending) {
			p := open()
			migrating := func() []encrypt.PendingField {
				fields, err := p.Migrating(ctx, "acme")
				require.NoError(t, err)
				return fields
			}
			require.Empty(t, migrating())
			note := encrypt.PendingField{Tenant: "acme", Kind: "deals", Field: "note"}
			require.NoError(t, p.AddPending(ctx, phone, signed("r1", "r2")))
			require.NoError(t, p.AddPending(ctx, note, nil))
			require.NoError(t, p.AddPending(ctx, encrypt.PendingField{Tenant: "other", Kind: "deals", Field: "note"}, nil))
			require.ElementsMatch(t, []encrypt.PendingField{phone, note}, migrating())
			require.Equal(t, 1, remove(t, p, "r1"))
			require.Len(t, migrating(), 2)
			require.Zero(t, remove(t, p, "r2"))
			require.Equal(t, []encrypt.PendingField{note}, migrating())
		}},
		{"a field that never had plaintext can be made strict", func(t require.TestingT, open func() encrypt.Pending) {
			p := open()
			require.Zero(t, remove(t, p))
			require.ErrorIs(t, p.AddPending(ctx, phone, signed(names(1)...)), encrypt.ErrCutOff)
		}},
		{"of many that remove at once the last one finds zero, and it is strict", func(t require.TestingT, open func() encrypt.Pending) {
			p := open()
			require.NoError(t, p.AddPending(ctx, phone, signed(names(racetest.Racers)...)))
			zeros := 0
			for _, left := range racetest.Run(t, func(i int) (int, error) { return p.RemovePending(ctx, phone, names(racetest.Racers)[i:i+1]) }) {
				if left == 0 {
					zeros++
				}
			}
			require.Equal(t, 1, zeros)
			state, _ := count(t, p, phone)
			require.Equal(t, encrypt.PendingStrict, state)
		}},
		{"what is added while the set closes is in it, or refused", func(t require.TestingT, open func() encrypt.Pending) {
			p := open()
			require.NoError(t, p.AddPending(ctx, phone, signed("first")))
			added := racetest.Run(t, func(i int) (string, error) {
				if i == racetest.Racers/2 {
					_, err := p.RemovePending(ctx, phone, nil)
					return "", err
				}
				record := fmt.Sprint("r", i)
				err := p.AddPending(ctx, phone, signed(record))
				if errors.Is(err, encrypt.ErrCutOff) {
					return "", nil
				}
				return record, err
			})
			want := []string{"first"}
			for _, record := range added {
				if record != "" {
					want = append(want, record)
				}
			}
			found, err := p.NextPending(ctx, phone, "", 1000)
			require.NoError(t, err)
			require.ElementsMatch(t, signed(want...), found)
		}},
	}
}
