package auditsql_test

import (
	"context"
	"database/sql"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// After a client is erased the journal verifies, and no stored byte of it says what the
// private values were: not the tables, not the files of the database, nor what still
// waits in the inbox.
func TestErasedIsNowhere(t *testing.T) {
	const secret = "+49 30 5550199 Herr Geheim"
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		db, err := processtest.Open(t.Context(), database)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		signer, verifier := journaltest.Signer(t)
		keys := journaltest.NewSealer()
		store := newStore(t, db)
		log, err := audit.New(t.Context(), store, keys, signer, verifier, nil)
		require.NoError(t, err)
		event := func(i int) crmguard.Event {
			e := journaltest.Event(4 * i) // all about client-0
			e.Private[0].Value = []byte(secret)
			return e
		}
		require.NoError(t, log.Record(t.Context(), event(0)))
		require.NoError(t, log.InTx(t.Context(), db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error { return record(event(1)) }))
		tx, err := db.Begin()
		require.NoError(t, err)
		_, err = log.RecordTx(t.Context(), tx, event(2))
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		before := stored(t, db, database)
		require.NotContains(t, before, "5550199")
		keys.Erase("acme", "client-0")
		require.NoError(t, log.Record(t.Context(), event(3)))
		require.NoError(t, log.Close())

		r := verify(t, store, verifier)
		require.True(t, r.OK(), r.Detail)
		require.GreaterOrEqual(t, r.Entries, int64(4))
		all := stored(t, db, database)
		require.Contains(t, all, "client-0", "the search sees what is there")
		for _, form := range []string{secret, "5550199", "Geheim", hex.EncodeToString([]byte("5550199")), hex.EncodeToString([]byte("Geheim"))} {
			require.NotContains(t, all, form)
		}
		_, err = db.Exec(`CREATE TABLE leak (value BYTEA)`) // a planted fault: the search finds it
		require.NoError(t, err)
		_, err = db.Exec(`INSERT INTO leak (value) VALUES ($1)`, []byte(secret))
		require.NoError(t, err)
		leaked := stored(t, db, database)
		require.True(t, strings.Contains(leaked, secret) || strings.Contains(leaked, hex.EncodeToString([]byte(secret))))
	})
}

// stored is every byte of the files of a SQLite database, indexes and write-ahead log
// included, and every row of every table of a PostgreSQL one, whose indexes hold
// nothing but columns.
func stored(t *testing.T, db *sql.DB, database string) string {
	t.Helper()
	if isPostgres(t, db) {
		return sqldbtest.PostgresText(t, db)
	}
	var all strings.Builder
	paths, err := filepath.Glob(database + "*")
	require.NoError(t, err)
	for _, path := range paths {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		all.Write(content)
	}
	return all.String()
}
