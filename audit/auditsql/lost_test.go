package auditsql_test

import (
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// A batch with an entry that is there already, and one that another process chains at this
// moment, is a duplicate or comes too late. Nothing is broken.
func TestDuplicateWhileAnotherProcessAppends(t *testing.T) {
	const rounds = 150
	signer, verifier := journaltest.Signer(t)
	memory := audit.NewMemory()
	log, err := audit.New(t.Context(), memory, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	for i := range rounds {
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
	}
	require.NoError(t, log.Close())
	rows, err := memory.Read(t.Context(), 0, rounds)
	require.NoError(t, err)

	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		store, err := auditsql.New(t.Context(), db, nil)
		require.NoError(t, err)
		h, err := store.Head(t.Context())
		require.NoError(t, err)
		require.NoError(t, store.Append(t.Context(), audit.Batch{After: h, Rows: rows[:1]}))
		for i := 1; i < rounds; i++ {
			h, err := store.Head(t.Context())
			require.NoError(t, err)
			again, next := rows[0], rows[i]
			again.Seq, next.Seq = h.Size, h.Size+1
			start, late := make(chan struct{}), error(nil)
			var both sync.WaitGroup
			both.Go(func() {
				<-start
				late = store.Append(t.Context(), audit.Batch{After: h, Rows: []audit.Row{again, next}})
			})
			both.Go(func() {
				<-start
				err = store.Append(t.Context(), audit.Batch{After: h, Rows: rows[i : i+1]})
			})
			close(start)
			both.Wait()
			require.NoError(t, err)
			if _, dup := errors.AsType[*audit.DuplicateError](late); !dup {
				require.ErrorIs(t, late, audit.ErrMoved, "round %d", i)
			}
		}
	})
}

// A batch with an entry that retention removes at this moment is none with what was hidden.
func TestDuplicateThatIsPruned(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		for _, before := range []string{"hashes, CASE WHEN", "SELECT seq, tenant, client FROM"} {
			t.Run(before, func(t *testing.T) {
				signer, verifier := journaltest.Signer(t)
				name := &auditsql.Options{Log: before}
				store, err := auditsql.New(t.Context(), db, name)
				require.NoError(t, err)
				log, err := audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, nil)
				require.NoError(t, err)
				for i := range 300 {
					require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
				}
				require.NoError(t, log.Close())
				rows, err := store.Read(t.Context(), 0, 1)
				require.NoError(t, err)
				require.NotEmpty(t, rows[0].Keys.Clients)

				armed := false
				watched, err := auditsql.New(t.Context(), sqldbtest.Before(t, db, func(query string) {
					if armed && strings.Contains(query, before) {
						armed = false
						require.NoError(t, store.Prune(t.Context(), audit.Pruning{Size: 256, Note: []byte("signed")}, nil))
					}
				}), name)
				require.NoError(t, err)
				h, err := watched.Head(t.Context())
				require.NoError(t, err)
				armed, rows[0].Seq = true, h.Size
				require.NoError(t, watched.Append(t.Context(), audit.Batch{After: h, Rows: rows}))
				require.False(t, armed)
			})
		}
	})
}
