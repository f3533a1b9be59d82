package auditsql_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// Who records an event again, while the entry of the first time is chained, is not told that
// another one is in its place.
func TestRecordedAgainWhileItIsChained(t *testing.T) {
	for name, record := range map[string]func(t *testing.T, db *sql.DB, log *audit.Log, e crmguard.Event) error{
		"alone": func(t *testing.T, _ *sql.DB, log *audit.Log, e crmguard.Event) error {
			return log.Record(t.Context(), e)
		},
		"in a transaction": func(t *testing.T, db *sql.DB, log *audit.Log, e crmguard.Event) error {
			return log.InTx(t.Context(), db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error { return record(e) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
				signer, verifier := journaltest.Signer(t)
				keys, store := journaltest.NewSealer(), newStore(t, db)
				chain := func() {
					log, err := audit.New(t.Context(), store, keys, signer, verifier, nil)
					require.NoError(t, err)
					require.NoError(t, log.Close())
				}
				chained, armed := false, false
				watched := sqldbtest.Before(t, db, func(query string) {
					if armed && strings.Contains(query, "FROM crmguard_audit_inbox") && strings.Contains(query, "outcome = ") {
						chained, armed = true, false
						if name == "in a transaction" && strings.Contains(t.Name(), "sqlite") {
							return // nobody else writes during one
						}
						chain()
					}
				})
				beside, err := auditsql.New(t.Context(), watched, nil)
				require.NoError(t, err)
				log, err := audit.OpenInbox(t.Context(), beside, keys, nil)
				require.NoError(t, err)
				e := journaltest.Event(1)
				e.ID = "once"
				require.NoError(t, log.Record(t.Context(), e))
				armed = true
				require.NoError(t, record(t, watched, log, e))
				require.True(t, chained)
				require.NoError(t, log.Close())
				chain()
				page, err := audit.FindStore(t.Context(), store, audit.Query{Tenant: "acme", Event: "once"})
				require.NoError(t, err)
				require.Len(t, page.Entries, 1)
				waiting, err := store.Waiting(t.Context(), 0, 10)
				require.NoError(t, err)
				require.Empty(t, waiting)
			})
		})
	}
}
