package encrypt_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

var update = flag.Bool("update", false, "write new golden files, when a new version of the format is added")

// golden is what version 1 of the format has written. docs/formats/encrypt.md
// explains it.
type golden struct {
	Keys   []encrypt.Record
	Values []goldenValue
}

type goldenValue struct {
	Place                         crmguard.Place
	Value, Sealed, MAC, Pseudonym string // hex but for Value
}

// TestGoldenFiles opens what earlier programs have stored.
func TestGoldenFiles(t *testing.T) {
	dir := filepath.Join("testdata", "v1")
	ctx := context.Background()
	if *update {
		writeGolden(t, dir)
	}
	kekFile := filepath.Join(t.TempDir(), "kek.json") // git does not keep the mode 0600
	text, err := os.ReadFile(filepath.Join(dir, "kek.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(kekFile, text, 0o600))
	kek, err := encrypt.OpenKeyFile(kekFile, "", false)
	require.NoError(t, err)

	var g golden
	text, err = os.ReadFile(filepath.Join(dir, "golden.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &g))
	store := encrypt.NewMemory()
	for _, r := range g.Keys {
		_, err := store.Insert(ctx, []encrypt.Record{r})
		require.NoError(t, err)
	}
	k := openKeyring(t, kek, store, nil)
	require.NoError(t, k.Check(ctx))
	require.NotEmpty(t, g.Values)
	for _, v := range g.Values {
		ctx := acting(v.Place.Tenant)
		opened, err := k.Open(ctx, v.Place, unhex(t, v.Sealed))
		require.NoError(t, err)
		require.Equal(t, v.Value, string(opened))
		require.NoError(t, k.Verify(ctx, v.Place, []byte(v.Value), unhex(t, v.MAC)))
		mac, err := k.MAC(ctx, v.Place, []byte(v.Value))
		require.NoError(t, err)
		require.Equal(t, v.MAC, hex.EncodeToString(mac))
		pseudonyms, err := k.Pseudonyms(ctx, v.Place, []byte(v.Value))
		require.NoError(t, err)
		require.Equal(t, v.Pseudonym, hex.EncodeToString(pseudonyms[0]))
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func writeGolden(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "", true)
	require.NoError(t, err)
	store := &recording{Store: encrypt.NewMemory()}
	k := openKeyring(t, kek, store, nil)
	var g golden
	for _, v := range []goldenValue{
		{Place: home, Value: "+79123456789"},
		{Place: crmguard.Place{Tenant: "фирма", Client: "клиент", Kind: "contacts", Record: "r", Field: "note"}, Value: "Любит чай"},
		{Place: crmguard.Place{Tenant: "acme", Kind: "sessions"}, Value: ""},
	} {
		ctx := acting(v.Place.Tenant)
		sealed, err := k.Seal(ctx, v.Place, []byte(v.Value))
		require.NoError(t, err)
		mac, err := k.MAC(ctx, v.Place, []byte(v.Value))
		require.NoError(t, err)
		pseudonyms, err := k.Pseudonyms(ctx, v.Place, []byte(v.Value))
		require.NoError(t, err)
		v.Sealed, v.MAC, v.Pseudonym = hex.EncodeToString(sealed), hex.EncodeToString(mac), hex.EncodeToString(pseudonyms[0])
		g.Values = append(g.Values, v)
	}
	g.Keys = store.records
	text, err := json.MarshalIndent(g, "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "golden.json"), append(text, '\n'), 0o600))
}

// recording keeps what was inserted.
type recording struct {
	encrypt.Store
	records []encrypt.Record
}

func (r *recording) Insert(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	r.records = append(r.records, records...)
	return r.Store.Insert(ctx, records)
}
