package audittest

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// What an inbox may offer besides, inside the host's transaction.
type (
	beginner interface {
		Begin(ctx context.Context, tx audit.Tx) error
	}
	holder interface {
		Held(ctx context.Context, tx audit.Tx, w audit.Waiting) ([]byte, error)
	}
	directer interface{ Direct() audit.Tx }
	putter   interface {
		PutPseudonyms(ctx context.Context, tx audit.Tx, list []audit.Pseudonym) error
	}
)

// patience is how long an append has that need not wait for a transaction. A store in
// which it waits is right, too.
const patience = 300 * time.Millisecond

var errWaits = errors.New("it waits")

func heldInside(t require.TestingT, ctx context.Context, s InboxStore, db *sql.DB) {
	h, ok := s.(holder)
	if !ok {
		return
	}
	a := entry("a", 1)
	other := a
	other.Outcome = crmguard.Failed
	held := func(tx audit.Tx, w audit.Waiting, want []byte) {
		got, err := h.Held(ctx, tx, w)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	within := func(do func(tx *sql.Tx)) {
		tx, err := db.BeginTx(ctx, nil)
		require.NoError(t, err)
		defer tx.Rollback() //nolint:errcheck // what it is for
		do(tx)
	}
	within(func(tx *sql.Tx) {
		held(tx, a, nil)
		require.NoError(t, s.Put(ctx, tx, a))
		held(tx, a, a.Body)
		held(tx, other, nil)
	})
	within(func(tx *sql.Tx) { held(tx, a, nil) })
	put(t, ctx, s, db, true, a)
	within(func(tx *sql.Tx) {
		again := a
		again.Body = []byte("another")
		held(tx, again, a.Body)
	})
}

func writesAfterReading(t require.TestingT, ctx context.Context, s InboxStore, db *sql.DB) {
	b, ok := s.(beginner)
	if !ok {
		return
	}
	all, at := rows(t, ctx, 1), head(t, ctx, s)
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	require.NoError(t, b.Begin(ctx, tx))
	var n int
	require.NoError(t, tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM crmguard_migrations`).Scan(&n))

	// The log grows meanwhile, or waits until the transaction has ended.
	appended := make(chan error, 2)
	go func() { appended <- s.Append(ctx, audit.Batch{After: at, Rows: all}) }()
	time.AfterFunc(patience, func() { appended <- errWaits })
	err = <-appended
	require.NoError(t, s.Put(ctx, tx, entry("a", 1)))
	require.NoError(t, tx.Commit())
	if errors.Is(err, errWaits) {
		err = <-appended
	}
	require.NoError(t, err)
	require.Len(t, waiting(t, ctx, s), 1)
}

func directCommits(t require.TestingT, ctx context.Context, s InboxStore, _ *sql.DB) {
	d, ok := s.(directer)
	if !ok {
		return
	}
	require.NoError(t, s.Put(ctx, d.Direct(), entry("a", 1)))
	require.Equal(t, []audit.Waiting{entry("a", 1)}, waiting(t, ctx, s))
	require.NoError(t, s.Put(ctx, d.Direct(), entry("a", 2)))
	require.Equal(t, []audit.Waiting{entry("a", 1)}, waiting(t, ctx, s))
}

func pseudonymsInside(t require.TestingT, ctx context.Context, s InboxStore, db *sql.DB) {
	p, ok := s.(putter)
	if !ok {
		return
	}
	all := rows(t, ctx, 2)
	add(t, ctx, s, all...)
	for i, commit := range []bool{false, true} {
		k := all[i].Keys
		tx, err := db.BeginTx(ctx, nil)
		require.NoError(t, err)
		defer tx.Rollback() //nolint:errcheck // what it is for, or nothing
		for range 2 {       // one that is there is left alone
			require.NoError(t, p.PutPseudonyms(ctx, tx, []audit.Pseudonym{{Tenant: k.Tenant, Event: k.Event, Outcome: k.Outcome, Client: "a", Name: "phone", Value: []byte("p")}}))
		}
		if commit {
			require.NoError(t, tx.Commit())
		} else {
			require.NoError(t, tx.Rollback())
		}
	}
	found, err := s.Find(ctx, audit.Query{Tenant: "acme", Private: crmguard.Private{Name: "phone"}, Pseudonyms: [][]byte{[]byte("p")}, Limit: 10})
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.EqualValues(t, 1, found[0].Seq)
}
