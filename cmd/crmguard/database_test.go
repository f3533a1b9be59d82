package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// eachName runs test on the name of an empty database of both kinds.
func eachName(t *testing.T, test func(t *testing.T, name string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "crm.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, sqldbtest.PostgresURL(t)) })
}

func TestReadOnlyIsReadOnly(t *testing.T) {
	eachName(t, func(t *testing.T, name string) {
		require.NoError(t, execute(t.Context(), []string{name, `CREATE TABLE things (n BIGINT)`}))
		db, err := openDatabase(t.Context(), name)
		require.NoError(t, err)
		defer db.Close() //nolint:errcheck // a test
		_, err = db.Exec(`INSERT INTO things (n) VALUES (1)`)
		require.Error(t, err)
		require.NoError(t, execute(t.Context(), []string{name, `INSERT INTO things (n) VALUES (1)`}), "the table takes it")
		var n int
		require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM things`).Scan(&n))
		require.Equal(t, 1, n)
	})
}

// Nothing is made in a database without a journal.
func TestEvidenceStaysAsItWasFound(t *testing.T) {
	eachName(t, func(t *testing.T, name string) {
		require.NoError(t, execute(t.Context(), []string{name, `CREATE TABLE things (n BIGINT)`}))
		_, _, err := openJournal(t.Context(), name, "")
		require.ErrorContains(t, err, "Is it the database of the CRM")
		db, err := openDatabase(t.Context(), name)
		require.NoError(t, err)
		defer db.Close() //nolint:errcheck // a test
		d, err := sqldb.New(t.Context(), db, "")
		require.NoError(t, err)
		require.Error(t, present(t.Context(), d), "nothing was made")
	})
}

// A role that may not write verifies and counts.
func TestWhereNothingMayBeWritten(t *testing.T) {
	name := sqldbtest.PostgresURL(t)
	dir := t.TempDir()
	require.NoError(t, makeJournal(t.Context(), []string{name, dir + "/journal.key", "2"}))
	require.NoError(t, makeKeyStore(t.Context(), []string{name, dir + "/kek.json", "acme"}))
	name += "&default_transaction_read_only=on"
	code, _, complaint := invoke(t, "audit", "verify", "-db", name, "-key", dir+"/journal.key.pub")
	require.Equal(t, good, code, complaint)
	code, out, complaint := invoke(t, "keys", "list", "-store", name)
	require.Equal(t, good, code, complaint)
	require.Contains(t, out, "acme")
}

// Counting keys leaves no file that was not there, and none that is newer.
func TestCountingLeavesNoTrace(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, makeKeyStore(t.Context(), []string{dir + "/keys.db", dir + "/kek.json", "acme"}))
	before := contents(t, dir)
	code, _, complaint := invoke(t, "keys", "list", "-store", dir+"/keys.db")
	require.Equal(t, good, code, complaint)
	after := contents(t, dir)
	require.Equal(t, slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
	for name := range before {
		require.True(t, before[name] == after[name], name)
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	files := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		files[e.Name()] = string(text)
	}
	return files
}
