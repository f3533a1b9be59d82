package auditsql_test

import (
	"database/sql"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// Whoever can write the database changes one thing at a time.
func TestTampering(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		for i := range 6 {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		}
		require.NoError(t, log.Close())
		store := newStore(t, db)
		require.True(t, verify(t, store, verifier).OK())
		const at = `WHERE log = 'main' AND seq = 3`
		for statement, want := range map[string]audit.Report{
			`UPDATE crmguard_audit_entries SET subject = 'nobody' ` + at:                                                 {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET tenant = 'other' ` + at:                                                   {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET event = 'other' ` + at:                                                    {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET outcome = 3 ` + at:                                                        {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET outcome = 9999 ` + at:                                                     {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET kind = 'deals' ` + at:                                                     {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET object = '99' ` + at:                                                      {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET action = 'list' ` + at:                                                    {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET occurred = 1 ` + at:                                                       {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET addr = '192.0.2.8' ` + at:                                                 {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET hashes = substr(record, 1, 32) ` + at:                                     {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET record = hashes ` + at:                                                    {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET log = 'hidden' ` + at:                                                     {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_entries SET seq = 100 ` + at:                                                          {Verdict: audit.Broken, At: 3},
			`DELETE FROM crmguard_audit_entries ` + at:                                                                   {Verdict: audit.Broken, At: 3},
			`DELETE FROM crmguard_audit_entries WHERE seq >= 3`:                                                          {Verdict: audit.Truncated, At: 3},
			`DELETE FROM crmguard_audit_entries`:                                                                         {Verdict: audit.Truncated, At: 0},
			`DELETE FROM crmguard_audit_clients WHERE seq = 3`:                                                           {Verdict: audit.Broken, At: 3},
			`UPDATE crmguard_audit_clients SET tenant = 'other' WHERE seq = 3`:                                           {Verdict: audit.Broken, At: 3},
			`INSERT INTO crmguard_audit_clients VALUES ('main', 'acme', 'client-9', 3)`:                                  {Verdict: audit.Broken, At: 3},
			`DELETE FROM crmguard_audit_checkpoints`:                                                                     {Verdict: audit.CannotVerify},
			`UPDATE crmguard_audit_checkpoints SET size = 5 WHERE size = 6`:                                              {Verdict: audit.CannotVerify},
			`INSERT INTO crmguard_audit_checkpoints SELECT log, 99, note FROM crmguard_audit_checkpoints WHERE size = 6`: {Verdict: audit.CannotVerify},
		} {
			restore := backup(t, db)
			result, err := db.Exec(statement)
			require.NoError(t, err, statement)
			n, err := result.RowsAffected()
			require.NoError(t, err)
			require.Positive(t, n, statement)
			r := verify(t, store, verifier)
			require.Equal(t, want.Verdict, r.Verdict, "%s: %s", statement, r.Detail)
			require.Equal(t, want.At, r.At, "%s: %s", statement, r.Detail)
			require.False(t, r.OK())
			restore()
		}
		require.True(t, verify(t, store, verifier).OK())

		// Rows under each other's numbers.
		for _, statement := range []string{
			`UPDATE crmguard_audit_entries SET seq = 100 WHERE seq = 2`, `UPDATE crmguard_audit_entries SET seq = 2 WHERE seq = 3`, `UPDATE crmguard_audit_entries SET seq = 3 WHERE seq = 100`,
		} {
			_, err := db.Exec(statement)
			require.NoError(t, err)
		}
		r := verify(t, store, verifier)
		require.Equal(t, audit.Broken, r.Verdict)
		require.EqualValues(t, 2, r.At)
	})
}

// backup returns a function that brings the tables back to where they are now.
func backup(t *testing.T, db *sql.DB) (restore func()) {
	t.Helper()
	tables := []string{"crmguard_audit_entries", "crmguard_audit_clients", "crmguard_audit_checkpoints"}
	for _, table := range tables {
		_, err := db.Exec(fmt.Sprintf(`CREATE TABLE copy_%s AS SELECT * FROM %s`, table, table))
		require.NoError(t, err)
	}
	return func() {
		for _, table := range tables {
			for _, statement := range []string{`DELETE FROM %[1]s`, `INSERT INTO %[1]s SELECT * FROM copy_%[1]s`, `DROP TABLE copy_%[1]s`} {
				_, err := db.Exec(fmt.Sprintf(statement, table))
				require.NoError(t, err)
			}
		}
	}
}

// Every byte of every stored value of a row is changed in turn.
func TestEveryByteOfARow(t *testing.T) {
	db := sqldbtest.SQLite(t)
	signer, verifier := journaltest.Signer(t)
	log := openLog(t, db, signer, verifier)
	for i := range 3 {
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
	}
	require.NoError(t, log.Close())
	store := newStore(t, db)
	// One connection, without flushes: a flush a byte would take minutes.
	db.SetMaxOpenConns(1)
	_, err := db.Exec(`PRAGMA synchronous = OFF`)
	require.NoError(t, err)
	for _, column := range []string{"record", "hashes"} {
		for seq := range 3 {
			var good []byte
			require.NoError(t, db.QueryRow(`SELECT `+column+` FROM crmguard_audit_entries WHERE seq = $1`, seq).Scan(&good))
			set := func(b []byte) {
				_, err := db.Exec(`UPDATE crmguard_audit_entries SET `+column+` = $1 WHERE seq = $2`, b, seq)
				require.NoError(t, err)
			}
			for i := range good {
				b := slices.Clone(good)
				b[i] ^= 1 << (i % 8)
				set(b)
				r := verify(t, store, verifier)
				require.Equal(t, audit.Broken, r.Verdict, "byte %d of %s of entry %d", i, column, seq)
				require.EqualValues(t, seq, r.At, "byte %d of %s of entry %d: %s", i, column, seq, r.Detail)
			}
			set(good)
		}
	}
	require.True(t, verify(t, store, verifier).OK())
}

// Columns decide what is found; the record decides what is shown.
func TestFindShowsWhatTheRecordSays(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		for i := range 4 {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		}
		_, err := db.Exec(`UPDATE crmguard_audit_entries SET tenant = 'other' WHERE seq = 1`)
		require.NoError(t, err)
		_, err = db.Exec(`UPDATE crmguard_audit_entries SET record = hashes WHERE seq = 2`)
		require.NoError(t, err)
		page, err := log.Find(t.Context(), audit.Query{Tenant: "other"})
		require.NoError(t, err)
		require.Empty(t, page.Entries, "an entry is not shown to another tenant because a column says so")
		page, err = log.Find(t.Context(), audit.Query{Tenant: "acme", Limit: 2})
		require.NoError(t, err)
		require.Len(t, page.Entries, 1)
		page, err = log.Find(t.Context(), audit.Query{Tenant: "acme", Limit: 2, Before: page.Next})
		require.NoError(t, err)
		require.Len(t, page.Entries, 1, "a damaged entry does not hide those before it")
		require.EqualValues(t, 0, page.Entries[0].Seq)
	})
}

// Entries that this process saw are gone: it does not go on as if nothing were.
func TestTailCutWhileInUse(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		for i := range 4 {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		}
		_, err := db.Exec(`DELETE FROM crmguard_audit_entries WHERE seq >= 2`)
		require.NoError(t, err)
		require.ErrorContains(t, log.Record(t.Context(), journaltest.Event(9)), "broken at entry 2")
	})
}
