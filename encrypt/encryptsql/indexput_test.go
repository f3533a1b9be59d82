package encryptsql_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// A Put that fails leaves the entries as they were, whoever connects.
func TestIndexPutsAllOrNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "crm.db")
	pool := func() *sql.DB {
		db, err := sqldb.OpenSQLite(t.Context(), file)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return db
	}
	db, other := pool(), pool()
	conn, err := pool().Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	x, err := encryptsql.NewIndex(t.Context(), db, nil)
	require.NoError(t, err)
	for name, tx := range map[string]encrypt.Execer{"its own": db, "another": other, "a connection": conn} {
		t.Run(name, func(t *testing.T) {
			put := func(record, value string) error {
				return x.Put(t.Context(), tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{record}, Entries: []encrypt.IndexEntry{{Tenant: "acme", Client: record,
					Kind: "contacts", Record: record, Field: "phone", Index: "phone", Version: 1, Value: []byte(value), Unique: true}}})
			}
			require.NoError(t, put("r1", "one"))
			require.NoError(t, put("r2", "two"))
			var duplicate *encrypt.DuplicateError
			require.ErrorAs(t, put("r2", "one"), &duplicate)
			require.Equal(t, "r1", duplicate.Other)
			found, err := x.Find(t.Context(), "acme", "contacts", "phone", "phone", [][]byte{[]byte("two")})
			require.NoError(t, err)
			require.Equal(t, []string{"r2"}, found)
		})
	}
}
