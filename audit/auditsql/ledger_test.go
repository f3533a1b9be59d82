package auditsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// late is a clock that tests put forward, for bounds of a minute and more.
type late struct{ by atomic.Int64 }

func (l *late) add(d time.Duration) { l.by.Add(int64(d)) }

func (l *late) options() *audit.Options {
	return &audit.Options{Clock: func() time.Time { return time.Now().Add(time.Duration(l.by.Load())) }}
}

// openInbox is a process that chains nothing.
func openInbox(t *testing.T, db *sql.DB) *audit.Log {
	t.Helper()
	app, _ := openCounted(t, db)
	return app
}

// openCounted is the same, and the store that it has.
func openCounted(t *testing.T, db *sql.DB) (*audit.Log, *counted) {
	t.Helper()
	store := &counted{Store: newStore(t, db)}
	app, err := audit.OpenInbox(t.Context(), store, journaltest.NewSealer(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = app.Close() })
	return app, store
}

// counted is a store that counts the heartbeats that it has kept.
type counted struct {
	*auditsql.Store
	beats atomic.Int64
}

func (c *counted) Beat(ctx context.Context, b audit.Beat) error {
	err := c.Store.Beat(ctx, b)
	if err == nil {
		c.beats.Add(1)
	}
	return err
}

func openLate(t *testing.T, db *sql.DB, signer note.Signer, verifier note.Verifier) (*audit.Log, *late) {
	t.Helper()
	clock := &late{}
	log, err := audit.New(t.Context(), newStore(t, db), journaltest.NewSealer(), signer, verifier, clock.options())
	require.NoError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	return log, clock
}

// told returns what the log says about its inbox, the newest first.
func told(t *testing.T, log *audit.Log, verifier note.Verifier, action crmguard.Action) []crmguard.Event {
	t.Helper()
	r, err := log.Verify(t.Context(), verifier, nil) // for the id
	require.NoError(t, err)
	page, err := log.Find(t.Context(), audit.Query{Tenant: "audit:" + r.Log, Action: action})
	require.NoError(t, err)
	var list []crmguard.Event
	for _, e := range page.Entries {
		list = append(list, e.Event)
	}
	return list
}

const (
	nothing = `DELETE FROM crmguard_audit_inbox WHERE 1 = 0`
	remove2 = `DELETE FROM crmguard_audit_inbox WHERE event = 'event-2'`
)

// commit records an event in a transaction, at the end of which somebody does
// something else.
func commit(t *testing.T, log *audit.Log, db *sql.DB, i int, also string) {
	t.Helper()
	require.NoError(t, log.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
		if err := record(journaltest.Event(i)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, also)
		return err
	}))
}

func has(db *sql.DB, query string) func() bool {
	return func() bool {
		var n int
		return db.QueryRow(query).Scan(&n) == nil && n > 0
	}
}

// An entry that was removed before it was chained is told of, once; one whose
// transaction was rolled back is not.
func TestRemovedFromInbox(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		second := openLog(t, db, signer, verifier) // chains, too
		commit(t, log, db, 0, nothing)
		no := errors.New("no")
		require.ErrorIs(t, log.InTx(t.Context(), db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
			require.NoError(t, record(journaltest.Event(1)))
			return no
		}), no)
		commit(t, log, db, 2, remove2)
		commit(t, log, db, 3, nothing)
		commit(t, log, db, 3, nothing) // again
		require.Eventually(t, func() bool { return len(told(t, log, verifier, audit.ActMissing)) > 0 }, time.Minute, 50*time.Millisecond)
		require.NoError(t, second.Close())
		missing := told(t, log, verifier, audit.ActMissing)
		require.Len(t, missing, 1)
		require.Equal(t, "numbers=2", missing[0].Fields[1])
		require.Equal(t, 1, missing[0].Count)
		require.Empty(t, told(t, log, verifier, audit.ActInDoubt))
		require.NoError(t, log.Close())
		r := verify(t, newStore(t, db), verifier)
		require.True(t, r.OK(), r.Detail)
		require.EqualValues(t, 1, r.Missing)
		require.Contains(t, r.Detail, "1 entries were removed before")
	})
}

// Whoever writes the database removes, forges, changes or puts back what nodes say.
func TestHeartbeats(t *testing.T) {
	const copied = `CREATE TABLE copied AS SELECT * FROM crmguard_audit_beats`
	for name, attack := range map[string]struct {
		before, during []string // before a sequencer runs; after it took in what there was
		want           string   // what is told
	}{
		"nothing":      {},
		"removed":      {before: []string{`DELETE FROM crmguard_audit_beats WHERE beat = 1`}, want: "heartbeats 1 to 1 were removed"},
		"changed":      {before: []string{`UPDATE crmguard_audit_beats SET body = 'nonsense' WHERE beat = 1`}, want: "heartbeats 1 to 1 were removed"},
		"renamed":      {before: []string{`UPDATE crmguard_audit_beats SET node = '00112233445566778899aabbccddeeff' WHERE beat = 1`}, want: "heartbeats 1 to 1 were removed"},
		"renumbered":   {before: []string{`UPDATE crmguard_audit_beats SET beat = 99 WHERE beat = 1`}, want: "heartbeats 1 to 1 were removed"},
		"forged":       {before: []string{`INSERT INTO crmguard_audit_beats (log, node, beat, body) VALUES ('main', '00112233445566778899aabbccddeeff', 1, 'nonsense')`}},
		"put back":     {before: []string{copied}, during: []string{`INSERT INTO crmguard_audit_beats SELECT * FROM copied`}},
		"account gone": {during: []string{`DELETE FROM crmguard_audit_account`}, want: "the account of the inbox was removed"},
		"account new":  {during: []string{`UPDATE crmguard_audit_account SET body = 'nonsense', version = version + 1`}, want: "the account of the inbox was changed"},
		"account odd":  {during: []string{`UPDATE crmguard_audit_account SET body = 'nonsense', version = -7`}, want: "the account of the inbox was changed"},
	} {
		t.Run(name, func(t *testing.T) {
			sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
				signer, verifier := journaltest.Signer(t)
				do := func(statements []string) {
					for _, s := range statements {
						_, err := db.Exec(s)
						require.NoError(t, err)
					}
				}
				app := openInbox(t, db)
				for i := range 2 {
					require.NoError(t, app.Record(t.Context(), journaltest.Event(i)))
					require.Eventually(t, has(db, `SELECT COUNT(*) - `+[]string{"0", "1"}[i]+` FROM crmguard_audit_beats`), time.Minute, 5*time.Millisecond)
				}
				do(attack.before)
				log, _ := openLate(t, db, signer, verifier)
				heard := func() bool {
					return has(db, `SELECT COUNT(*) FROM crmguard_audit_account`)() && !has(db, `SELECT COUNT(*) FROM crmguard_audit_beats`)() && !has(db, `SELECT COUNT(*) FROM crmguard_audit_inbox`)()
				}
				require.Eventually(t, heard, time.Minute, 5*time.Millisecond)
				do(attack.during)
				require.NoError(t, app.Record(t.Context(), journaltest.Event(2)))
				require.Eventually(t, func() bool { return events(t, newStore(t, db))["event-2"] == 1 }, time.Minute, 5*time.Millisecond)
				var all []string
				require.Eventually(t, func() bool {
					all = all[:0]
					for _, e := range told(t, log, verifier, audit.ActMissing) {
						all = append(all, e.Reason)
					}
					return attack.want == "" || strings.Contains(strings.Join(all, "\n"), attack.want)
				}, time.Minute, 50*time.Millisecond, "%v", all)
				require.NoError(t, app.Close())
				require.NoError(t, log.Close())
				if attack.want == "" {
					require.Zero(t, verify(t, newStore(t, db), verifier).Missing)
				}
			})
		})
	}
}

// Eight processes commit, roll back and crash at random, and somebody removes some
// entries: those are told of, and no others.
func TestRandomNodes(t *testing.T) {
	const nodes, each = 8, 40
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		signer, verifier := journaltest.Signer(t)
		connect := func() *sql.DB {
			db, err := processtest.Open(t.Context(), database)
			require.NoError(t, err)
			t.Cleanup(func() { _ = db.Close() })
			return db
		}
		db := connect()
		log, clock := openLate(t, db, signer, verifier)
		second, _ := openLate(t, connect(), signer, verifier)
		var mu sync.Mutex
		want, removed, doubtful := map[string]int{}, 0, 0
		var wg sync.WaitGroup
		for n := range nodes {
			own := connect()
			app, store := log, (*counted)(nil)
			if n%4 != 0 { // the others chain, too
				app, store = openCounted(t, own)
			} else if n == 4 {
				app = second
			}
			crashes := n == 5 || n == 6
			wg.Go(func() {
				for i := range each {
					e := journaltest.Event(i)
					e.ID = fmt.Sprintf("%d-%d", n, i)
					tx, err := own.BeginTx(t.Context(), nil)
					if !assert.NoError(t, err) {
						return
					}
					_, err = tx.Exec(nothing)
					assert.NoError(t, err)
					settle, err := app.RecordTx(t.Context(), tx, e)
					if !assert.NoError(t, err) {
						return
					}
					switch dice := rand.IntN(10); {
					case crashes && i == each-1: // it never learns what became of it
						assert.NoError(t, tx.Rollback())
						mu.Lock()
						doubtful++
						mu.Unlock()
					case dice < 3:
						assert.NoError(t, tx.Rollback())
						settle(false)
					case dice == 3:
						_, err = tx.Exec(`DELETE FROM crmguard_audit_inbox WHERE event = $1`, e.ID)
						assert.NoError(t, err)
						assert.NoError(t, tx.Commit())
						settle(true)
						mu.Lock()
						removed++
						mu.Unlock()
					default:
						assert.NoError(t, tx.Commit())
						settle(true)
						mu.Lock()
						want[e.ID] = 1
						mu.Unlock()
					}
				}
				if crashes { // once what it knows is told, it is gone
					last := store.beats.Load() + 1 // may have begun before
					assert.Eventually(t, func() bool { return store.beats.Load() > last }, time.Minute, 5*time.Millisecond)
					_ = own.Close()
				}
			})
		}
		wg.Wait()
		require.NoError(t, second.Close())
		sum := func(action crmguard.Action) (n int) {
			for _, e := range told(t, log, verifier, action) {
				n += e.Count
			}
			return n
		}
		require.Eventually(t, func() bool { clock.add(time.Second); return sum(audit.ActMissing) >= removed }, time.Minute, 50*time.Millisecond)
		clock.add(2 * time.Minute)
		require.Eventually(t, func() bool { clock.add(time.Second); return sum(audit.ActInDoubt) >= doubtful }, time.Minute, 50*time.Millisecond)
		time.Sleep(time.Second)
		require.Equal(t, removed, sum(audit.ActMissing))
		require.Equal(t, doubtful, sum(audit.ActInDoubt))
		require.NoError(t, log.Close())
		there := events(t, newStore(t, db))
		maps.DeleteFunc(there, func(id string, _ int) bool { return len(id) > 5 })
		require.Equal(t, want, there)
		r := verify(t, newStore(t, db), verifier)
		require.True(t, r.OK(), r.Detail)
		require.EqualValues(t, removed, r.Missing)
	})
}

// A process that ends while transactions are open leaves a doubt, which is told once.
func TestInDoubt(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		app := openInbox(t, db)
		require.NoError(t, app.Record(t.Context(), journaltest.Event(0)))
		tx, err := db.Begin()
		require.NoError(t, err)
		_, err = app.RecordTx(t.Context(), tx, journaltest.Event(1))
		require.NoError(t, err)
		require.NoError(t, tx.Rollback())
		require.NoError(t, app.Close())
		log, clock := openLate(t, db, signer, verifier)
		require.Eventually(t, func() bool { clock.add(time.Second); return len(told(t, log, verifier, audit.ActInDoubt)) > 0 }, time.Minute, 50*time.Millisecond)
		for range 20 {
			clock.add(time.Minute)
			time.Sleep(50 * time.Millisecond)
		}
		doubts := told(t, log, verifier, audit.ActInDoubt)
		require.Len(t, doubts, 1)
		require.Equal(t, "numbers=1", doubts[0].Fields[1])
		require.Empty(t, told(t, log, verifier, audit.ActMissing))
		require.NoError(t, log.Close())
		require.EqualValues(t, 1, verify(t, newStore(t, db), verifier).InDoubt)
	})
}
