package auditsql_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// Whoever may insert into the inbox copies what was put there under other names.
func TestForgedInbox(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		store := newStore(t, db)
		genuine, foreign := bodiesOf(t, store, 2), bodies(t, 5)
		for name, w := range map[string]audit.Waiting{
			"another event":   {Tenant: "acme", Event: "event-1", Outcome: crmguard.Done, Body: genuine[0].Body},
			"another outcome": {Tenant: "acme", Event: "event-0", Outcome: crmguard.Failed, Body: genuine[0].Body},
			"another tenant":  {Tenant: "other", Event: "event-0", Outcome: crmguard.Done, Body: genuine[0].Body},
			"another log":     {Tenant: "acme", Event: "event-4", Outcome: crmguard.Done, Body: foreign[4].Body},
		} {
			put(t, db, store, w)
			require.NoError(t, log.Record(t.Context(), journaltest.Event(50)), name)
		}
		require.NoError(t, log.InTx(t.Context(), db, inTx(7)))
		require.Eventually(t, func() bool { return events(t, store)["event-7"] == 1 }, time.Minute, 5*time.Millisecond)
		require.ErrorContains(t, log.Close(), "4 entries of the inbox are left")
		require.Equal(t, map[string]int{"event-50": 1, "event-7": 1}, events(t, store))
		require.Equal(t, 4, count(t, db, "crmguard_audit_inbox"))
	})
}

// Whoever plants a row in the place of a real one does not make it vanish.
func TestPlantedInThePlaceOf(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		store := newStore(t, db)
		put(t, db, store, audit.Waiting{Tenant: "acme", Event: "event-7", Outcome: crmguard.Done, Body: []byte("planted")})
		_, ok := errors.AsType[*audit.ConflictError](log.InTx(t.Context(), db, inTx(7)))
		require.True(t, ok)

		require.NoError(t, log.InTx(t.Context(), db, func(_ context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
			if err := errors.Join(record(journaltest.Event(1)), record(journaltest.Event(1))); err != nil {
				return err
			}
			_, err := log.RecordTx(t.Context(), tx, journaltest.Event(1))
			return err
		}), "the same again, seen from inside the transaction")
		require.Error(t, log.InTx(t.Context(), db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
			other := journaltest.Event(2)
			other.Reason = "other"
			return errors.Join(record(journaltest.Event(2)), record(other))
		}))
		require.Error(t, log.Close())
		require.Equal(t, map[string]int{"event-1": 1}, events(t, store))
	})
}

func put(t *testing.T, db *sql.DB, store *auditsql.Store, w audit.Waiting) {
	t.Helper()
	tx, err := db.Begin()
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), tx, w))
	require.NoError(t, tx.Commit())
}
