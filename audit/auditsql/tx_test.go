package auditsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func openLog(t *testing.T, db *sql.DB, signer note.Signer, verifier note.Verifier) *audit.Log {
	t.Helper()
	log, err := audit.New(t.Context(), newStore(t, db), journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	return log
}

func verify(t *testing.T, s audit.Store, v note.Verifier) audit.Report {
	t.Helper()
	r, err := audit.VerifyStore(t.Context(), s, v, nil)
	require.NoError(t, err)
	return r
}

func events(t *testing.T, s audit.Store) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for from := int64(0); ; {
		rows, err := s.Read(t.Context(), from, 500)
		require.NoError(t, err)
		if len(rows) == 0 {
			return seen
		}
		for _, r := range rows {
			seen[r.Keys.Event]++
			from = r.Seq + 1
		}
	}
}

func count(t *testing.T, db *sql.DB, table string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM `+table).Scan(&n))
	return n
}

func TestInTx(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		store := newStore(t, db)
		_, err := db.Exec(`CREATE TABLE contacts (id BIGINT PRIMARY KEY)`)
		require.NoError(t, err)
		change := func(i int, end error) error {
			return log.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
				if _, err := tx.Exec(`INSERT INTO contacts (id) VALUES ($1)`, i); err != nil {
					return err
				}
				if err := record(journaltest.Event(i)); err != nil {
					return err
				}
				return end
			})
		}
		require.NoError(t, change(1, nil))
		no := errors.New("no")
		require.ErrorIs(t, change(2, no), no)
		require.NoError(t, log.InTx(t.Context(), db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
			return record(journaltest.Event(1)) // again
		}))

		// A record that failed takes the change with it, even if fn goes on.
		err = log.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
			if _, err := tx.Exec(`INSERT INTO contacts (id) VALUES (3)`); err != nil {
				return err
			}
			_ = record(crmguard.Event{})
			return nil
		})
		require.Error(t, err)
		require.Panics(t, func() {
			_ = log.InTx(t.Context(), db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
				require.NoError(t, record(journaltest.Event(4)))
				panic("the host's bug")
			})
		})

		require.Eventually(t, func() bool { return len(events(t, store)) == 1 }, time.Minute, 5*time.Millisecond, "chained moments later")
		require.NoError(t, log.Close())
		require.Equal(t, map[string]int{"event-1": 1}, events(t, store), "what was rolled back left no entry, and nothing is there twice")
		require.Equal(t, 1, count(t, db, "contacts"))
		require.Zero(t, count(t, db, "crmguard_audit_inbox"))
		r := verify(t, store, verifier)
		require.True(t, r.OK(), r.Detail)
		require.ErrorIs(t, change(9, nil), audit.ErrClosed)
	})
}

func TestRecordTx(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		store := newStore(t, db)
		for i, commit := range []bool{true, false, true} {
			tx, err := db.Begin()
			require.NoError(t, err)
			settle, err := log.RecordTx(t.Context(), tx, journaltest.Event(i))
			require.NoError(t, err)
			if !commit {
				require.NoError(t, tx.Rollback())
			} else {
				require.NoError(t, tx.Commit())
			}
			if i != 2 { // the host forgot: it is chained all the same
				settle(commit)
			}
		}
		require.Eventually(t, func() bool { return len(events(t, store)) == 2 }, time.Minute, 5*time.Millisecond)
		require.Equal(t, map[string]int{"event-0": 1, "event-2": 1}, events(t, store))
	})
}

// What a crashed process left in the inbox is chained by the next one.
func TestInboxOfACrashedProcess(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		store := newStore(t, db)
		first := openLog(t, db, signer, verifier)
		require.NoError(t, first.Record(t.Context(), journaltest.Event(0)))
		waiting := bodiesOf(t, store, 400)
		require.NoError(t, first.Close())
		tx, err := db.Begin()
		require.NoError(t, err)
		for _, w := range waiting {
			require.NoError(t, store.Put(t.Context(), tx, w))
		}
		garbled := waiting[0]
		garbled.Event, garbled.Body = "garbled", []byte("nonsense")
		require.NoError(t, store.Put(t.Context(), tx, garbled))
		require.NoError(t, tx.Commit())

		var logs []*audit.Log
		for range 3 { // three sequencers at once
			logs = append(logs, openLog(t, db, signer, verifier))
		}
		require.Eventually(t, func() bool { return count(t, db, "crmguard_audit_inbox") == 1 }, time.Minute, 5*time.Millisecond)
		var errs error
		for _, l := range logs {
			errs = errors.Join(errs, l.Close())
		}
		require.ErrorContains(t, errs, "inbox", "what cannot be read is not dropped silently")
		all := events(t, store)
		require.Len(t, all, 400, "event-0 was there already")
		for id, n := range all {
			require.Equal(t, 1, n, id)
		}
		require.True(t, verify(t, store, verifier).OK())
	})
}

// bodies returns entries as RecordTx puts them into the inbox.
func bodies(t *testing.T, n int) []audit.Waiting {
	t.Helper()
	return bodiesOf(t, audit.NewMemory(), n)
}

// bodiesOf are of the log that store keeps.
func bodiesOf(t *testing.T, store audit.Store, n int) []audit.Waiting {
	t.Helper()
	head, err := store.Head(t.Context())
	require.NoError(t, err)
	c := &capture{Memory: audit.NewMemory(), log: head.Log}
	signer, verifier := journaltest.Signer(t)
	log, err := audit.New(t.Context(), c, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	for i := range n {
		_, err = log.RecordTx(t.Context(), nil, journaltest.Event(i))
		require.NoError(t, err)
	}
	require.NoError(t, log.Close())
	return c.put
}

type capture struct {
	*audit.Memory
	log [16]byte
	put []audit.Waiting
}

func (c *capture) Head(context.Context) (audit.Head, error) { return audit.Head{Log: c.log}, nil }

func (c *capture) Put(_ context.Context, _ audit.Tx, w audit.Waiting) error {
	c.put = append(c.put, w)
	return nil
}
func (c *capture) Waiting(context.Context, int, int) ([]audit.Waiting, error) { return nil, nil }

// Several processes on one database make one chain, whatever way the entries come.
func TestManyLogsOneChain(t *testing.T) {
	const logs, writers, each = 4, 10, 15
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		var wg sync.WaitGroup
		var open []*audit.Log
		for n := range logs {
			log := openLog(t, db, signer, verifier)
			open = append(open, log)
			for w := range writers {
				wg.Go(func() {
					for i := range each {
						e := journaltest.Event(i)
						e.ID = fmt.Sprintf("%d-%d-%d", n, w, i)
						if w == 0 && i%5 == 0 {
							e.ID = fmt.Sprintf("same-%d", i) // all logs record it
						}
						require.NoError(t, log.Record(t.Context(), e))
					}
				})
			}
			wg.Go(func() {
				for i := range 20 {
					require.NoError(t, log.InTx(t.Context(), db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
						e := journaltest.Event(i)
						e.ID = fmt.Sprintf("tx-%d-%d", n, i)
						return record(e)
					}))
				}
			})
		}
		wg.Wait()
		for _, l := range open {
			require.NoError(t, l.Close())
		}
		store := newStore(t, db)
		r := verify(t, store, verifier)
		require.True(t, r.OK(), r.Detail)
		require.EqualValues(t, logs*writers*each-3*3+logs*20, r.Entries)
		for id, n := range events(t, store) {
			require.Equal(t, 1, n, id)
		}
	})
}

// Entries are gathered while transactions go on, but never for as long as one takes.
func TestOpenTransactionsHoldNoOthersUp(t *testing.T) {
	db := sqldbtest.Postgres(t)
	signer, verifier := journaltest.Signer(t)
	log := openLog(t, db, signer, verifier)
	recordIn := func(e crmguard.Event, before func()) error {
		return log.InTx(t.Context(), db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
			err := record(e)
			before()
			return err
		})
	}
	store := newStore(t, db)
	chained := func() int { return events(t, store)["event-1"] }
	require.NoError(t, recordIn(journaltest.Event(0), func() {
		require.NoError(t, recordIn(journaltest.Event(1), func() {}))
		require.Eventually(t, func() bool { return chained() == 1 }, time.Minute, 10*time.Millisecond)
	}))
	require.NoError(t, log.Close())
	require.True(t, verify(t, store, verifier).OK())
}

// Two logs in one database have nothing to do with each other.
func TestNamedLogs(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		for i, name := range []string{"", "second"} {
			s, err := auditsql.New(t.Context(), db, &auditsql.Options{Log: name, TablePrefix: "acme_"})
			require.NoError(t, err)
			log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
			require.NoError(t, err)
			for range i + 1 {
				e := journaltest.Event(1)
				e.ID = ""
				require.NoError(t, log.Record(t.Context(), e))
			}
			require.NoError(t, log.InTx(t.Context(), db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
				return record(journaltest.Event(7))
			}))
			require.NoError(t, log.Close())
			r := verify(t, s, verifier)
			require.True(t, r.OK())
			require.EqualValues(t, i+2, r.Entries)
		}
		// The rows and checkpoints of one log in place of the other's.
		for _, statement := range []string{
			`DELETE FROM acme_audit_entries WHERE log = 'main'`, `DELETE FROM acme_audit_checkpoints WHERE log = 'main'`, `DELETE FROM acme_audit_clients WHERE log = 'main'`,
			`UPDATE acme_audit_entries SET log = 'main'`, `UPDATE acme_audit_checkpoints SET log = 'main'`, `UPDATE acme_audit_clients SET log = 'main'`,
		} {
			_, err := db.Exec(statement)
			require.NoError(t, err)
		}
		s, err := auditsql.New(t.Context(), db, &auditsql.Options{TablePrefix: "acme_"})
		require.NoError(t, err)
		require.False(t, verify(t, s, verifier).OK())
	})
}

// A transaction that reads first writes later, whoever wrote meanwhile; and what
// would wait for it fails at once.
func TestInTxReadsFirst(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		_, err := db.Exec(`CREATE TABLE contacts (id BIGINT PRIMARY KEY)`)
		require.NoError(t, err)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				require.NoError(t, log.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
					require.ErrorIs(t, log.Record(ctx, journaltest.Event(100+i)), audit.ErrOpenTx)
					require.ErrorIs(t, log.InTx(ctx, db, nil), audit.ErrOpenTx)
					var n int
					if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM contacts`).Scan(&n); err != nil {
						return err
					}
					if _, err := tx.ExecContext(ctx, `INSERT INTO contacts (id) VALUES ($1)`, i); err != nil {
						return err
					}
					return record(journaltest.Event(i))
				}))
			})
		}
		wg.Wait()
		require.Equal(t, 20, count(t, db, "contacts"))
	})
}
