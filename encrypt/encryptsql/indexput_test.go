package encryptsql_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
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

// What is in the way of an entry may be gone, or be the record's own, before somebody asks whose it is.
func TestIndexPutsAgainWhatNothingIsInTheWayOfAnyMore(t *testing.T) {
	one := func(record, value string) encrypt.IndexEntries {
		return encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{record}, Entries: []encrypt.IndexEntry{{Tenant: "acme", Client: record,
			Kind: "contacts", Record: record, Field: "phone", Index: "phone", Version: 1, Value: []byte(value), Unique: true}}}
	}
	none := func(record string) encrypt.IndexEntries {
		return encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{record}}
	}
	for name, c := range map[string]struct {
		at   string // the statement before which another transaction
		puts encrypt.IndexEntries
	}{
		"its owner gives it up":          {"SELECT record", none("r1")},
		"the record has got another one": {"INSERT INTO", one("r2", "two")},
	} {
		t.Run(name, func(t *testing.T) {
			db := sqldbtest.Postgres(t)
			other, err := encryptsql.NewIndex(t.Context(), db, nil)
			require.NoError(t, err)
			if c.at == "SELECT record" {
				require.NoError(t, other.Put(t.Context(), db, one("r1", "one")))
			}
			begun := false
			watched := sqldbtest.Before(t, db, func(query string) {
				if begun && strings.HasPrefix(query, c.at) {
					begun = false
					require.NoError(t, other.Put(t.Context(), db, c.puts))
				}
			})
			x, err := encryptsql.NewIndex(t.Context(), watched, nil)
			require.NoError(t, err)
			begun = true
			require.NoError(t, x.Put(t.Context(), watched, one("r2", "one")))
			require.False(t, begun)
			found, err := x.Find(t.Context(), "acme", "contacts", "phone", "phone", [][]byte{[]byte("one"), []byte("two")})
			require.NoError(t, err)
			require.Equal(t, []string{"r2"}, found)
			entries := 0
			require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM crmguard_index WHERE value = 'one'`).Scan(&entries))
			require.Equal(t, 1, entries)
		})
	}
}
