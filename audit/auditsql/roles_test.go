package auditsql_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// Two roles share a log: one can only put entries into the inbox, the other chains.
func TestGrants(t *testing.T) {
	url := sqldbtest.PostgresURL(t)
	connect := func(role string) *sql.DB {
		at := url
		if role != "" {
			at += "&role=" + role
		}
		db, err := processtest.Open(t.Context(), at)
		require.NoError(t, err)
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	owner := connect("")
	store := newStore(t, owner)
	exec := func(statement string) {
		_, err := owner.ExecContext(context.WithoutCancel(t.Context()), statement)
		require.NoError(t, err, statement)
	}
	suffix := strings.ToLower(rand.Text()[:10])
	app, sequencer := "app_"+suffix, "sequencer_"+suffix
	var schema string
	require.NoError(t, owner.QueryRow(`SELECT current_schema()`).Scan(&schema))
	exec(`CREATE TABLE contacts (id BIGINT PRIMARY KEY)`)
	for _, role := range []string{app, sequencer} {
		exec(`CREATE ROLE ` + role)
		t.Cleanup(func() { exec(`DROP OWNED BY ` + role + `; DROP ROLE ` + role) })
		exec(`GRANT USAGE ON SCHEMA "` + schema + `" TO ` + role)
	}
	exec(`GRANT INSERT ON contacts TO ` + app)
	grants, err := auditsql.Grants(app, sequencer, nil)
	require.NoError(t, err)
	exec(grants)

	appDB, sequencerDB := connect(app), connect(sequencer)
	crm, err := audit.OpenInbox(t.Context(), newStore(t, appDB), journaltest.NewSealer(), nil)
	require.NoError(t, err)
	require.NoError(t, crm.Record(t.Context(), journaltest.Event(0)), "nobody chains yet: it is durable all the same")
	require.NoError(t, crm.InTx(t.Context(), appDB, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO contacts (id) VALUES (1)`); err != nil {
			return err
		}
		return record(journaltest.Event(1))
	}))
	require.NoError(t, crm.Record(t.Context(), journaltest.Event(1)), "it is there, and says the same")
	changed := journaltest.Event(1)
	changed.Reason = "another"
	require.Error(t, crm.Record(t.Context(), changed))
	require.Empty(t, events(t, store))

	signer, verifier := journaltest.Signer(t)
	log, err := audit.New(t.Context(), newStore(t, sequencerDB), journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(events(t, store)) == 2 }, time.Minute, 5*time.Millisecond)
	page, err := crm.Find(t.Context(), audit.Query{Tenant: "acme"})
	require.NoError(t, err)
	require.Len(t, page.Entries, 2)
	r, err := crm.Verify(t.Context(), verifier, nil)
	require.NoError(t, err)
	require.True(t, r.OK() && r.Tail, r.Detail)
	require.NoError(t, crm.Close())
	require.ErrorIs(t, crm.Record(t.Context(), journaltest.Event(3)), audit.ErrClosed)
	require.Eventually(t, func() bool { return count(t, owner, "crmguard_audit_beats") == 0 }, time.Minute, 5*time.Millisecond)

	refused := func(db *sql.DB, statements ...string) {
		for _, s := range statements {
			_, err := db.ExecContext(t.Context(), s)
			require.ErrorContains(t, err, "permission denied", s)
		}
	}
	refused(appDB,
		`DELETE FROM crmguard_audit_inbox`, `UPDATE crmguard_audit_inbox SET since = 0`,
		`DELETE FROM crmguard_audit_beats`, `UPDATE crmguard_audit_beats SET beat = 9`,
		`INSERT INTO crmguard_audit_entries SELECT * FROM crmguard_audit_entries`, `DELETE FROM crmguard_audit_entries`, `UPDATE crmguard_audit_entries SET seq = 9`,
		`DELETE FROM crmguard_audit_clients`, `INSERT INTO crmguard_audit_clients SELECT * FROM crmguard_audit_clients`,
		`INSERT INTO crmguard_audit_checkpoints SELECT * FROM crmguard_audit_checkpoints`, `DELETE FROM crmguard_audit_checkpoints`,
		`UPDATE crmguard_audit_account SET version = 1`, `DELETE FROM crmguard_audit_account`,
		`UPDATE crmguard_audit_tail SET body = 'x'`, `DELETE FROM crmguard_audit_tail`,
		`UPDATE crmguard_audit_logs SET log = 'x'`, `TRUNCATE crmguard_audit_entries`, `TRUNCATE crmguard_audit_inbox`)
	refused(sequencerDB,
		`UPDATE crmguard_audit_entries SET seq = 9`, `UPDATE crmguard_audit_inbox SET since = 0`,
		`UPDATE crmguard_audit_checkpoints SET size = 9`, `DELETE FROM crmguard_audit_checkpoints`,
		`UPDATE crmguard_audit_logs SET log = 'x'`, `TRUNCATE crmguard_audit_entries`, `INSERT INTO contacts (id) VALUES (2)`)
	require.NoError(t, log.Close())
}
