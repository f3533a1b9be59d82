package auditsql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// A batch for another place of the log than the one where it stands leaves nothing:
// neither entries, nor clients, nor the MAC of the newest.
func TestBatchThatDoesNotContinue(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		for i := range 3 {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		}
		require.NoError(t, log.Close())
		store := newStore(t, db)
		rows, err := store.Read(t.Context(), 2, 1)
		require.NoError(t, err)
		row := rows[0]
		row.Keys.Event, row.Keys.Clients = "another", []string{`a "quoted\one`, "client-1"}
		head, err := store.Head(t.Context())
		require.NoError(t, err)
		kept := func() (n [2]int, tail []byte) {
			require.NoError(t, db.QueryRow(`SELECT (SELECT COUNT(*) FROM crmguard_audit_entries), (SELECT COUNT(*) FROM crmguard_audit_clients)`).Scan(&n[0], &n[1]))
			tail, err := store.Tail(t.Context())
			require.NoError(t, err)
			return n, tail
		}
		before, tail := kept()

		other, beyond := head, head
		other.Last[0] ^= 1
		beyond.Size++
		for name, after := range map[string]audit.Head{"another chain": other, "beyond the end": beyond} {
			row.Seq = after.Size
			require.ErrorIs(t, store.Append(t.Context(), audit.Batch{After: after, Rows: []audit.Row{row}, Tail: []byte("new")}), audit.ErrMoved, name)
			n, now := kept()
			require.Equal(t, before, n, name)
			require.Equal(t, tail, now, name)
		}

		row.Seq = head.Size
		require.NoError(t, store.Append(t.Context(), audit.Batch{After: head, Rows: []audit.Row{row}, Tail: []byte("new")}), "what was refused is a batch")
		n, now := kept()
		require.Equal(t, [2]int{before[0] + 1, before[1] + 2}, n)
		require.Equal(t, []byte("new"), now)
		rows, err = store.Read(t.Context(), head.Size, 1)
		require.NoError(t, err)
		require.Equal(t, row, rows[0], "as it was written")
	})
}
