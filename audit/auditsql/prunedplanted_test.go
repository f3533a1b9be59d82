package auditsql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// Who can write the database and has no keys does not end the checkpoints by saying, without
// a signature, that all entries were pruned.
func TestPlantedStatementOfPruning(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		for i, size := range []string{"1099511627776", "'many'"} {
			if size == "'many'" && isPostgres(t, db) {
				continue // which keeps numbers only
			}
			log := openLog(t, db, signer, verifier)
			require.NoError(t, log.Record(t.Context(), journaltest.Event(2*i)))
			plant(t, db, `INSERT INTO crmguard_audit_pruned (log, size, note) VALUES ('main', `+size+`, 'nonsense')`)
			require.NoError(t, log.Record(t.Context(), journaltest.Event(2*i+1)))
			require.NoError(t, log.Close())
			_, err := db.Exec(`DELETE FROM crmguard_audit_pruned`)
			require.NoError(t, err)
			r, err := audit.VerifyStore(t.Context(), newStore(t, db), verifier, nil)
			require.NoError(t, err)
			require.Equal(t, r.Entries, r.Signed, "%s: %s", size, r.Detail)
		}
	})
}
