package auditsql_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// Who opens a log while another process writes its first entry sees one or none, and no
// client of an entry that there is not.
func TestHeadWhileALogBegins(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	memory := audit.NewMemory()
	log, err := audit.New(t.Context(), memory, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	require.NoError(t, log.Record(t.Context(), journaltest.Event(1)))
	require.NoError(t, log.Close())
	rows, err := memory.Read(t.Context(), 0, 1)
	require.NoError(t, err)
	require.NotEmpty(t, rows[0].Keys.Clients)

	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		for i := range 10 {
			store, err := auditsql.New(t.Context(), db, &auditsql.Options{Log: fmt.Sprint(i)})
			require.NoError(t, err)
			began, err := store.Head(t.Context())
			require.NoError(t, err)
			racetest.Run(t, func(n int) (int64, error) {
				if n == racetest.Racers/2 {
					return 1, store.Append(t.Context(), audit.Batch{After: began, Rows: rows})
				}
				h, err := store.Head(t.Context())
				return h.Size, err
			})
		}
	})
}
