package encrypt_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

func TestSweep(t *testing.T) {
	clock, store := newClock(t), encrypt.NewMemory()
	k := newKeyring(t, store, &encrypt.Options{Clock: clock.Now})
	ctx := acting("acme")
	seal := func(k *encrypt.Keyring, tenant, name string) {
		t.Helper()
		_, err := k.Seal(acting(tenant), crmguard.Place{Tenant: tenant, Client: name, Kind: "contacts"}, nil)
		require.NoError(t, err)
	}
	for _, name := range []string{"", "kept", "rolled back", "rotated"} {
		seal(k, "acme", name)
	}
	seal(k, "other", "rolled back")
	_, err := k.Erase(ctx, "acme", "erased")
	require.NoError(t, err)
	clock.Advance(23 * time.Hour)
	exist := func(_ context.Context, clients []string) ([]string, error) {
		require.NotContains(t, clients, "", "the tenant's own key is nobody's")
		require.NotContains(t, clients, "erased")
		return []string{"kept", "rotated", "stranger"}, nil
	}
	swept, err := k.Sweep(ctx, "acme", exist)
	require.NoError(t, err)
	require.Zero(t, swept, "too young")
	clock.Advance(time.Hour)
	seal(k, "acme", "young")
	_, err = k.Rotate(ctx, dataScope("rotated"))
	require.NoError(t, err)
	swept, err = k.Sweep(ctx, "acme", exist)
	require.NoError(t, err)
	require.Equal(t, 1, swept)
	_, err = k.Seal(ctx, crmguard.Place{Tenant: "acme", Client: "rolled back"}, nil)
	require.ErrorIs(t, err, crmguard.ErrErased)
	for _, name := range []string{"", "kept", "young", "rotated"} {
		seal(k, "acme", name)
	}
	seal(k, "other", "rolled back")
	clock.Advance(encrypt.ClosingTime)
	finished, err := k.FinishErasures(job("acme"))
	require.NoError(t, err)
	require.Len(t, finished, 2)
	swept, err = k.Sweep(ctx, "acme", exist)
	require.NoError(t, err)
	require.Zero(t, swept)
}

func TestSweepRefuses(t *testing.T) {
	clock, store := newClock(t), encrypt.NewMemory()
	k := newKeyring(t, store, &encrypt.Options{Clock: clock.Now})
	ctx := acting("acme")
	for i := range 4 {
		_, err := k.Seal(ctx, client(i), nil)
		require.NoError(t, err)
	}
	clock.Advance(day)
	nobody := func(context.Context, []string) ([]string, error) { return nil, nil }
	_, err := k.Sweep(ctx, "acme", nobody)
	require.ErrorIs(t, err, encrypt.ErrSweep, "a wrong database knows nobody")
	_, err = k.Sweep(ctx, "acme", func(context.Context, []string) ([]string, error) { return []string{"c1"}, errDown })
	require.ErrorIs(t, err, errDown)
	_, err = k.Sweep(ctx, "", nobody)
	require.Error(t, err)
	_, err = k.Sweep(acting("other"), "acme", nobody)
	require.Error(t, err)
	_, err = newKeyring(t, &counting{Store: store}, nil).Sweep(ctx, "acme", nobody)
	require.ErrorContains(t, err, "Inventory")
	for i := range 4 {
		_, err := k.Seal(ctx, client(i), nil)
		require.NoError(t, err, "nobody was swept")
	}
}

// Whoever deletes rows in the host's database destroys next to nothing by it, so that a
// backup brings the clients back.
func TestSweepAfterSomebodyHasDeletedRows(t *testing.T) {
	for _, c := range []struct {
		age              time.Duration
		clients, missing int
		swept            int
		refused          bool
	}{
		{365 * day, 200, 199, 0, false},
		{7 * day, 200, 1, 0, false},
		{7*day - time.Second, 200, 1, 1, false},
		{2 * day, 200, 199, 0, true},
		{2 * day, 200, 21, 0, true},
		{2 * day, 200, 20, 20, false},
		{2 * day, 11, 4, 0, true},
		{2 * day, 3, 3, 3, false},
		{2 * day, 10_020, 1001, 0, true},
	} {
		t.Run(fmt.Sprint(c.age, " ", c.missing, " of ", c.clients), func(t *testing.T) {
			clock, store := newClock(t), encrypt.NewMemory()
			k := newKeyring(t, store, &encrypt.Options{Clock: clock.Now})
			ctx := acting("acme")
			cells, missing := make([]encrypt.Cell, c.clients), make(map[string]bool)
			for i := range cells {
				cells[i] = encrypt.Cell{Place: client(i), Plaintext: []byte("x")}
				missing[cells[i].Place.Client] = i < c.missing
			}
			require.NoError(t, k.SealAll(ctx, "acme", cells))
			clock.Advance(c.age)
			swept, err := k.Sweep(ctx, "acme", func(_ context.Context, clients []string) ([]string, error) {
				return slices.DeleteFunc(slices.Clone(clients), func(c string) bool { return missing[c] }), nil
			})
			if c.refused {
				require.ErrorIs(t, err, encrypt.ErrSweep)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, c.swept, swept)
			_, closing, err := store.Closing(ctx)
			require.NoError(t, err)
			require.Len(t, closing, c.swept)
		})
	}
}

// The first version of an old client's key may be retired: what is left is young, and the
// client is not.
func TestSweepTakesNoRotatedKeyForANewOne(t *testing.T) {
	clock := newClock(t)
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Clock: clock.Now})
	ctx := acting("acme")
	_, err := k.Seal(ctx, home, nil)
	require.NoError(t, err)
	clock.Advance(365 * day)
	version, err := k.Rotate(ctx, homeKey)
	require.NoError(t, err)
	_, err = k.Retire(ctx, homeKey, version)
	require.NoError(t, err)
	clock.Advance(2 * day)
	swept, err := k.Sweep(ctx, "acme", func(context.Context, []string) ([]string, error) { return nil, nil })
	require.NoError(t, err)
	require.Zero(t, swept)
}
