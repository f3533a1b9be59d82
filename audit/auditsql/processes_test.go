package auditsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) {
	processtest.Main(map[string]processtest.Task{
		"record forever": recordForever,
		"record many":    recordMany,
		"record":         processtest.Racer(recorder),
		"append":         processtest.Racer(appender),
		"take":           processtest.Racer(taker),
	})
	goleak.VerifyTestMain(m)
}

// node is one process of the CRM with its journal; dir holds the key.
type node struct {
	db    *sql.DB
	store *auditsql.Store
	log   *audit.Log
}

func (n *node) Close() error { return errors.Join(n.log.Close(), n.db.Close()) }

func openNode(ctx context.Context, database, dir string, o *audit.Options) (*node, error) {
	db, err := processtest.Open(ctx, database)
	if err != nil {
		return nil, err
	}
	store, err := auditsql.New(ctx, db, nil)
	if err != nil {
		return nil, err
	}
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "key"), "crm.example/journal", true)
	if err != nil {
		return nil, err
	}
	log, err := audit.New(ctx, store, journaltest.NewSealer(), signer, verifier, o)
	return &node{db, store, log}, err
}

func recordForever(ctx context.Context, p *processtest.Process) error {
	n, err := openNode(ctx, p.Args[0], p.Args[1], &audit.Options{CheckpointEvery: 3 * time.Millisecond})
	if err != nil {
		return err
	}
	return journaltest.RecordForever(ctx, n.log)
}

// A process is killed again and again: what it was told is there, once.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	database := filepath.Join(dir, "crm.db")
	acknowledged := processtest.Kill(t, 60*time.Millisecond, "record forever", database, dir)
	n := openHere(t, database, dir)
	all := events(t, n.store)
	for _, id := range acknowledged {
		require.Equal(t, 1, all[id], id)
	}
	n.requireOK(t, dir)
	t.Logf("%d acknowledged, %d there", len(acknowledged), len(all))
}

func openHere(t *testing.T, database, dir string) *node {
	t.Helper()
	n, err := openNode(t.Context(), database, dir, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

func (n *node) requireOK(t *testing.T, dir string) {
	t.Helper()
	_, verifier, err := audit.OpenSigner(filepath.Join(dir, "key"), "crm.example/journal", false)
	require.NoError(t, err)
	r := verify(t, n.store, verifier)
	require.True(t, r.OK(), r.Detail)
}

// recorder records an event of its own, one in a transaction, and one that all
// processes record.
func recorder(ctx context.Context, p *processtest.Process) (func(int) (any, error), error) {
	n, err := openNode(ctx, p.Args[0], p.Args[1], nil)
	if err != nil {
		return nil, err
	}
	p.AtEnd(n.Close)
	return func(number int) (any, error) {
		own, inTx := journaltest.Event(number), journaltest.Event(number)
		own.ID, inTx.ID = fmt.Sprint("own-", number), fmt.Sprint("in-tx-", number)
		shared := journaltest.Event(0)
		shared.ID = "shared"
		return nil, errors.Join(n.log.Record(ctx, own), n.log.Record(ctx, shared),
			n.log.InTx(ctx, n.db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error { return record(inTx) }))
	}, nil
}

// However many processes record into one log, it is one chain in which every event
// is there, and once.
func TestProcessesShareALog(t *testing.T) {
	want := map[string]int{"shared": 1}
	for number := range processtest.Racers {
		want[fmt.Sprint("own-", number)], want[fmt.Sprint("in-tx-", number)] = 1, 1
	}
	record := func(t *testing.T, database, unprotect string) (map[string]int, *node, string) {
		t.Helper()
		dir := t.TempDir()
		n := openHere(t, database, dir)
		_, err := n.db.ExecContext(t.Context(), unprotect)
		require.NoError(t, err)
		processtest.Race[any](t, "record", database, dir)
		return events(t, n.store), n, dir
	}
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		all, n, dir := record(t, database, "")
		require.Equal(t, want, all)
		n.requireOK(t, dir)
	})
	t.Run("planted fault", func(t *testing.T) {
		all, _, _ := record(t, sqldbtest.PostgresURL(t), `DROP INDEX crmguard_audit_once`)
		require.GreaterOrEqual(t, all["shared"], processtest.Processes, "the index is what keeps it from being there again")
	})
}

// openStore is a node without a log, which would chain what waits.
func openStore(ctx context.Context, p *processtest.Process) (*sql.DB, *auditsql.Store, error) {
	db, err := processtest.Open(ctx, p.Args[0])
	if err != nil {
		return nil, nil, err
	}
	p.AtEnd(db.Close)
	store, err := auditsql.New(ctx, db, nil)
	return db, store, err
}

// appender wants an event of its own to be the first entry.
func appender(ctx context.Context, p *processtest.Process) (func(int) (bool, error), error) {
	_, store, err := openStore(ctx, p)
	if err != nil {
		return nil, err
	}
	at, err := store.Head(ctx)
	if err != nil {
		return nil, err
	}
	signer, verifier, err := audit.OpenSigner(filepath.Join(p.Args[1], "key"), "crm.example/journal", false)
	if err != nil {
		return nil, err
	}
	memory := audit.NewMemory()
	log, err := audit.New(ctx, memory, journaltest.NewSealer(), signer, verifier, nil)
	if err != nil {
		return nil, err
	}
	p.AtEnd(log.Close)
	return func(number int) (bool, error) {
		e := journaltest.Event(number)
		if err := log.Record(ctx, e); err != nil {
			return false, err
		}
		rows, err := memory.Find(ctx, audit.Query{Tenant: "acme", Subject: e.Subject.ID, Kind: e.Resource.Kind, Limit: processtest.PerProcess})
		if err != nil {
			return false, err
		}
		row := rows[slices.IndexFunc(rows, func(r audit.Row) bool { return r.Keys.Event == e.ID })]
		row.Seq, row.Hashes = 0, row.Hashes[:1]
		return unlessMoved(store.Append(ctx, audit.Batch{After: at, Rows: []audit.Row{row}}))
	}, nil
}

// taker wants to take one entry out of the inbox.
func taker(ctx context.Context, p *processtest.Process) (func(int) (bool, error), error) {
	db, store, err := openStore(ctx, p)
	if err != nil {
		return nil, err
	}
	at, err := store.Head(ctx)
	if err != nil {
		return nil, err
	}
	waiting, err := store.Waiting(ctx, 0, 10)
	if err != nil {
		return nil, err
	}
	return func(int) (bool, error) {
		if p.Args[1] == faulty { // it has seen the entry, and deletes what there is
			_, err := db.ExecContext(ctx, `DELETE FROM crmguard_audit_inbox`)
			return len(waiting) > 0, err
		}
		return unlessMoved(store.Append(ctx, audit.Batch{After: at, Taken: waiting}))
	}, nil
}

const faulty = "faulty"

func unlessMoved(err error) (bool, error) {
	if errors.Is(err, audit.ErrMoved) {
		return false, nil
	}
	return err == nil, err
}

func TestProcessesAppendAtOnePlace(t *testing.T) {
	winners := func(t *testing.T, database, unprotect string) int {
		t.Helper()
		dir := t.TempDir()
		_, err := openHere(t, database, dir).db.ExecContext(t.Context(), unprotect)
		require.NoError(t, err)
		return racetest.Count(processtest.Race[bool](t, "append", database, dir))
	}
	processtest.EachDatabase(t, func(t *testing.T, database string) { require.Equal(t, 1, winners(t, database, "")) })
	t.Run("planted fault", func(t *testing.T) {
		require.Equal(t, processtest.Racers, winners(t, sqldbtest.PostgresURL(t),
			`ALTER TABLE crmguard_audit_entries DROP CONSTRAINT crmguard_audit_entries_pkey`))
	})
}

func TestProcessesTakeAnEntryOnce(t *testing.T) {
	winners := func(t *testing.T, database, how string) int {
		t.Helper()
		db, err := processtest.Open(t.Context(), database)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		put(t, db, newStore(t, db), audit.Waiting{Tenant: "acme", Event: "a", Outcome: crmguard.Done, Body: []byte("x")})
		return racetest.Count(processtest.Race[bool](t, "take", database, how))
	}
	processtest.EachDatabase(t, func(t *testing.T, database string) { require.Equal(t, 1, winners(t, database, "")) })
	t.Run("planted fault", func(t *testing.T) {
		require.Equal(t, processtest.Racers, winners(t, sqldbtest.PostgresURL(t), faulty))
	})
}
