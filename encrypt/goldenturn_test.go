package encrypt_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// goldenTurn is a key store after a Turn, an erasure and a rotation, and the receipt.
type goldenTurn struct {
	Keys    []encrypt.Record
	Sealed  string // hex, at home's place for client c2, under version 2
	Receipt string // of client c1
}

// restore puts listed records into an empty store; those before the first of a scope
// were removed.
func restore(t *testing.T, records []encrypt.Record) *encrypt.Memory {
	t.Helper()
	ctx := context.Background()
	store := encrypt.NewMemory()
	for i, r := range records {
		var was, now []encrypt.Record
		for v := uint32(1); v < r.Version && (i == 0 || records[i-1].Scope != r.Scope); v++ {
			filler := encrypt.Record{Scope: r.Scope, Version: v, State: encrypt.Active, Wrapped: []byte("x")}
			_, err := store.Insert(ctx, []encrypt.Record{filler})
			require.NoError(t, err)
			was = append(was, filler)
			filler.Wrapped = nil
			now = append(now, filler)
		}
		_, err := store.Insert(ctx, []encrypt.Record{r})
		require.NoError(t, err)
		n, err := store.Replace(ctx, was, now)
		require.NoError(t, err)
		require.Equal(t, len(was), n)
	}
	return store
}

func TestGoldenFilesOfATurn(t *testing.T) {
	dir := filepath.Join("testdata", "v1")
	if *update {
		writeGoldenTurn(t, dir)
	}
	path := filepath.Join(t.TempDir(), "kek.json") // git does not keep the mode 0600
	text, err := os.ReadFile(filepath.Join(dir, "kek-turned.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, text, 0o600))
	text, err = os.ReadFile(filepath.Join(dir, "turned.json"))
	require.NoError(t, err)
	var g goldenTurn
	require.NoError(t, json.Unmarshal(text, &g))
	store := restore(t, g.Keys)
	require.Equal(t, g.Keys, listRecords(t, store))
	day := func() time.Time { return time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC) } // of the receipt: its dates depend on it
	k := openKeyring(t, openTurningKEK(t, path), store, &encrypt.Options{Clock: day})
	ctx := acting("acme")
	require.NoError(t, k.Check(ctx))
	plaintext, err := k.Open(ctx, client(2), unhex(t, g.Sealed))
	require.NoError(t, err)
	require.Equal(t, "+79123456789", string(plaintext))
	_, err = k.Open(ctx, client(1), unhex(t, g.Sealed))
	require.ErrorIs(t, err, crmguard.ErrErased)
	_, err = k.CheckReceipt(ctx, []byte(g.Receipt))
	require.NoError(t, err)
	again, err := k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, g.Receipt, string(document(t, again)))
}

func writeGoldenTurn(t *testing.T, dir string) {
	t.Helper()
	e := erase(t)
	ctx := acting("acme")
	e.clock.Advance(encrypt.Lease)
	running(e.clock, func() {
		_, err := e.k.Turn(job("acme"), nil)
		require.NoError(t, err)
	})
	_, err := e.k.Rotate(ctx, dataScope("c2"))
	require.NoError(t, err)
	sealed, err := e.k.Seal(ctx, client(2), []byte("+79123456789"))
	require.NoError(t, err)
	receipt, err := e.k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	g := goldenTurn{Keys: listRecords(t, e.store), Sealed: hex.EncodeToString(sealed), Receipt: string(document(t, receipt))}
	text, err := json.MarshalIndent(g, "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "turned.json"), append(text, '\n'), 0o600))
	text, err = os.ReadFile(e.kek.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kek-turned.json"), text, 0o600))
}
