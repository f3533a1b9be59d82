package encrypt_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

// goldenIndex is which entries version 1 of the format has made.
type goldenIndex struct {
	Keys    []encrypt.Record
	Entries []encrypt.IndexEntry
}

var goldenPerson = person{ID: "p1", Phone: "8 (912) 345-67-89", Email: "Анна@Почта.РФ", INN: " 7707083893"}

// TestGoldenIndex makes the same entries again, or rows would not be found any more.
func TestGoldenIndex(t *testing.T) {
	dir := filepath.Join("testdata", "v1")
	ctx := acting("acme")
	kekFile := filepath.Join(t.TempDir(), "kek.json") // git does not keep the mode 0600
	text, err := os.ReadFile(filepath.Join(dir, "kek.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(kekFile, text, 0o600))
	kek, err := encrypt.OpenKeyFile(kekFile, "", false)
	require.NoError(t, err)
	table := func(store encrypt.Store) (*encrypt.Keyring, *encrypt.Table[person]) {
		k := openKeyring(t, kek, store, &encrypt.Options{Index: encrypt.NewMemoryIndex()})
		people, err := encrypt.NewTable[person](k, "people", &encrypt.TableOptions{Region: "RU"})
		require.NoError(t, err)
		return k, people
	}

	name := filepath.Join(dir, "index.json")
	if *update {
		store := &recording{Store: encrypt.NewMemory()}
		k, people := table(store)
		row := goldenPerson
		_, err := people.Seal(ctx, "acme", &row)
		require.NoError(t, err)
		_, err = k.Rotate(ctx, emailKey)
		require.NoError(t, err)
		entries, err := people.Seal(ctx, "acme", &row)
		require.NoError(t, err)
		text, err := json.MarshalIndent(goldenIndex{store.records, entries.Entries}, "", "\t")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(name, append(text, '\n'), 0o600))
	}
	var g goldenIndex
	text, err = os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &g))
	store := encrypt.NewMemory()
	for _, r := range g.Keys {
		_, err := store.Insert(ctx, []encrypt.Record{r})
		require.NoError(t, err)
	}
	_, people := table(store)
	row := goldenPerson
	entries, err := people.Seal(ctx, "acme", &row)
	require.NoError(t, err)
	require.Len(t, g.Entries, 6, "five indexes, one of them under two versions")
	require.Equal(t, g.Entries, entries.Entries)
}
