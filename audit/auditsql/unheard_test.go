package auditsql_test

import (
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// swallow has the database remove at once what is put into a table.
func swallow(t *testing.T, db *sql.DB, table string) {
	t.Helper()
	d, err := sqldb.New(t.Context(), db, "")
	require.NoError(t, err)
	statements := []string{fmt.Sprintf(`CREATE TRIGGER of_%[1]s AFTER INSERT ON %[1]s BEGIN DELETE FROM %[1]s; END`, table)}
	if d.Dialect == sqldb.Postgres {
		statements = []string{
			fmt.Sprintf(`CREATE FUNCTION no_%[1]s() RETURNS trigger AS 'BEGIN DELETE FROM %[1]s; RETURN NULL; END' LANGUAGE plpgsql`, table),
			fmt.Sprintf(`CREATE TRIGGER of_%[1]s AFTER INSERT ON %[1]s FOR EACH ROW EXECUTE FUNCTION no_%[1]s()`, table),
		}
	}
	for _, statement := range statements {
		_, err = db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
}

// Somebody whose triggers swallow the inbox and all that a process says of it does not
// make entries vanish unnoticed.
func TestSwallowedInbox(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		commit(t, log, db, 0, nothing)
		require.Eventually(t, has(db, `SELECT COUNT(*) FROM crmguard_audit_account`), time.Minute, 5*time.Millisecond)
		swallow(t, db, "crmguard_audit_inbox")
		swallow(t, db, "crmguard_audit_beats")
		for i := range 3 {
			commit(t, log, db, 1+i, nothing)
		}
		require.Eventually(t, func() bool {
			r := verify(t, newStore(t, db), verifier)
			return r.Missing > 0 && r.InDoubt >= 3
		}, time.Minute, 50*time.Millisecond)
		reasons := ""
		for _, e := range told(t, log, verifier, audit.ActMissing) {
			reasons += e.Reason
		}
		require.Contains(t, reasons, "heartbeats ")
		require.NoError(t, log.Close())
	})
}

// A process that does not chain says so where it can; not while nobody chains, nor
// when all is well.
func TestSwallowedInboxOfAnotherProcess(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		logged := &racetest.Buffer{}
		app, err := audit.OpenInbox(t.Context(), newStore(t, db), journaltest.NewSealer(), &audit.Options{Logger: slog.New(slog.NewTextHandler(logged, nil))})
		require.NoError(t, err)
		t.Cleanup(func() { _ = app.Close() })
		require.NoError(t, app.Record(t.Context(), journaltest.Event(0)))
		time.Sleep(3 * time.Second) // it has looked
		require.False(t, strings.Contains(logged.String(), "vanish"), "nobody chains: it waits")
		log := openLog(t, db, signer, verifier)
		require.NoError(t, app.Record(t.Context(), journaltest.Event(1)))
		require.Eventually(t, func() bool {
			return count(t, db, "crmguard_audit_beats") == 0 && events(t, newStore(t, db))["event-1"] == 1
		}, time.Minute, 5*time.Millisecond)
		time.Sleep(3 * time.Second)
		require.False(t, strings.Contains(logged.String(), "vanish"), "counted")
		swallow(t, db, "crmguard_audit_inbox")
		swallow(t, db, "crmguard_audit_beats")
		require.NoError(t, app.Record(t.Context(), journaltest.Event(2)))
		require.Eventually(t, func() bool { return strings.Contains(logged.String(), "vanish") }, time.Minute, 5*time.Millisecond)
		require.NoError(t, log.Close())
	})
}
