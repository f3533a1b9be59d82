package auditsql_test

import (
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func TestPrune(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		store := newStore(t, db)
		signer, verifier := journaltest.Signer(t)
		now := time.Now().Add(-48 * time.Hour)
		var notes []audit.Kept
		for range 3 {
			log, err := audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, &audit.Options{Clock: func() time.Time { return now }})
			require.NoError(t, err)
			head, err := store.Head(t.Context())
			require.NoError(t, err)
			var wg sync.WaitGroup
			for i := range 250 {
				wg.Go(func() {
					e := journaltest.Event(int(head.Size) + i)
					if err := log.Record(t.Context(), e); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			require.NoError(t, log.Close())
			r := verify(t, store, verifier)
			notes = append(notes, audit.Kept{Note: []byte(r.Checkpoint), At: time.Now()})
			now = now.Add(24 * time.Hour)
		}
		log := openLog(t, db, signer, verifier)
		count := func(table string) (n int) {
			require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
			return n
		}
		require.Equal(t, 750, count("crmguard_audit_clients"))
		ctx := crmguard.System(t.Context(), "acme", "retention")
		removed, err := log.Prune(ctx, time.Now().Add(-30*time.Hour))
		require.NoError(t, err)
		require.Zero(t, removed.To, "250 entries are no tile")
		removed, err = log.Prune(ctx, time.Now().Add(-time.Hour))
		require.NoError(t, err)
		require.Equal(t, audit.Removed{From: 0, To: 256}, removed)
		require.Equal(t, 494, count("crmguard_audit_clients"))
		require.NoError(t, log.Close())
		require.Equal(t, 750-256+2, count("crmguard_audit_entries"))

		for i, kept := range notes {
			r, err := audit.VerifyStore(t.Context(), store, verifier, &audit.VerifyOptions{Kept: []audit.Kept{kept}})
			require.NoError(t, err)
			require.Equal(t, audit.Pruned, r.Verdict, "%d: %s", i, r.Detail)
			require.EqualValues(t, 256, r.Pruned)
		}
		proof, err := log.Prove(t.Context(), 300)
		require.NoError(t, err)
		_, err = audit.CheckProof(proof, nil, verifier)
		require.NoError(t, err)

		for table, verdict := range map[string]audit.Verdict{"crmguard_audit_nodes": audit.Broken, "crmguard_audit_pruned": audit.Broken} {
			_, err = db.ExecContext(t.Context(), fmt.Sprintf("CREATE TABLE saved AS SELECT * FROM %s", table))
			require.NoError(t, err)
			_, err = db.ExecContext(t.Context(), "DELETE FROM "+table)
			require.NoError(t, err)
			require.Equal(t, verdict, verify(t, store, verifier).Verdict, "without %s", table)
			_, err = db.ExecContext(t.Context(), fmt.Sprintf("INSERT INTO %s SELECT * FROM saved", table))
			require.NoError(t, err)
			_, err = db.ExecContext(t.Context(), "DROP TABLE saved")
			require.NoError(t, err)
			require.True(t, verify(t, store, verifier).OK())
		}
		_, err = db.ExecContext(t.Context(), "DELETE FROM crmguard_audit_entries WHERE seq < 512")
		require.NoError(t, err)
		require.Equal(t, audit.Broken, verify(t, store, verifier).Verdict, "a whole tile, but nobody signed that")
	})
}

// A hold counts from when it was acknowledged, though it still waits in the inbox: no
// process may have chained it yet.
func TestPruneHeedsHoldsInTheInbox(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		for i := range 300 {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		}
		require.NoError(t, log.Close())
		app, err := audit.OpenInbox(t.Context(), newStore(t, db), journaltest.NewSealer(), nil)
		require.NoError(t, err)
		ctx := crmguard.System(t.Context(), "acme", "lawsuit")
		for i := range 300 { // more than a page before it
			require.NoError(t, app.Record(t.Context(), journaltest.Event(300+i)))
		}
		require.NoError(t, app.Hold(ctx, audit.Hold{ID: "1", Tenant: "acme"}))
		require.NoError(t, app.Close())

		log = openLog(t, db, signer, verifier)
		removed, err := log.Prune(ctx, time.Now().Add(time.Hour))
		if err == nil {
			require.NotNil(t, removed.Held, "it was chained before Prune looked")
		}
		require.Zero(t, removed.To)
		require.Equal(t, 1, events(t, newStore(t, db))["event-0"])
	})
}

// What is no statement at all is a verdict, not a reason why there is none.
func TestNonsenseInThePlaceOfAStatement(t *testing.T) {
	db := sqldbtest.SQLite(t)
	signer, verifier := journaltest.Signer(t)
	log := openLog(t, db, signer, verifier)
	require.NoError(t, log.Record(t.Context(), journaltest.Event(0)))
	require.NoError(t, log.Close())
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	for _, statement := range []string{`PRAGMA ignore_check_constraints = 1`, `INSERT INTO crmguard_audit_pruned (log, size, note) VALUES ('main', 'x', 'y')`, `PRAGMA ignore_check_constraints = 0`} {
		_, err = conn.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	require.NoError(t, conn.Close())
	r := verify(t, newStore(t, db), verifier)
	require.Equal(t, audit.Broken, r.Verdict)
	require.Contains(t, r.Detail, "no number")
}
