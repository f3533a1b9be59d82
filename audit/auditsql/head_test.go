package auditsql_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
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
		for at, done := 0, false; !done; at++ { // it is written before each of the statements, and after all
			options := &auditsql.Options{Log: fmt.Sprint(at)}
			writer, err := auditsql.New(t.Context(), db, options)
			require.NoError(t, err)
			began, err := writer.Head(t.Context())
			require.NoError(t, err)
			until := -1
			reader, err := auditsql.New(t.Context(), sqldbtest.Before(t, db, func(string) {
				if until == 0 {
					require.NoError(t, writer.Append(t.Context(), audit.Batch{After: began, Rows: rows}))
				}
				until--
			}), options)
			require.NoError(t, err)
			until = at
			h, err := reader.Head(t.Context())
			require.NoError(t, err, "before statement %d", at)
			done = until >= 0
			require.True(t, done || h.Size <= 1)
		}
	})
}
