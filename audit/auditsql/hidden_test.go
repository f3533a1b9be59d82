package auditsql_test

import (
	"database/sql"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func isPostgres(t *testing.T, db *sql.DB) bool {
	t.Helper()
	_, err := db.Exec(`SELECT sqlite_version()`)
	return err != nil
}

// plant runs a statement as somebody who owns the tables: no CHECK holds.
func plant(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	around := [2]string{`PRAGMA ignore_check_constraints = ON`, `PRAGMA ignore_check_constraints = OFF`}
	if isPostgres(t, db) {
		around = [2]string{`ALTER TABLE crmguard_audit_entries DROP CONSTRAINT IF EXISTS crmguard_audit_entries_seq_check`,
			`ALTER TABLE crmguard_audit_clients DROP CONSTRAINT IF EXISTS crmguard_audit_clients_seq_check`}
		_, err = conn.ExecContext(t.Context(), around[1])
		require.NoError(t, err)
	}
	_, err = conn.ExecContext(t.Context(), around[0])
	require.NoError(t, err)
	_, err = conn.ExecContext(t.Context(), statement, args...)
	require.NoError(t, err, statement)
	_, err = conn.ExecContext(t.Context(), around[1])
	require.NoError(t, err)
}

// copyOf3 is a statement that copies row 3 with other columns; %seq and so on are
// replaced in pairs.
func copyOf3(replace ...string) string {
	const columns = `seq, tenant, event, outcome, occurred, hashes`
	return `INSERT INTO crmguard_audit_entries (log, ` + columns + `, subject, kind, object, action, record) SELECT log, ` +
		strings.NewReplacer(replace...).Replace(columns) +
		`, subject, kind, object, action, record FROM crmguard_audit_entries WHERE log = 'main' AND seq = 3`
}

func wantBroken(t *testing.T, err error) {
	t.Helper()
	_, ok := errors.AsType[*audit.BrokenError](err)
	require.True(t, ok, "%v", err)
}

func TestNumbersAreChecked(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		newStore(t, db)
		for _, table := range []string{"clients (log, tenant, client, seq) VALUES ('main', 'acme', 'c', ", "entries (log, tenant, event, outcome, subject, kind, object, action, occurred, hashes, record, seq) VALUES ('main', 'a', 'e', 1, 's', 'k', 'o', 'a', 1, '', '', "} {
			for _, seq := range []string{"-1", "9223372036854775807"} {
				_, err := db.Exec(`INSERT INTO crmguard_audit_` + table + seq + `)`)
				require.ErrorContains(t, err, "seq", "%s %s", table, seq)
			}
		}
	})
}

// A row that nobody reads must not stand for an entry that was never written.
func TestHiddenRowAnswersNoRecord(t *testing.T) {
	for _, seq := range []string{"-1", "-9223372036854775808", "1000", "4611686018427387905", "9223372036854775807"} {
		t.Run(seq, func(t *testing.T) {
			sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
				signer, verifier := journaltest.Signer(t)
				log := openLog(t, db, signer, verifier)
				for i := range 6 {
					require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
				}
				plant(t, db, copyOf3("seq", seq, "event", "'event-9'"))
				err := log.Record(t.Context(), journaltest.Event(9))
				wantBroken(t, err)
				_ = log.Close()
				store := newStore(t, db)
				r := verify(t, store, verifier)
				require.Equal(t, audit.Broken, r.Verdict, r.Detail)
				_, err = audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, nil)
				wantBroken(t, err)
			})
		})
	}
}

// Of a visible entry, under another outcome, with a record that says so.
func TestHiddenOutcomeOfAVisibleEntry(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		for i := range 4 {
			e := journaltest.Event(i)
			e.Outcome = crmguard.Attempted
			require.NoError(t, log.Record(t.Context(), e))
		}
		plant(t, db, copyOf3("seq", "-1", "outcome", "2"))
		wantBroken(t, log.Record(t.Context(), journaltest.Event(3)))
		require.Equal(t, audit.Broken, verify(t, newStore(t, db), verifier).Verdict)
	})
}

// A column that says something else than the record is no reason to believe that
// an entry is there.
func TestColumnsAloneAnswerNoRecord(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		for i := range 4 {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		}
		plant(t, db, `UPDATE crmguard_audit_entries SET event = 'event-9' WHERE seq = 3`)
		require.ErrorContains(t, log.Record(t.Context(), journaltest.Event(9)), "broken at entry 3")
	})
}

// Whoever plants an index row for an entry to come keeps nobody from writing it.
func TestPlantedIndexRow(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		require.NoError(t, log.Record(t.Context(), journaltest.Event(0)))
		plant(t, db, `INSERT INTO crmguard_audit_clients (log, tenant, client, seq) VALUES ('main', 'acme', 'client-1', 1)`)
		require.NoError(t, log.Record(t.Context(), journaltest.Event(1)))
		require.True(t, verify(t, newStore(t, db), verifier).OK())
		for _, seq := range []int64{-1, 2, math.MaxInt64} {
			plant(t, db, `INSERT INTO crmguard_audit_clients (log, tenant, client, seq) VALUES ('main', 'acme', 'client-1', $1)`, seq)
			_, err := newStore(t, db).Head(t.Context())
			wantBroken(t, err)
			require.Equal(t, audit.Broken, verify(t, newStore(t, db), verifier).Verdict)
			plant(t, db, `DELETE FROM crmguard_audit_clients WHERE seq = $1`, seq)
		}
		require.True(t, verify(t, newStore(t, db), verifier).OK())
	})
}

// Columns that no program of ours wrote are a verdict, and hide no other entry.
func TestHostileColumns(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		const n = 8
		for i := range n {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		}
		require.NoError(t, log.Close())
		store := newStore(t, db)
		const at = ` WHERE log = 'main' AND seq = 3`
		changes := map[string]int64{ // where it is broken
			`UPDATE crmguard_audit_entries SET hashes = record` + at:           3,
			`UPDATE crmguard_audit_entries SET hashes = '' WHERE seq = 7`:      7,
			`UPDATE crmguard_audit_entries SET hashes = ''` + at:               3,
			`UPDATE crmguard_audit_entries SET outcome = 300` + at:             3,
			`UPDATE crmguard_audit_entries SET seq = 9223372036854775807` + at: 3,
			copyOf3("seq", "9223372036854775807", "event", "'other'"):          n,
			copyOf3("seq", "-7", "event", "'other'"):                           -7,
		}
		if !isPostgres(t, db) {
			for _, change := range []string{
				`UPDATE crmguard_audit_entries SET occurred = 'x'`, `UPDATE crmguard_audit_entries SET outcome = 'x'`,
				`UPDATE crmguard_audit_entries SET seq = 'x'`, `UPDATE crmguard_audit_entries SET seq = 3.5`,
				`UPDATE crmguard_audit_entries SET hashes = 'x'`, `UPDATE crmguard_audit_entries SET record = 5`,
			} {
				changes[change+at] = 3
			}
			changes[`UPDATE crmguard_audit_entries SET occurred = 'x' WHERE seq = 7`] = 7
			changes[copyOf3("seq", "3.5", "event", "'other'")] = 4
			changes[copyOf3("seq", "x''", "event", "'other'")] = n
			changes[`UPDATE crmguard_audit_clients SET seq = 'x' WHERE seq = 3`] = 3
		}
		for change, want := range changes {
			restore := backup(t, db)
			plant(t, db, change)
			r := verify(t, store, verifier)
			require.Equal(t, audit.Broken, r.Verdict, "%s: %s", change, r.Detail)
			require.Equal(t, want, r.At, "%s: %s", change, r.Detail)
			for _, limit := range []int{1, 3, 50} {
				seen := map[int64]bool{}
				q := audit.Query{Tenant: "acme", Limit: limit}
				for {
					rows, err := store.Find(t.Context(), q)
					require.NoError(t, err, change)
					for i := range rows {
						seen[rows[i].Seq] = true
					}
					if len(rows) < limit {
						break
					}
					q.Before = rows[len(rows)-1].Seq
					if q.Before == 0 {
						break
					}
				}
				for seq := range int64(n) {
					require.True(t, seen[seq] || seq == want || seq == 3 || seq == 7, "entry %d is not found after %s", seq, change)
				}
			}
			restore()
		}
		require.True(t, verify(t, store, verifier).OK())
	})
}

// A record under another number is not shown, however well its columns fit.
func TestFindShowsNoRecordTwice(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		for i := range 4 {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		}
		plant(t, db, `UPDATE crmguard_audit_entries SET record = (SELECT record FROM crmguard_audit_entries WHERE seq = 1) WHERE seq = 2`)
		page, err := log.Find(t.Context(), audit.Query{Tenant: "acme"})
		require.NoError(t, err)
		var seqs []int64
		for _, e := range page.Entries {
			seqs = append(seqs, e.Seq)
		}
		require.Equal(t, []int64{3, 1, 0}, seqs)
	})
}
