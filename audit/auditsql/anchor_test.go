package auditsql_test

import (
	"database/sql"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func signed(t *testing.T, signer note.Signer, size int) []byte {
	t.Helper()
	n, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s/%x\n%d\n%s\n", signer.Name(), [16]byte{1}, size, tlog.Hash{byte(size)})}, signer)
	require.NoError(t, err)
	return n
}

func TestAnchorDuties(t *testing.T) {
	for name, open := range map[string]func(testing.TB) *sql.DB{"sqlite": sqldbtest.SQLite, "postgres": sqldbtest.Postgres} {
		t.Run(name, func(t *testing.T) {
			audittest.RunAnchor(t, func(t *testing.T, v note.Verifier) audit.Anchor {
				a, err := auditsql.NewAnchor(t.Context(), open(t), v, nil)
				require.NoError(t, err)
				return a
			})
		})
	}
}

func TestAnchor(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		stranger, strangers := journaltest.Signer(t)
		open := func(v note.Verifier, o *auditsql.Options) *auditsql.Anchor {
			a, err := auditsql.NewAnchor(t.Context(), db, v, o)
			require.NoError(t, err)
			return a
		}
		a := open(verifier, nil)
		n, _, err := a.Newest(t.Context())
		require.NoError(t, err)
		require.Nil(t, n)
		for _, size := range []int{1, 9, 5} {
			require.NoError(t, a.Keep(t.Context(), signed(t, signer, size)))
		}
		require.NoError(t, a.Keep(t.Context(), signed(t, signer, 9)), "once more")
		require.Error(t, a.Keep(t.Context(), signed(t, stranger, 99)))
		n, at, err := open(verifier, nil).Newest(t.Context())
		require.NoError(t, err)
		require.Equal(t, string(signed(t, signer, 9)), string(n))
		require.WithinDuration(t, time.Now(), at, time.Minute)
		require.Equal(t, []int{1, 5, 9, 9}, all(t, a))

		// Who may INSERT plants what hides nothing.
		plant := open(strangers, nil)
		for size := 100; size < 400; size++ {
			require.NoError(t, plant.Keep(t.Context(), signed(t, stranger, size)))
		}
		_, err = db.ExecContext(t.Context(), `INSERT INTO crmguard_audit_anchors (log, size, digest, kept, note) VALUES ('main', 1000, $1, 0, $2)`, []byte{}, signed(t, signer, 5))
		require.NoError(t, err)
		n, _, err = a.Newest(t.Context())
		require.NoError(t, err)
		require.Equal(t, string(signed(t, signer, 9)), string(n))
		require.Len(t, all(t, a), 305, "in pages")

		other := open(verifier, &auditsql.Options{Log: "other"})
		n, _, err = other.Newest(t.Context())
		require.NoError(t, err)
		require.Nil(t, n, "of another log")
		_, err = auditsql.NewAnchor(t.Context(), db, nil, nil)
		require.Error(t, err)
	})
}

func all(t *testing.T, a *auditsql.Anchor) []int {
	t.Helper()
	var sizes []int
	for n, err := range a.All(t.Context()) {
		require.NoError(t, err)
		var size int
		var origin string
		_, err = fmt.Sscanf(string(n), "%s\n%d", &origin, &size)
		require.NoError(t, err)
		sizes = append(sizes, size)
	}
	next, stop := iter.Pull2(a.All(t.Context())) // who stops early
	_, _, ok := next()
	require.True(t, ok)
	stop()
	return sizes
}

// A row that has no number for its size keeps nobody going round in circles.
func TestAnchorWithARowThatIsNone(t *testing.T) {
	db := sqldbtest.SQLite(t)
	_, verifier := journaltest.Signer(t)
	a, err := auditsql.NewAnchor(t.Context(), db, verifier, nil)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `INSERT INTO crmguard_audit_anchors (log, size, digest, kept, note) VALUES ('main', 'x', 'y', 'z', 'n')`)
	require.NoError(t, err)
	for _, err = range a.All(t.Context()) {
		if err != nil {
			break
		}
	}
	require.ErrorContains(t, err, "no number")
	n, _, err := a.Newest(t.Context())
	require.NoError(t, err)
	require.Nil(t, n)
}

// The journal lies in one database, its checkpoints in another.
func TestAnchorOfAJournal(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		anchor, err := auditsql.NewAnchor(t.Context(), db, verifier, nil)
		require.NoError(t, err)
		log, err := audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), signer, verifier, &audit.Options{Anchors: []audit.Anchor{anchor}})
		require.NoError(t, err)
		require.NoError(t, log.Record(t.Context(), journaltest.Event(0)))
		require.NoError(t, log.Close())
		require.Equal(t, "database table, log main", log.Anchors()[0].Name)
		n, _, err := anchor.Newest(t.Context())
		require.NoError(t, err)
		r, err := log.Verify(t.Context(), verifier, nil)
		require.NoError(t, err)
		require.Equal(t, r.Checkpoint, string(n))
	})
}
