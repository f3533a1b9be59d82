package encrypt_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// A damaged key says nothing about a MAC: whoever takes it for a forgery would end
// sessions that are genuine.
func TestADamagedKeyIsNoForgedMAC(t *testing.T) {
	for name, purpose := range map[string]encrypt.Purpose{"MAC key": encrypt.MACKey, "tenant's keyset": encrypt.TenantKeyset} {
		for _, position := range []int{0, 7, 30} {
			t.Run(fmt.Sprint(name, position), func(t *testing.T) {
				kek, memory := newKEK(t), encrypt.NewMemory()
				mac, err := openKeyring(t, kek, memory, nil).MAC(t.Context(), home, []byte("x"))
				require.NoError(t, err)
				damaged := &tampering{Store: memory, change: func(r *encrypt.Record) {
					if r.Scope.Purpose == purpose {
						r.Wrapped[position] ^= 1
					}
				}}
				err = openKeyring(t, kek, damaged, nil).Verify(t.Context(), home, []byte("x"), mac)
				require.Error(t, err)
				require.NotErrorIs(t, err, crmguard.ErrMAC)
				require.NotErrorIs(t, err, encrypt.ErrForeign)
				require.NotErrorIs(t, err, encrypt.ErrMalformed)
			})
		}
	}
	k := newKeyring(t, encrypt.NewMemory(), nil)
	mac, err := k.MAC(t.Context(), home, []byte("x"))
	require.NoError(t, err)
	mac[7]++ // a version that never was
	require.ErrorIs(t, k.Verify(t.Context(), home, []byte("x"), mac), crmguard.ErrMAC)
	require.ErrorIs(t, k.Verify(t.Context(), home, []byte("x"), mac), crmguard.ErrMAC)
}

// A KEK that was revoked opens nothing after CacheAge, whatever was fetched later
// with the keyset that was unwrapped before.
func TestCacheAgeCountsFromTheKEK(t *testing.T) {
	kek, store, clock := newKEK(t), encrypt.NewMemory(), newClock(t)
	writer := openKeyring(t, kek, store, nil)
	sealed := make([][]byte, 3)
	for i := range sealed {
		var err error
		sealed[i], err = writer.Seal(acting("acme"), client(i), []byte("x"))
		require.NoError(t, err)
	}
	k := openKeyring(t, kek, store, &encrypt.Options{CacheAge: time.Minute})
	_, err := k.Open(acting("acme"), client(0), sealed[0])
	require.NoError(t, err)
	kek.down.Store(true)
	clock.Advance(55 * time.Second)
	_, err = k.Open(acting("acme"), client(1), sealed[1])
	require.NoError(t, err, "a client that is new in the cache")
	clock.Advance(5 * time.Second)
	for i := range sealed {
		_, err = k.Open(acting("acme"), client(i), sealed[i])
		require.ErrorIs(t, err, crmguard.ErrUnavailable, "client %d", i)
	}
}

// Versions that somebody wrote into rows cost one query for all of them, and none
// for a while after that.
func TestForgedVersionsDoNotMultiplyQueries(t *testing.T) {
	store, clock := &counting{Store: encrypt.NewMemory()}, newClock(t)
	k := newKeyring(t, store, &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	table, err := encrypt.NewTable[contact](k, "contacts", nil)
	require.NoError(t, err)
	rows := page(50)
	_, err = table.Seal(acting("acme"), "acme", rows...)
	require.NoError(t, err)
	for _, row := range rows {
		row.PhoneSealed[7], row.NoteSealed[7] = 9, 10
	}
	for range 3 {
		store.loads.Store(0)
		require.ErrorIs(t, table.Open(acting("acme"), "acme", rows...), encrypt.ErrNoKey)
		require.LessOrEqual(t, store.loads.Load(), int64(1))
	}
	require.Zero(t, store.loads.Load())
	at := crmguard.Place{Tenant: "acme", Client: "c01", Kind: "contacts", Record: "c01", Field: "phone"}
	_, err = k.Open(acting("acme"), at, rows[1].PhoneSealed)
	require.ErrorIs(t, err, encrypt.ErrNoKey)
	require.Zero(t, store.loads.Load(), "one by one neither")
	clock.Advance(encrypt.Lease / 2)
	require.Error(t, table.Open(acting("acme"), "acme", rows...))
	require.LessOrEqual(t, store.loads.Load(), int64(1))
}

// A page that another node has sealed with a newer version opens with one query.
func TestAPageOfANewVersionOpens(t *testing.T) {
	kek, memory := newKEK(t), encrypt.NewMemory()
	store := &counting{Store: memory}
	options := &encrypt.Options{Index: encrypt.NewMemoryIndex()}
	reader, err := encrypt.NewTable[contact](openKeyring(t, kek, store, options), "contacts", nil)
	require.NoError(t, err)
	rows := page(5)
	_, err = reader.Seal(acting("acme"), "acme", rows...)
	require.NoError(t, err)
	for _, row := range rows {
		_, err = memory.Lease(t.Context(), []encrypt.Record{{Scope: dataScope(row.ID), Version: 1}}, 1<<28)
		require.NoError(t, err)
	}
	writer, err := encrypt.NewTable[contact](openKeyring(t, kek, memory, options), "contacts", nil)
	require.NoError(t, err)
	_, err = writer.Seal(acting("acme"), "acme", rows...)
	require.NoError(t, err)
	require.Equal(t, byte(2), rows[4].PhoneSealed[7])
	store.loads.Store(0)
	require.NoError(t, reader.Open(acting("acme"), "acme", rows...))
	require.EqualValues(t, 1, store.loads.Load())
}
