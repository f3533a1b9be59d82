package encrypt_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// After a restore the ledger makes the key store forget again.
func TestReplay(t *testing.T) {
	clock, kek, store := newClock(t), newTurningKEK(t), encrypt.NewMemory()
	ctx := acting("acme")
	options := &encrypt.Options{Clock: clock.Now, Index: encrypt.NewMemoryIndex()}
	k := openKeyring(t, kek, store, options)
	sealed := make(map[string][]byte)
	for _, at := range []crmguard.Place{client(1), client(2), client(3)} {
		var err error
		sealed[at.Client], err = k.Seal(ctx, at, []byte("x"))
		require.NoError(t, err)
	}
	backup := copyOf(t, store)
	_, err := k.Erase(ctx, "acme", "c1", encrypt.Copy{What: "export"})
	require.NoError(t, err)
	clock.Advance(encrypt.ClosingTime)
	finished, err := k.FinishErasures(job("acme"))
	require.NoError(t, err)
	ordered, err := k.Erase(ctx, "acme", "c2")
	require.NoError(t, err)

	clock.Advance(day)
	restored := openKeyring(t, kek, backup, options)
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
