// Package sqldbtest opens fresh databases for the tests of SQL stores.
package sqldbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // driver "sqlite"

	"github.com/crmguard/crmguard/internal/sqldb"
)

// Each runs test on an empty database of every dialect: a SQLite file, and a
// schema of its own on the server that CRMGUARD_TEST_POSTGRES names. Without
// that variable the PostgreSQL half is skipped; make test sets it.
func Each(t *testing.T, test func(t *testing.T, db *sql.DB)) {
	t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}

// SQLite opens an empty file that is removed with the test.
func SQLite(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sqldb.OpenSQLite(context.Background(), filepath.Join(Dir(t), "test.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// Dir is a folder for SQLite files that is removed with the test: in memory, where the
// system has a file system there. The files and their settings are the same; only the
// flushes of each transaction, which nothing but a power cut could tell, take no time.
// Benchmarks, which measure them, get one on disk.
func Dir(t testing.TB) string {
	t.Helper()
	if _, measures := t.(*testing.B); measures {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "crmguard-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// Postgres opens an empty schema that is dropped with the test.
func Postgres(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", PostgresURL(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// PostgresURL makes an empty schema, dropped with the test, and returns a URL
// whose connections work in it, for tests that start other processes.
func PostgresURL(t testing.TB) string {
	t.Helper()
	server := os.Getenv("CRMGUARD_TEST_POSTGRES")
	if server == "" {
		t.Skip("CRMGUARD_TEST_POSTGRES is not set; make test starts a server")
	}
	schema := "test_" + strings.ToLower(rand.Text())
	admin, err := sql.Open("pgx", server)
	require.NoError(t, err)
	_, err = admin.Exec(`CREATE SCHEMA ` + schema)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := admin.Exec(`DROP SCHEMA ` + schema + ` CASCADE`)
		require.NoError(t, err)
		require.NoError(t, admin.Close())
	})
	u, err := url.Parse(server)
	require.NoError(t, err)
	query := u.Query()
	query.Set("search_path", schema)
	u.RawQuery = query.Encode()
	return u.String()
}

// PostgresText is every row of every table of the current schema of a PostgreSQL
// database, as text. Its indexes hold nothing but columns.
func PostgresText(t testing.TB, db *sql.DB) string {
	t.Helper()
	read := func(query string) (list []string) {
		rows, err := db.QueryContext(t.Context(), query)
		require.NoError(t, err)
		defer rows.Close() //nolint:errcheck // Err tells
		for rows.Next() {
			var text string
			require.NoError(t, rows.Scan(&text))
			list = append(list, text)
		}
		require.NoError(t, rows.Err())
		return list
	}
	tables := read(`SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`)
	require.Greater(t, len(tables), 5)
	var all strings.Builder
	for _, table := range tables {
		all.WriteString(strings.Join(read(`SELECT t::text FROM `+table+` AS t`), "\n") + "\n")
	}
	return all.String()
}
