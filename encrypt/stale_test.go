package encrypt_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// Whoever asks after an Invalidate gets nothing that the KEK was asked for before.
func TestInvalidateEndsJoiningAnUnwrappedKeyset(t *testing.T) {
	memory, key := encrypt.NewMemory(), newKEK(t)
	writer := openKeyring(t, key, memory, nil)
	sealed := make([][]byte, 2)
	for i := range sealed {
		var err error
		sealed[i], err = writer.Seal(acting("acme"), client(i), []byte("x"))
		require.NoError(t, err)
	}
	g := newGate()
	var asked atomic.Int64
	kek := &slowKEK{AEADWithContext: key, hook: func() {
		if asked.Add(1) == 1 {
			g.pass()
		}
	}}
	k := openKeyring(t, kek, memory, nil)
	before := make(chan error, 1)
	go func() {
		_, err := k.Open(acting("acme"), client(0), sealed[0])
		before <- err
	}()
	<-g.waiting
	k.Invalidate()
	ctx, cancel := context.WithTimeout(acting("acme"), 5*time.Second) // for the test to fail
	defer cancel()
	_, err := k.Open(ctx, client(1), sealed[1])
	require.NoError(t, err)
	require.EqualValues(t, 2, asked.Load())
	close(g.open)
	require.NoError(t, <-before)
}

// While a worn key is replaced, index keys may run out that were read before.
func TestIndexEntriesAreMadeOfCurrentKeys(t *testing.T) {
	clock, memory, kek := newClock(t), encrypt.NewMemory(), newKEK(t)
	o := &encrypt.Options{Index: encrypt.NewMemoryIndex()}
	other := openKeyring(t, kek, memory, o)
	writer, err := encrypt.NewTable[contact](other, "contacts", nil)
	require.NoError(t, err)
	row := &contact{ID: "c1", Phone: "+7 912 345-67-89"}
	_, err = writer.Seal(acting("acme"), "acme", row)
	require.NoError(t, err)
	_, err = memory.Lease(t.Context(), []encrypt.Record{{Scope: dataScope("c1"), Version: 1}}, 1<<28)
	require.NoError(t, err)

	store := &during{Store: memory, onePoll: true}
	store.lease = func() {
		store.lease = nil
		_, err := other.Rotate(crmguard.System(context.Background(), "acme", "test"), encrypt.Scope{Tenant: "acme", Purpose: encrypt.IndexKey, Name: "phone/8:contacts/phone"})
		require.NoError(t, err)
		clock.Advance(encrypt.Lease)
	}
	table, err := encrypt.NewTable[contact](openKeyring(t, kek, store, o), "contacts", nil)
	require.NoError(t, err)
	entries, err := table.Seal(acting("acme"), "acme", row)
	require.NoError(t, err)
	require.Nil(t, store.lease)
	var versions []uint32
	for _, e := range entries.Entries {
		versions = append(versions, e.Version)
	}
	require.ElementsMatch(t, []uint32{1, 2}, versions)
}
