package encryptsql_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func TestStore(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		encrypttest.Store(t, func(t *testing.T) encrypt.Store {
			store, err := encryptsql.OpenSQLite(t.Context(), t.TempDir()+"/keys/keys.db", true)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, store.Close()) })
			return store
		})
	})
	t.Run("postgres", func(t *testing.T) {
		encrypttest.Store(t, func(t *testing.T) encrypt.Store {
			store, err := encryptsql.New(t.Context(), sqldbtest.Postgres(t), &encryptsql.Options{TablePrefix: "acme_"})
			require.NoError(t, err)
			return store
		})
	})
}

func TestIndex(t *testing.T) {
	for name, open := range map[string]func(testing.TB) *sql.DB{"sqlite": sqldbtest.SQLite, "postgres": sqldbtest.Postgres} {
		t.Run(name, func(t *testing.T) {
			encrypttest.Index(t, func(t *testing.T) (encrypt.Index, encrypt.Execer) {
				db := open(t)
				index, err := encryptsql.NewIndex(t.Context(), db, &encryptsql.Options{TablePrefix: "acme_"})
				require.NoError(t, err)
				return index, db
			})
		})
	}
}

func TestIndexIsInTheHostsTransaction(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		ctx := context.Background()
		index, err := encryptsql.NewIndex(ctx, db, nil)
		require.NoError(t, err)
		tx, err := db.Begin()
		require.NoError(t, err)
		entry := encrypt.IndexEntry{Tenant: "acme", Client: "c1", Kind: "contacts", Record: "c1", Field: "phone", Index: "phone", Version: 1, Value: []byte("x")}
		require.NoError(t, index.Put(ctx, tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"c1"}, Entries: []encrypt.IndexEntry{entry}}))
		require.NoError(t, tx.Rollback())
		records, err := index.Find(ctx, "acme", "contacts", "phone", "phone", [][]byte{[]byte("x")})
		require.NoError(t, err)
		require.Empty(t, records)
	})
}
