package encrypt_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// Stores name the indexes on their own of which an entry in common makes two clients duplicates.
func TestStoresKnowWhichIndexesAreExact(t *testing.T) {
	db := sqldbtest.SQLite(t)
	inSQL, err := encryptsql.NewIndex(t.Context(), db, nil)
	require.NoError(t, err)
	for store, index := range map[string]encrypt.Index{"SQL": inSQL, "memory": encrypt.NewMemoryIndex()} {
		for name, exact := range encrypt.ExactIndexes() {
			e := encrypt.IndexEntries{Tenant: name, Kind: "contacts", Records: []string{"1", "2"}}
			for _, id := range e.Records {
				e.Entries = append(e.Entries, encrypt.IndexEntry{
					Tenant: name, Client: id, Kind: "contacts", Record: id, Field: "f", Index: name, Version: 1, Value: []byte("v"),
				})
			}
			require.NoError(t, index.Put(t.Context(), db, e))
			duplicates, err := index.Duplicates(t.Context(), name, "1")
			require.NoError(t, err)
			require.Equal(t, exact, len(duplicates) == 1, "index %s, %s", name, store)
		}
	}
}
