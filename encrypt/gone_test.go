package encrypt_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// The clock of a stands still for hours, as where the operating system does not count
// the time of a suspension: it knows the keys of a client that are destroyed meanwhile.
func TestIndexRowsOfADestroyedClientAreDeletedAgain(t *testing.T) {
	clock, store := newClock(t), encrypt.NewMemory()
	index := &failing{Index: encrypt.NewMemoryIndex()}
	kek, err := encrypt.OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	a := openKeyring(t, kek, store, &encrypt.Options{Index: index, Clock: clock.Now})
	b := openKeyring(t, kek, store, &encrypt.Options{Index: index, Clock: clock.Now})
	contacts, err := encrypt.NewTable[contact](a, "contacts", nil)
	require.NoError(t, err)
	ctx := acting("acme")
	c := &contact{ID: "c1", Phone: "+7 916 123-45-67"}
	_, err = contacts.Seal(ctx, "acme", c)
	require.NoError(t, err)
	suspended := clock.Now()
	_, err = b.Erase(ctx, "acme", "c1")
	require.NoError(t, err)
	clock.Advance(2 * time.Hour)
	finished, err := b.FinishErasures(job("acme"))
	require.NoError(t, err)
	require.Len(t, finished, 1)
	destroyed := clock.Now()

	clock.nanos.Store(suspended.UnixNano())
	entries, err := contacts.Seal(ctx, "acme", c)
	require.NoError(t, err)
	clock.nanos.Store(destroyed.UnixNano())
	found := func() []string {
		records, err := index.Find(ctx, "acme", "contacts", "phone", "phone", [][]byte{entries.Entries[0].Value})
		require.NoError(t, err)
		return records
	}
	rows := 0
	for _, hours := range []int{1, 1, 5, 17} { // those of a day, as long as FinishErasures is called
		require.NoError(t, index.Put(ctx, nil, entries))
		_, err = b.FinishErasures(job("acme"))
		require.NoError(t, err)
		require.NotEmpty(t, found(), "not at every call")
		clock.Advance(time.Duration(hours) * time.Hour)
		index.broken = true
		_, err = b.FinishErasures(job("acme"))
		require.ErrorIs(t, err, errDown)
		index.broken = false
		require.NotEmpty(t, found())
		clock.Advance(time.Hour)
		finished, err := b.FinishErasures(job("acme"))
		require.NoError(t, err)
		require.Empty(t, finished)
		require.Empty(t, found())
		rows += len(entries.Entries)
	}
	r, err := b.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, rows, r.IndexRows)
	require.NoError(t, index.Put(ctx, nil, entries))
	clock.Advance(48 * time.Hour)
	for range 3 {
		_, err = b.FinishErasures(job("acme"))
		require.NoError(t, err)
	}
	require.NotEmpty(t, found(), "after a day it ends")
}

func TestErasuresAreNotFinishedWithoutTheIndex(t *testing.T) {
	clock, store, index := newClock(t), encrypt.NewMemory(), encrypt.NewMemoryIndex()
	kek, err := encrypt.OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	host := openKeyring(t, kek, store, &encrypt.Options{Index: index, Clock: clock.Now})
	tool := openKeyring(t, kek, store, &encrypt.Options{Clock: clock.Now})
	contacts, err := encrypt.NewTable[contact](host, "contacts", nil)
	require.NoError(t, err)
	c := &contact{ID: "c1", Phone: "+7 916 123-45-67"}
	entries, err := contacts.Seal(acting("acme"), "acme", c)
	require.NoError(t, err)
	for _, tenant := range []string{"acme", "other"} {
		_, err = tool.Pseudonyms(acting(tenant), crmguard.Place{Tenant: tenant, Client: "c1", Kind: "imports", Field: "row"}, []byte("x"))
		require.NoError(t, err)
		_, err = tool.Erase(acting(tenant), tenant, "c1")
		require.NoError(t, err)
	}
	require.NoError(t, index.Put(t.Context(), nil, entries))
	clock.Advance(2 * encrypt.ClosingTime)
	finished, err := tool.FinishErasures(t.Context())
	require.ErrorIs(t, err, encrypt.ErrNoIndex)
	require.Len(t, finished, 1, "keys of pseudonyms that no index holds are in nobody's way")
	require.Equal(t, "other", finished[0].Tenant)
	_, err = host.FinishErasures(t.Context()) // sees that it closes
	require.NoError(t, err)
	clock.Advance(encrypt.ClosingTime)
	finished, err = host.FinishErasures(t.Context())
	require.NoError(t, err)
	require.Len(t, finished, 1)
	require.Equal(t, 1, finished[0].IndexRows)
	found, err := contacts.Find(acting("acme"), "acme", "phone", "phone", "+79161234567")
	require.NoError(t, err)
	require.Empty(t, found)
}

// The state in the key store has no MAC, but a key that is there is not destroyed.
func TestNoReceiptOfTheDestructionOfAKeyThatIsThere(t *testing.T) {
	store := &tampering{Store: encrypt.NewMemory()}
	k := newKeyring(t, store, nil)
	ctx := acting("acme")
	_, err := k.Seal(ctx, home, []byte("+7 916"))
	require.NoError(t, err)
	_, err = k.Rotate(ctx, dataScope("c1"))
	require.NoError(t, err)
	emptied := uint32(0)
	store.change = func(r *encrypt.Record) {
		if r.Scope.Name == "c1" {
			r.State, r.ClosedAt, r.DestroyedAt = encrypt.Destroyed, time.Unix(1, 0), time.Unix(2, 0)
			if r.Version == emptied {
				r.Wrapped = nil
			}
		}
	}
	for _, emptied = range []uint32{0, 1, 2} {
		_, err = k.Receipt(ctx, "acme", "c1")
		require.ErrorIs(t, err, encrypt.ErrDamaged)
	}
}
