package audittest

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// InboxStore is a store that lives in the host's database.
type InboxStore interface {
	audit.Store
	audit.Inbox
}

// RunInbox tests the inbox of a store, beside Run. Open returns an empty store and
// the database in which it lives.
func RunInbox(t *testing.T, open func(t *testing.T) (InboxStore, *sql.DB)) {
	for _, rule := range []struct {
		name string
		test func(t *testing.T, s InboxStore, db *sql.DB)
	}{
		{"an entry waits if and only if its transaction commits", waitsOnceCommitted},
		{"an entry waits once per tenant, event and outcome", waitsOnce},
		{"entries wait in the order of their times, page by page", waitsInOrder},
		{"what is taken is gone with the append, or still there", takenWithAppend},
		{"what is taken twice is refused whole", takenOnce},
	} {
		t.Run(rule.name, func(t *testing.T) {
			s, db := open(t)
			rule.test(t, s, db)
		})
	}
}

func entry(event string, since int64) audit.Waiting {
	return audit.Waiting{Tenant: "acme", Event: event, Outcome: crmguard.Done, Since: since, Body: []byte("body of " + event)}
}

func put(t *testing.T, s InboxStore, db *sql.DB, commit bool, list ...audit.Waiting) {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	for _, w := range list {
		require.NoError(t, s.Put(t.Context(), tx, w))
	}
	if !commit {
		require.NoError(t, tx.Rollback())
		return
	}
	require.NoError(t, tx.Commit())
}

func waiting(t *testing.T, s InboxStore) []audit.Waiting {
	t.Helper()
	list, err := s.Waiting(t.Context(), 0, 100)
	require.NoError(t, err)
	return list
}

func waitsOnceCommitted(t *testing.T, s InboxStore, db *sql.DB) {
	require.Empty(t, waiting(t, s))
	put(t, s, db, false, entry("a", 1))
	require.Empty(t, waiting(t, s), "after a rollback")
	put(t, s, db, true, entry("a", 1))
	require.Equal(t, []audit.Waiting{entry("a", 1)}, waiting(t, s))
	require.Equal(t, []audit.Waiting{entry("a", 1)}, waiting(t, s), "reading takes nothing out")
}

func waitsOnce(t *testing.T, s InboxStore, db *sql.DB) {
	first := entry("a", 1)
	again := entry("a", 2)
	again.Body = []byte("another")
	tenant, outcome := first, first
	tenant.Tenant = "other"
	outcome.Outcome = crmguard.Failed
	put(t, s, db, true, first, again)
	put(t, s, db, true, again, tenant, outcome)
	require.ElementsMatch(t, []audit.Waiting{first, tenant, outcome}, waiting(t, s))
}

func waitsInOrder(t *testing.T, s InboxStore, db *sql.DB) {
	put(t, s, db, true, entry("c", 1), entry("a", 3), entry("d", 3), entry("b", 2))
	var events []string
	for skip := 0; ; skip += 2 {
		page, err := s.Waiting(t.Context(), skip, 2)
		require.NoError(t, err)
		if len(page) == 0 {
			break
		}
		for _, w := range page {
			events = append(events, w.Event)
		}
	}
	require.Equal(t, []string{"c", "b", "a", "d"}, events)
}

func takenWithAppend(t *testing.T, s InboxStore, db *sql.DB) {
	all := rows(t, 2)
	a, b, c := entry("a", 1), entry("b", 2), entry("c", 3)
	put(t, s, db, true, a, b, c)
	at := head(t, s)
	wrong := at
	wrong.Size, wrong.Chain = 1, all[0].Chain
	err := s.Append(t.Context(), audit.Batch{After: wrong, Rows: all[1:], Taken: []audit.Waiting{a}})
	require.ErrorIs(t, err, audit.ErrMoved)
	require.Len(t, waiting(t, s), 3, "nothing of a refused batch is done")
	require.NoError(t, s.Append(t.Context(), audit.Batch{After: at, Rows: all[:1], Taken: []audit.Waiting{c, a}}))
	require.Equal(t, []audit.Waiting{b}, waiting(t, s))
	require.NoError(t, s.Append(t.Context(), audit.Batch{After: head(t, s), Taken: []audit.Waiting{b}}), "without rows: the log has them")
	require.Empty(t, waiting(t, s))
	require.EqualValues(t, 1, head(t, s).Size)
}

func takenOnce(t *testing.T, s InboxStore, db *sql.DB) {
	all := rows(t, 2)
	a, b := entry("a", 1), entry("b", 2)
	put(t, s, db, true, a, b)
	require.NoError(t, s.Append(t.Context(), audit.Batch{After: head(t, s), Rows: all[:1], Taken: []audit.Waiting{a}}))
	err := s.Append(t.Context(), audit.Batch{After: head(t, s), Rows: all[1:], Taken: []audit.Waiting{b, a}})
	require.ErrorIs(t, err, audit.ErrMoved)
	require.Equal(t, []audit.Waiting{b}, waiting(t, s))
	require.EqualValues(t, 1, head(t, s).Size)
}
