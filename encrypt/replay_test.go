package encrypt_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// After a restore the ledger makes the key store forget again.
func TestReplay(t *testing.T) {
	clock, kek, store := newClock(t), newTurningKEK(t), encrypt.NewMemory()
	ctx := acting("acme")
	index := encrypt.NewMemoryIndex()
	k := openKeyring(t, kek, store, &encrypt.Options{Clock: clock.Now, Index: index})
	table, err := encrypt.NewTable[contact](k, "contacts", nil)
	require.NoError(t, err)
	entries, err := table.Seal(ctx, "acme", &contact{ID: "c1", Phone: "+79123456789"}, &contact{ID: "c4", Phone: "+79123456789"})
	require.NoError(t, err)
	require.NoError(t, index.Put(ctx, nil, entries))
	sealed := make(map[string][]byte)
	for _, at := range []crmguard.Place{client(1), client(2), client(3)} {
		var err error
		sealed[at.Client], err = k.Seal(ctx, at, []byte("x"))
		require.NoError(t, err)
	}
	backup := copyOf(t, store)
	_, err = k.Erase(ctx, "acme", "c1", encrypt.Copy{What: "export"})
	require.NoError(t, err)
	clock.Advance(encrypt.ClosingTime)
	finished, err := k.FinishErasures(job("acme"))
	require.NoError(t, err)
	ordered, err := k.Erase(ctx, "acme", "c2")
	require.NoError(t, err)

	clock.Advance(day)
	restored := openKeyring(t, kek, backup, &encrypt.Options{Clock: clock.Now, Index: encrypt.NewMemoryIndex()}) // dumps leave the index out
	open := func(at crmguard.Place) error { _, err := restored.Open(ctx, at, sealed[at.Client]); return err }
	require.NoError(t, open(client(1)), "the backup brings it back")
	forged := finished[0]
	forged.Client = "c3"
	replayed, err := restored.Replay(t.Context(), document(t, finished[0]), document(t, forged), []byte("{}"), document(t, ordered))
	require.ErrorIs(t, err, encrypt.ErrReceipt)
	require.Len(t, replayed, 2, "what does not hold is refused, the rest is done")
	require.ErrorIs(t, open(client(1)), crmguard.ErrErased)
	require.ErrorIs(t, open(client(2)), crmguard.ErrErased)
	require.NoError(t, open(client(3)))
	_, err = restored.Seal(ctx, client(1), nil)
	require.ErrorIs(t, err, crmguard.ErrErased, "its id is never used again")

	require.Equal(t, []string{"destroyed", "closing"}, []string{replayed[0].State, replayed[1].State})
	require.Equal(t, finished[0].ClosedAt, replayed[0].ClosedAt)
	require.Equal(t, clock.Now(), replayed[0].DestroyedAt)
	require.Equal(t, finished[0].Copies, replayed[0].Copies)
	require.Equal(t, []string{"c4"}, replayed[0].Duplicates)
	require.Equal(t, 1, replayed[0].IndexRows)
	for _, r := range replayed {
		_, err = k.CheckReceipt(ctx, document(t, r))
		require.NoError(t, err)
	}
	for _, r := range listRecords(t, backup) {
		if r.Scope.Name == "c1" {
			require.Empty(t, r.Wrapped)
		}
	}
	again, err := restored.Replay(t.Context(), document(t, finished[0]), document(t, replayed[0]))
	require.NoError(t, err)
	require.Equal(t, document(t, replayed[0]), document(t, again[0]), "once more changes nothing")
	clock.Advance(encrypt.ClosingTime)
	finished, err = restored.FinishErasures(job("acme"))
	require.NoError(t, err)
	require.Len(t, finished, 1)
	require.Equal(t, "c2", finished[0].Client)
}

// A copy of the key store from the middle of a migration: the column has plaintext of the client.
func TestReplayDuringAMigration(t *testing.T) {
	clock, kek, store := newClock(t), newTurningKEK(t), encrypt.NewMemory()
	k := openKeyring(t, kek, store, &encrypt.Options{Clock: clock.Now})
	_, err := k.Seal(acting("acme"), client(1), []byte("x"))
	require.NoError(t, err)
	backup := copyOf(t, store)
	finished := eraseNow(t, clock, k, "c1")

	p := newPlainTable(t, 0, backup, nil, nil)
	p.keys = openKeyring(t, kek, backup, &encrypt.Options{Clock: clock.Now, Index: p.index})
	p.contacts, err = encrypt.NewTable[grown](p.keys, "contacts", nil)
	require.NoError(t, err)
	p.Put("acme", encrypt.Row{Record: "r1", Client: "c1", Legacy: map[string][]byte{"phone": []byte("+7 916 123-45-67")}})
	p.begin(t)
	replayed, err := p.keys.Replay(t.Context(), document(t, finished))
	require.ErrorIs(t, err, encrypt.ErrMigrating)
	require.Empty(t, replayed)
	receipt, err := p.keys.Receipt(acting("acme"), "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, "closing", receipt.State, "as long as plaintext of the client lies there")

	_, err = p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.Nil(t, p.row(t, "r1").Legacy["phone"])
	clock.Advance(encrypt.ClosingTime)
	receipts, err := p.keys.FinishErasures(t.Context())
	require.NoError(t, err)
	require.Len(t, receipts, 1)
	orders, err := encrypt.NewTable[grown](p.keys, "orders", nil)
	require.NoError(t, err)
	p.Put("acme", plainRow(2))
	_, err = orders.Collect(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	replayed, err = p.keys.Replay(t.Context(), document(t, finished))
	require.NoError(t, err, "nothing is left to be destroyed")
	require.Equal(t, receipts, replayed)
}

func TestReplayWithoutTheIndex(t *testing.T) {
	clock, kek, store, index := newClock(t), newTurningKEK(t), encrypt.NewMemory(), encrypt.NewMemoryIndex()
	ctx := acting("acme")
	k := openKeyring(t, kek, store, &encrypt.Options{Clock: clock.Now, Index: index})
	contacts, err := encrypt.NewTable[contact](k, "contacts", nil)
	require.NoError(t, err)
	entries, err := contacts.Seal(ctx, "acme", &contact{ID: "c1", Phone: "+7 916 123-45-67"})
	require.NoError(t, err)
	backup := copyOf(t, store)
	finished := eraseNow(t, clock, k, "c1")
	require.NoError(t, index.Put(ctx, nil, entries), "as a restored database has them")
	found := func() []string {
		records, err := index.Find(ctx, "acme", "contacts", "phone", "phone", [][]byte{entries.Entries[0].Value})
		require.NoError(t, err)
		return records
	}

	tool := openKeyring(t, kek, backup, &encrypt.Options{Clock: clock.Now})
	replayed, err := tool.Replay(t.Context(), document(t, finished), document(t, finished))
	require.ErrorIs(t, err, encrypt.ErrNoIndex)
	require.Empty(t, replayed)
	receipt, err := tool.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, "closing", receipt.State)

	host := openKeyring(t, kek, backup, &encrypt.Options{Clock: clock.Now, Index: index})
	replayed, err = host.Replay(t.Context(), document(t, finished))
	require.NoError(t, err)
	require.Equal(t, "destroyed", replayed[0].State)
	require.Empty(t, found())
	require.NoError(t, index.Put(ctx, nil, entries), "by a transaction that came late")
	clock.Advance(time.Hour)
	_, err = host.FinishErasures(t.Context())
	require.NoError(t, err)
	require.Empty(t, found(), "as after any other destruction")
}

func eraseNow(tb testing.TB, clock *clock, k *encrypt.Keyring, client string) encrypt.Receipt {
	tb.Helper()
	_, err := k.Erase(job("acme"), "acme", client)
	require.NoError(tb, err)
	clock.Advance(encrypt.ClosingTime)
	finished, err := k.FinishErasures(tb.Context())
	require.NoError(tb, err)
	require.Len(tb, finished, 1)
	return finished[0]
}

// cutInserts fails from the second Insert on, like a machine that loses its power.
type cutInserts struct {
	*encrypt.Memory
	calls int
}

func (s *cutInserts) Insert(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	for _, r := range records {
		if r.Scope.Tenant != "" {
			if s.calls++; s.calls > 1 {
				return nil, errDown
			}
			break
		}
	}
	return s.Memory.Insert(ctx, records)
}

// Whoever made a tenant's keyset may have come no further: a backup that holds keys of clients
// holds that of receipts all the same.
func TestTheKeyOfReceiptsIsMadeBeforeThatOfAnyClient(t *testing.T) {
	memory, kek := encrypt.NewMemory(), newKEK(t)
	_, err := openKeyring(t, kek, &cutInserts{Memory: memory}, nil).Seal(acting("acme"), home, nil)
	require.ErrorIs(t, err, errDown)
	receipts := encrypt.MACScope("acme", "crmguard", "receipt")
	records, err := memory.Load(t.Context(), []encrypt.Scope{receipts})
	require.NoError(t, err)
	require.Empty(t, records)

	k := openKeyring(t, kek, memory, nil)
	_, err = k.Seal(acting("acme"), home, nil)
	require.NoError(t, err)
	records, err = memory.Load(t.Context(), []encrypt.Scope{receipts})
	require.NoError(t, err)
	require.Len(t, records, 1)
}
