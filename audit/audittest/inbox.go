package audittest

import (
	"context"
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
	for _, d := range inboxDuties {
		t.Run(d.name, func(t *testing.T) {
			s, db := open(t)
			d.check(t, t.Context(), s, db)
		})
	}
}

type inboxDuty struct {
	name  string
	check func(t require.TestingT, ctx context.Context, s InboxStore, db *sql.DB)
}

var inboxDuties = []inboxDuty{
	{"an entry waits if and only if its transaction commits", waitsOnceCommitted},
	{"an entry waits once per tenant, event and outcome", waitsOnce},
	{"entries wait in the order of their times, page by page", waitsInOrder},
	{"what is taken is gone with the append, or still there", takenWithAppend},
	{"what is taken twice is refused whole", takenOnce},
	{"what is held is seen from inside the transaction", heldInside},
	{"a transaction that has begun writes after it has read", writesAfterReading},
	{"a direct statement is a transaction of its own", directCommits},
	{"pseudonyms are part of the transaction", pseudonymsInside},
	{"a heartbeat is kept once per node and number", beatsOnce},
	{"heartbeats of a node come in their order", beatsInOrder},
	{"heartbeats are taken out with the append, or still there", beatsTaken},
	{"the account changes from the version that was read", accountSwaps},
	{"of many changes of the account one is made", accountRaced},
}

func entry(event string, since int64) audit.Waiting {
	return audit.Waiting{Tenant: "acme", Event: event, Outcome: crmguard.Done, Since: since, Body: []byte("body of " + event)}
}

func put(t require.TestingT, ctx context.Context, s InboxStore, db *sql.DB, commit bool, list ...audit.Waiting) {
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	for _, w := range list {
		require.NoError(t, s.Put(ctx, tx, w))
	}
	if !commit {
		require.NoError(t, tx.Rollback())
		return
	}
	require.NoError(t, tx.Commit())
}

func waiting(t require.TestingT, ctx context.Context, s InboxStore) []audit.Waiting {
	list, err := s.Waiting(ctx, 0, 100)
	require.NoError(t, err)
	return list
}

func waitsOnceCommitted(t require.TestingT, ctx context.Context, s InboxStore, db *sql.DB) {
	require.Empty(t, waiting(t, ctx, s))
	put(t, ctx, s, db, false, entry("a", 1))
	require.Empty(t, waiting(t, ctx, s), "after a rollback")
	put(t, ctx, s, db, true, entry("a", 1))
	require.Equal(t, []audit.Waiting{entry("a", 1)}, waiting(t, ctx, s))
	require.Equal(t, []audit.Waiting{entry("a", 1)}, waiting(t, ctx, s), "reading takes nothing out")
}

func waitsOnce(t require.TestingT, ctx context.Context, s InboxStore, db *sql.DB) {
	first := entry("a", 1)
	again := entry("a", 2)
	again.Body = []byte("another")
	tenant, outcome := first, first
	tenant.Tenant = "other"
	outcome.Outcome = crmguard.Failed
	put(t, ctx, s, db, true, first, again)
	put(t, ctx, s, db, true, again, tenant, outcome)
	require.ElementsMatch(t, []audit.Waiting{first, tenant, outcome}, waiting(t, ctx, s))
}

func waitsInOrder(t require.TestingT, ctx context.Context, s InboxStore, db *sql.DB) {
	put(t, ctx, s, db, true, entry("c", 1), entry("a", 3), entry("d", 3), entry("b", 2))
	var events []string
	for skip := 0; ; skip += 2 {
		page, err := s.Waiting(ctx, skip, 2)
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

func takenWithAppend(t require.TestingT, ctx context.Context, s InboxStore, db *sql.DB) {
	all := rows(t, ctx, 2)
	a, b, c := entry("a", 1), entry("b", 2), entry("c", 3)
	put(t, ctx, s, db, true, a, b, c)
	at := head(t, ctx, s)
	wrong := at
	wrong.Size, wrong.Last = 1, all[0].Hashes[0]
	err := s.Append(ctx, audit.Batch{After: wrong, Rows: all[1:], Taken: []audit.Waiting{a}})
	require.ErrorIs(t, err, audit.ErrMoved)
	require.Len(t, waiting(t, ctx, s), 3, "nothing of a refused batch is done")
	require.NoError(t, s.Append(ctx, audit.Batch{After: at, Rows: all[:1], Taken: []audit.Waiting{c, a}}))
	require.Equal(t, []audit.Waiting{b}, waiting(t, ctx, s))
	require.NoError(t, s.Append(ctx, audit.Batch{After: head(t, ctx, s), Taken: []audit.Waiting{b}}), "without rows: the log has them")
	require.Empty(t, waiting(t, ctx, s))
	require.EqualValues(t, 1, head(t, ctx, s).Size)
}

func takenOnce(t require.TestingT, ctx context.Context, s InboxStore, db *sql.DB) {
	all := rows(t, ctx, 2)
	a, b := entry("a", 1), entry("b", 2)
	put(t, ctx, s, db, true, a, b)
	require.NoError(t, s.Append(ctx, audit.Batch{After: head(t, ctx, s), Rows: all[:1], Taken: []audit.Waiting{a}}))
	err := s.Append(ctx, audit.Batch{After: head(t, ctx, s), Rows: all[1:], Taken: []audit.Waiting{b, a}})
	require.ErrorIs(t, err, audit.ErrMoved)
	require.Equal(t, []audit.Waiting{b}, waiting(t, ctx, s))
	require.EqualValues(t, 1, head(t, ctx, s).Size)
}
