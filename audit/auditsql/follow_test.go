package auditsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// What other processes record, in transactions and without, a tail sees in order,
// once and all of it.
func TestFollowSeesAllProcesses(t *testing.T) {
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		dir := t.TempDir()
		n := openHere(t, database, dir)
		want := 2*processtest.Racers + 1
		seen := make(chan map[string]int)
		go func() {
			events := map[string]int{}
			for e, err := range n.log.FollowAll(t.Context(), -1) {
				if err != nil || e.Seq != int64(len(events)) {
					break
				}
				if events[e.Event.ID]++; len(events) == want {
					break
				}
			}
			seen <- events
		}()
		processtest.Race[any](t, "record", database, dir)
		got := <-seen
		require.Len(t, got, want)
		require.Equal(t, events(t, n.store), got)
	})
}

// An entry of a transaction that commits late is chained late, and so no tail has
// passed it. A tail that goes by the time of the event, the planted fault, misses it.
func TestFollowMissesNoLateCommit(t *testing.T) {
	db := sqldbtest.Postgres(t)
	signer, verifier := journaltest.Signer(t)
	here, there := openLog(t, db, signer, verifier), openLog(t, db, signer, verifier)
	start := time.Now().Add(-time.Minute).UTC()
	event := func(i int) (id string) { return fmt.Sprintf("late-%d", i) }

	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	late := journaltest.Event(0)
	late.ID, late.Time = event(0), start
	settle, err := there.RecordTx(t.Context(), tx, late)
	require.NoError(t, err)
	for i := 1; i <= 3; i++ {
		e := journaltest.Event(i)
		e.ID, e.Time = event(i), start.Add(time.Duration(i)*time.Second)
		require.NoError(t, here.Record(t.Context(), e))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var order []string
	var naive []string
	newest := time.Time{}
	poll := func() { // a tail by time
		page, err := here.Find(t.Context(), audit.Query{Tenant: "acme", From: newest, Limit: 500})
		require.NoError(t, err)
		for _, e := range slices.Backward(page.Entries) {
			naive, newest = append(naive, e.Event.ID), e.Event.Time.Add(time.Microsecond)
		}
	}
	for e, err := range here.Follow(ctx, audit.Query{Tenant: "acme"}, -1) {
		require.NoError(t, err)
		if order = append(order, e.Event.ID); len(order) == 3 {
			poll()
			require.NoError(t, tx.Commit())
			settle(true)
		}
		if len(order) == 4 {
			break
		}
	}
	poll()
	require.Equal(t, []string{event(1), event(2), event(3), event(0)}, order)
	require.Equal(t, []string{event(1), event(2), event(3)}, naive)
}

// An entry of a transaction is found by a sealed value, and not if it was rolled back.
func TestEntriesOfTransactionsAreFoundByASealedValue(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log, err := audit.New(t.Context(), newStore(t, db), journaltest.NewSealer(), signer, verifier,
			&audit.Options{Findable: []string{"phone"}, Pseudonyms: &journaltest.Pseudonymizer{First: 1, Last: 2}})
		require.NoError(t, err)
		t.Cleanup(func() { _ = log.Close() })
		rollBack := errors.New("roll back")
		for i, result := range []error{nil, rollBack} {
			e := journaltest.Event(i)
			e.Private = []crmguard.Private{{Client: "client-1", Name: "phone", Value: []byte("+49301")}}
			require.ErrorIs(t, log.InTx(t.Context(), db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
				return errors.Join(record(e), result)
			}), result)
		}
		require.NoError(t, log.Record(t.Context(), journaltest.Event(7)))
		query := audit.Query{Tenant: "acme", Private: crmguard.Private{Name: "phone", Value: []byte("+49301")}}
		require.Eventually(t, func() bool {
			page, err := log.Find(t.Context(), query)
			return err == nil && len(page.Entries) == 1 && page.Entries[0].Event.ID == "event-0"
		}, time.Minute, time.Millisecond)
		require.Equal(t, 1, count(t, db, "crmguard_audit_pseudonyms"))
		n, err := log.Forget(t.Context(), "acme", "client-1")
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		require.Zero(t, count(t, db, "crmguard_audit_pseudonyms"))
		page, err := log.Find(t.Context(), query)
		require.NoError(t, err)
		require.Empty(t, page.Entries)
	})
}
