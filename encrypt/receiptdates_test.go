package encrypt_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// A Turn that began after a destruction makes the dates earlier, from when the old keys
// of the KEK are gone.
func TestATurnMakesTheDatesEarlier(t *testing.T) {
	e := erase(t)
	ctx := acting("acme")
	destroyed := e.receipt.DestroyedAt
	require.Equal(t, destroyed.Add(30*day), e.receipt.UnreadableAfter)
	require.Equal(t, destroyed.Add(120*day), e.receipt.UnlinkableAfter)
	read := func() encrypt.Receipt {
		t.Helper()
		r, err := e.k.Receipt(ctx, "acme", "c1")
		require.NoError(t, err)
		_, err = e.k.CheckReceipt(ctx, document(t, r))
		require.NoError(t, err)
		return r
	}
	e.clock.Advance(encrypt.Lease)
	_, err := e.k.Pseudonyms(ctx, crmguard.Place{Tenant: "acme", Kind: "a", Field: "b"}, nil)
	require.NoError(t, err, "a young index key, listed before the old one")
	var first encrypt.Turned
	running(e.clock, func() { first, err = e.k.Turn(job("acme"), nil) })
	require.NoError(t, err)
	require.Equal(t, first.Gone, read().UnreadableAfter)
	require.Equal(t, destroyed.Add(120*day), read().UnlinkableAfter, "the index key has turned with it")

	e.clock.Advance(90 * day)
	indexKey := encrypt.IndexScope("acme", "contacts", "phone", "phone")
	version, err := e.k.Rotate(ctx, indexKey)
	require.NoError(t, err)
	_, err = e.k.Retire(ctx, indexKey, version)
	require.NoError(t, err)
	var second encrypt.Turned
	running(e.clock, func() { second, err = e.k.Turn(job("acme"), nil) })
	require.NoError(t, err)
	require.Equal(t, first.Gone, read().UnreadableAfter, "the first Turn counts")
	require.Equal(t, second.Gone, read().UnlinkableAfter, "the first without an index key of that time")
	running(e.clock, func() { _, err = e.k.Turn(job("acme"), nil) })
	require.NoError(t, err)
	require.Equal(t, second.Gone, read().UnlinkableAfter)
	checked, err := e.k.CheckReceipt(ctx, document(t, e.receipt))
	require.NoError(t, err, "old receipts hold")
	require.Equal(t, destroyed.Add(30*day), checked.UnreadableAfter)
}

func indexKeyOf(tb testing.TB, s encrypt.Inventory) encrypt.Scope {
	tb.Helper()
	for _, r := range listRecords(tb, s) {
		if r.Scope.Purpose == encrypt.IndexKey {
			return r.Scope
		}
	}
	tb.Fatal("no index key")
	return encrypt.Scope{}
}

// A Turn that began before, or whose clock may be wrong by a lease, promises nothing.
func TestATurnThatBeganBeforePromisesNothing(t *testing.T) {
	e := erase(t)
	ctx := acting("acme")
	_, err := e.k.Erase(ctx, "acme", "c2")
	require.NoError(t, err)
	running(e.clock, func() { _, err = e.k.Turn(job("acme"), nil) })
	require.NoError(t, err)
	e.clock.Advance(encrypt.ClosingTime)
	_, err = e.k.FinishErasures(job("acme"))
	require.NoError(t, err)
	for _, client := range []string{"c1", "c2"} {
		r, err := e.k.Receipt(ctx, "acme", client)
		require.NoError(t, err)
		require.Equal(t, r.DestroyedAt.Add(30*day), r.UnreadableAfter, client)
		require.Equal(t, r.DestroyedAt.Add(120*day), r.UnlinkableAfter, client)
	}
}

// The old keys of the KEK still exist after a Turn that was cut off.
func TestATurnThatWasCutOffPromisesNothing(t *testing.T) {
	e := erase(t)
	e.clock.Advance(encrypt.Lease)
	ctx, cancel := context.WithCancel(job("acme"))
	var err error
	running(e.clock, func() {
		_, err = e.k.Turn(ctx, func(p encrypt.TurnProgress) {
			if p.Step == encrypt.TurnWaiting {
				cancel()
			}
		})
	})
	require.ErrorIs(t, err, context.Canceled)
	r, err := e.k.Receipt(acting("acme"), "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, r.DestroyedAt.Add(30*day), r.UnreadableAfter)
	require.Equal(t, r.DestroyedAt.Add(120*day), r.UnlinkableAfter)
}

// An index key that is older than an erasure and was not retired in time puts the date
// off.
func TestAnIndexKeyPastItsLifePutsTheDateOff(t *testing.T) {
	e := erase(t)
	ctx := acting("acme")
	e.clock.Advance(200 * day)
	r, err := e.k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, r.DestroyedAt.Add(30*day), r.UnreadableAfter)
	require.Equal(t, e.clock.Now().Add(30*day), r.UnlinkableAfter)
	indexKey := indexKeyOf(t, e.store)
	version, err := e.k.Rotate(ctx, indexKey)
	require.NoError(t, err)
	_, err = e.k.Retire(ctx, indexKey, version)
	require.NoError(t, err)
	r, err = e.k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, r.DestroyedAt.Add(120*day), r.UnlinkableAfter)
}
