package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		require.Contains(t, say("%v", err), "Is it the database of the CRM")
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
	require.Equal(t, unanchored, code, complaint)
	code, _, complaint = invoke(t, "audit", "prove", "-db", name, "-key", dir+"/journal.key.pub", "1")
	require.Equal(t, good, code, complaint)
	code, _, complaint = invoke(t, "audit", "timeline", "-db", name, "-tenant", "acme")
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

// copied is a SQLite journal as it lies on a disk that was taken while the CRM ran:
// with the file beside it that holds the latest transactions.
func copied(t *testing.T, journalMode string) (dir string) {
	t.Helper()
	live, dir := t.TempDir(), t.TempDir()
	require.NoError(t, makeJournal(t.Context(), []string{live + "/crm.db", dir + "/journal.key", "3"}))
	db, err := open(t.Context(), live+"/crm.db")
	require.NoError(t, err)
	defer db.Close() //nolint:errcheck // a test
	db.SetMaxOpenConns(1)
	for _, statement := range []string{`PRAGMA journal_mode = ` + journalMode, `PRAGMA cache_size = 1`, `CREATE TABLE filler (text TEXT)`, `BEGIN`} {
		_, err = db.Exec(statement)
		require.NoError(t, err)
	}
	for range 50 { // more than the cache holds, so that it goes to disk before the end
		_, err = db.Exec(`INSERT INTO filler VALUES (printf('%.5000c', 'x'))`)
		require.NoError(t, err)
	}
	if journalMode == "WAL" {
		_, err = db.Exec(`COMMIT`)
		require.NoError(t, err)
	}
	for name, text := range contents(t, live) {
		if !strings.HasSuffix(name, "-shm") {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
	}
	return dir
}

// What was taken together with its write-ahead log is read with it, and both stay
// byte for byte, whether all is well or not.
func TestEvidenceKeepsItsWriteAheadLog(t *testing.T) {
	dir := copied(t, "WAL")
	require.NoError(t, os.Mkdir(dir+"/elsewhere", 0o700))
	require.NoError(t, os.Symlink("../crm.db", dir+"/elsewhere/link.db"))
	before := contents(t, dir)
	require.NotEmpty(t, before["crm.db-wal"])
	for _, db := range []string{dir + "/crm.db", dir + "/elsewhere/link.db"} {
		code, out, complaint := invoke(t, "audit", "verify", "-db", db, "-key", dir+"/journal.key.pub")
		require.Equal(t, unanchored, code, complaint)
		require.Contains(t, out, "all 3 entries")
		code, _, _ = invoke(t, "audit", "verify", "-db", db, "-key", publicKey(t))
		require.Equal(t, unable, code)
		code, _, _ = invoke(t, "keys", "list", "-store", db)
		require.Equal(t, unable, code)
		after := contents(t, dir)
		delete(after, "crm.db-shm") // an index that SQLite makes of the log
		require.Equal(t, slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
		for name := range before {
			require.True(t, before[name] == after[name], name)
		}
	}
	// The log was read, too: what it says is seen.
	db, err := openDatabase(t.Context(), dir+"/crm.db")
	require.NoError(t, err)
	defer db.Close() //nolint:errcheck // a test
	var n int
	require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM filler`).Scan(&n))
	require.Equal(t, 50, n)
}

// A transaction that was cut off is not rolled back: that would change the evidence.
func TestEvidenceIsNotRepaired(t *testing.T) {
	dir := copied(t, "DELETE")
	before := contents(t, dir)
	require.NotEmpty(t, before["crm.db-journal"])
	code, _, complaint := invoke(t, "audit", "verify", "-db", dir+"/crm.db", "-key", dir+"/journal.key.pub")
	require.Equal(t, unable, code, complaint)
	require.Contains(t, complaint, "verify that copy")
	require.True(t, maps.Equal(before, contents(t, dir)), "nothing was changed")
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	files := map[string]string{}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		files[e.Name()] = string(text)
	}
	return files
}
