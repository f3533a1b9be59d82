package encrypt_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// One look at the store's revision every few seconds keeps all cached keys usable,
// and tells a node of erasures on others.
func TestPolling(t *testing.T) {
	kek, clock := newKEK(t), newClock(t)
	store := &counting{Store: encrypt.NewMemory()}
	ctx := acting("acme")
	options := &encrypt.Options{Clock: clock.Now}
	here, there := openKeyring(t, kek, store, options), openKeyring(t, kek, store, options)
	sealed, err := here.Seal(ctx, home, []byte("x"))
	require.NoError(t, err)
	polls := int64(2) // the first one of each node comes before its first key
	_, err = there.Open(ctx, home, sealed)
	require.NoError(t, err)
	require.Equal(t, polls, store.polls.Load())
	store.loads.Store(0)
	// later moves the clock, opens, and waits for the poll that this starts.
	later := func(d time.Duration) {
		t.Helper()
		clock.Advance(d)
		_, err = there.Open(ctx, home, sealed)
		require.NoError(t, err)
		there.WaitForPoll()
		polls++
		require.Equal(t, polls, store.polls.Load())
	}
	for range 10 {
		later(6 * time.Second)
	}
	require.Zero(t, store.loads.Load(), "a minute without asking for the key again")

	// With messages in hand nothing but the poll tells it: counting more would ask the store.
	_, err = there.Seal(ctx, home, nil)
	require.NoError(t, err)
	_, err = here.Erase(ctx, "acme", "c1")
	require.NoError(t, err)
	clock.Advance(6 * time.Second)
	_, _ = there.Open(ctx, home, sealed) // may still open: the poll runs beside it
	there.WaitForPoll()
	require.NoError(t, refuses(there, sealed), "well before the lease has ended")
}

// The clock on the wall may be set back: a lease ends all the same.
func TestSettingTheClockBackProlongsNoLease(t *testing.T) {
	clock, store := newClock(t), &brokenStore{Store: encrypt.NewMemory()}
	wall := clock.Now()
	k := newKeyring(t, store, &encrypt.Options{Clock: func() time.Time { return wall }})
	sealed, err := k.Seal(acting("acme"), home, nil)
	require.NoError(t, err)
	store.down.Store(true)
	wall = wall.Add(-time.Hour)
	clock.Advance(encrypt.Lease)
	_, err = k.Open(acting("acme"), home, sealed)
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
	store.down.Store(false)
	_, err = k.Open(acting("acme"), home, sealed)
	require.NoError(t, err)
	k.WaitForPoll()
	store.down.Store(true)
	clock.Advance(-time.Minute)
	_, err = k.Open(acting("acme"), home, sealed)
	require.ErrorIs(t, err, crmguard.ErrUnavailable, "nor does any other clock that goes back")
}
