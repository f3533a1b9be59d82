package encryptsql_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) {
	processtest.Main(map[string]processtest.Task{
		"die":           dieWithAKey,
		"turn and die":  turnAndDie,
		"reencrypt":     jobThenDie(reencryptUntilKilled),
		"migrate":       jobThenDie(migrateUntilKilled),
		"seal":          onNode(sealMany),
		"erase":         onNode(eraseAndSeal),
		"lease":         onStore(lease),
		"close":         onStore(advanceTo(encrypt.Closing)),
		"destroy":       onStore(advanceTo(encrypt.Destroyed)),
		"make or close": onStore(makeOrClose),
	})
	os.Exit(m.Run())
}

// The client that all processes want something of.
var (
	client = encrypt.Scope{Tenant: "acme", Purpose: encrypt.DataKey, Name: "c1"}
	at     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func openStore(ctx context.Context, database string) (*sql.DB, *encryptsql.Store, error) {
	db, err := processtest.Open(ctx, database)
	if err != nil {
		return nil, nil, err
	}
	store, err := encryptsql.New(ctx, db, nil)
	return db, store, err
}

// onStore lets processes race on a store; the second argument may make it a faulty
// one.
func onStore[T any](try func(ctx context.Context, s encrypt.Store, n int) (T, error)) processtest.Task {
	return processtest.Racer(func(ctx context.Context, p *processtest.Process) (func(int) (T, error), error) {
		db, store, err := openStore(ctx, p.Args[0])
		if err != nil {
			return nil, err
		}
		p.AtEnd(db.Close)
		s, err := maybeFaulty(ctx, p.Args[1], store, db)
		return func(n int) (T, error) { return try(ctx, s, n) }, err
	})
}

// onNode lets processes race that have a keyring each, under a KEK in a file.
func onNode[T any](try func(ctx context.Context, k *encrypt.Keyring) (T, error)) processtest.Task {
	return processtest.Racer(func(ctx context.Context, p *processtest.Process) (func(int) (T, error), error) {
		db, store, err := openStore(ctx, p.Args[0])
		if err != nil {
			return nil, err
		}
		p.AtEnd(db.Close)
		s, err := maybeFaulty(ctx, p.Args[1], store, db)
		if err != nil {
			return nil, err
		}
		kek, err := encrypt.OpenKeyFile(p.Args[2], "", false)
		if err != nil {
			return nil, err
		}
		k, err := encrypt.New(kek, s, nil)
		if err != nil {
			return nil, err
		}
		p.AtEnd(k.Close)
		ctx = crmguard.System(ctx, "acme", "test")
		return func(int) (T, error) { return try(ctx, k) }, nil
	})
}

const faulty = "faulty"

func maybeFaulty(ctx context.Context, which string, s encrypt.Store, db *sql.DB) (encrypt.Store, error) {
	if which != faulty {
		return s, nil
	}
	known, err := s.Load(ctx, []encrypt.Scope{client})
	return &looksFirst{s, db, known}, err
}

// looksFirst is a planted fault: it decides by what it saw of the client before
// anybody acted.
type looksFirst struct {
	encrypt.Store
	db    *sql.DB
	known []encrypt.Record
}

func (s *looksFirst) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	found, err := s.Store.Load(ctx, slices.DeleteFunc(slices.Clone(scopes), func(s encrypt.Scope) bool { return s == client }))
	if slices.Contains(scopes, client) {
		found = append(found, s.known...)
	}
	return found, err
}

// Insert has the first key be whichever is given, and adds others after the client
// was closed.
func (s *looksFirst) Insert(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	if records[0].Scope != client || records[0].Version == 1 {
		_, err := s.Store.Insert(ctx, records)
		return records, err
	}
	for {
		now, err := s.Store.Load(ctx, []encrypt.Scope{client})
		if err != nil {
			return nil, err
		}
		if now[0].State != encrypt.Active {
			break
		}
		time.Sleep(time.Millisecond)
	}
	_, err := s.db.ExecContext(ctx, `INSERT INTO crmguard_keys (tenant, name, version, state, wrapped, messages, created_at, closed_at, destroyed_at)
		VALUES ('acme', 'd:c1', $1, 1, $2, 0, 0, 0, 0) ON CONFLICT DO NOTHING`, records[0].Version, records[0].Wrapped)
	return records, err
}

func (s *looksFirst) Lease(ctx context.Context, keys []encrypt.Record, n uint64) ([]encrypt.Record, error) {
	_, err := s.Store.Lease(ctx, keys, n)
	leased := slices.Clone(s.known)
	leased[0].Messages += n
	return leased, err
}

func (s *looksFirst) Advance(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error) {
	r, err := s.Store.Advance(ctx, scope, to, at)
	if to == encrypt.Closing {
		r.ClosedAt = at
	} else {
		r.DestroyedAt = at
	}
	return r, err
}

func lease(ctx context.Context, s encrypt.Store, _ int) (uint64, error) {
	leased, err := s.Lease(ctx, []encrypt.Record{{Scope: client, Version: 1}}, 10)
	if err != nil || len(leased) != 1 {
		return 0, errors.Join(err, errors.New("want one lease"))
	}
	return leased[0].Messages, nil
}

// Of what processes reserve, nothing overlaps.
func TestProcessesLeaseMessages(t *testing.T) {
	totals := func(t *testing.T, database, which string) []uint64 {
		t.Helper()
		_, store := open(t, database)
		insertClient(t, store)
		totals := processtest.Race[uint64](t, "lease", database, which)
		slices.Sort(totals)
		return slices.Compact(totals)
	}
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		got := totals(t, database, "")
		require.Len(t, got, processtest.Racers)
		require.EqualValues(t, 10*processtest.Racers, got[len(got)-1])
	})
	t.Run("planted fault", func(t *testing.T) { require.Len(t, totals(t, sqldbtest.PostgresURL(t), faulty), 1) })
}

func open(t *testing.T, database string) (*sql.DB, *encryptsql.Store) {
	t.Helper()
	db, store, err := openStore(t.Context(), database)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db, store
}

func insertClient(t *testing.T, store encrypt.Store) {
	t.Helper()
	_, err := store.Insert(t.Context(), []encrypt.Record{{Scope: client, Version: 1, State: encrypt.Active, Wrapped: []byte("one"), CreatedAt: at}})
	require.NoError(t, err)
}

// perTry makes processes seal more than one lease of messages together.
const perTry = 50

func sealMany(ctx context.Context, k *encrypt.Keyring) (sealed []byte, err error) {
	for range perTry {
		if sealed, err = k.Seal(ctx, place(1), []byte("x")); err != nil {
			return nil, err
		}
	}
	return sealed, nil
}

// Processes that all need the first key of a client, and of its tenant, come to use
// the same one, and reserve at least as many messages as they seal.
func TestProcessesMakeOneKey(t *testing.T) {
	readable := func(t *testing.T, database, which string) int {
		t.Helper()
		db, store := open(t, database)
		k, kekFile := openKeyring(t, store)
		n := 0
		for _, sealed := range processtest.Race[[]byte](t, "seal", database, which, kekFile) {
			if _, err := k.Open(crmguard.System(t.Context(), "acme", "test"), place(1), sealed); err == nil {
				n++
			}
		}
		var keysets, keys, messages int
		require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM crmguard_keys WHERE name = 't:'`).Scan(&keysets))
		require.NoError(t, db.QueryRow(`SELECT COUNT(*), MAX(messages) FROM crmguard_keys WHERE name = 'd:c1'`).Scan(&keys, &messages))
		require.Equal(t, [2]int{1, 1}, [2]int{keysets, keys})
		if which != faulty {
			require.GreaterOrEqual(t, messages, perTry*processtest.Racers)
		}
		return n
	}
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		require.Equal(t, processtest.Racers, readable(t, database, ""))
	})
	t.Run("planted fault", func(t *testing.T) {
		require.LessOrEqual(t, readable(t, sqldbtest.PostgresURL(t), faulty), processtest.PerProcess, "one process has the key that is stored")
	})
}

func openKeyring(t *testing.T, store encrypt.Store) (k *encrypt.Keyring, kekFile string) {
	t.Helper()
	kekFile = filepath.Join(t.TempDir(), "kek.json")
	kek, err := encrypt.OpenKeyFile(kekFile, "", true)
	require.NoError(t, err)
	k, err = encrypt.New(kek, store, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, k.Close()) })
	return k, kekFile
}

func advanceTo(to encrypt.State) func(ctx context.Context, s encrypt.Store, n int) (time.Time, error) {
	return func(ctx context.Context, s encrypt.Store, n int) (time.Time, error) {
		r, err := s.Advance(ctx, client, to, at.Add(time.Duration(n+1)*time.Second))
		if to == encrypt.Closing {
			return r.ClosedAt, err
		}
		if errors.Is(err, encryptsql.ErrNotGoneYet) { // the others are in the way
			err = nil
		}
		return r.DestroyedAt, err
	}
}

// Whoever closes or destroys a client hears of one time, the first one's.
func TestProcessesEraseOnce(t *testing.T) {
	times := func(t *testing.T, database, task, which string) []time.Time {
		t.Helper()
		_, store := open(t, database)
		insertClient(t, store)
		if task == "destroy" {
			_, err := store.Advance(t.Context(), client, encrypt.Closing, at)
			require.NoError(t, err)
		}
		told := processtest.Race[time.Time](t, task, database, which)
		told = slices.DeleteFunc(told, time.Time.IsZero)
		slices.SortFunc(told, time.Time.Compare)
		return slices.Compact(told)
	}
	for _, task := range []string{"close", "destroy"} {
		t.Run(task, func(t *testing.T) {
			processtest.EachDatabase(t, func(t *testing.T, database string) {
				told := times(t, database, task, "")
				_, store := open(t, database)
				r, err := store.Advance(t.Context(), client, encrypt.Destroyed, at)
				require.NoError(t, err, "nobody is in the way now")
				if task == "close" {
					require.Equal(t, []time.Time{r.ClosedAt}, told)
				} else {
					require.Subset(t, []time.Time{r.DestroyedAt}, told)
				}
				records, err := store.Load(t.Context(), []encrypt.Scope{client})
				require.NoError(t, err)
				require.Empty(t, records[0].Wrapped)
			})
		})
		t.Run(task+", planted fault", func(t *testing.T) {
			require.Len(t, times(t, sqldbtest.PostgresURL(t), task, faulty), processtest.Racers)
		})
	}
}

// eraseAndSeal also shows that whoever has erased a client seals nothing more.
func eraseAndSeal(ctx context.Context, k *encrypt.Keyring) (encrypt.Receipt, error) {
	receipt, err := k.Erase(ctx, "acme", "c1")
	if err != nil {
		return receipt, err
	}
	if _, err := k.Seal(ctx, place(1), []byte("x")); !errors.Is(err, crmguard.ErrErased) {
		return receipt, errors.Join(errors.New("sealed after Erase"), err)
	}
	return receipt, nil
}

func TestProcessesGetOneReceipt(t *testing.T) {
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		_, store := open(t, database)
		k, kekFile := openKeyring(t, store)
		ctx := crmguard.System(t.Context(), "acme", "test")
		_, err := k.Seal(ctx, place(1), []byte("x"))
		require.NoError(t, err)
		receipts := processtest.Race[encrypt.Receipt](t, "erase", database, "", kekFile)
		for _, r := range receipts {
			require.Equal(t, receipts[0], r)
		}
		require.Equal(t, "closing", receipts[0].State)
		want, err := k.Receipt(ctx, "acme", "c1")
		require.NoError(t, err)
		require.Equal(t, want, receipts[0])
	})
}

func makeOrClose(ctx context.Context, s encrypt.Store, n int) (any, error) {
	if n == processtest.Racers/2 {
		return s.Advance(ctx, client, encrypt.Closing, at)
	}
	return s.Insert(ctx, []encrypt.Record{{Scope: client, Version: 2, State: encrypt.Active, Wrapped: []byte("two"), CreatedAt: at}})
}

// A key that one process makes while another closes the client closes with it, or is
// not made.
func TestProcessesCloseEveryVersion(t *testing.T) {
	states := func(t *testing.T, database, which string) (states []encrypt.State) {
		t.Helper()
		_, store := open(t, database)
		insertClient(t, store)
		processtest.Race[any](t, "make or close", database, which)
		records, err := store.Load(t.Context(), []encrypt.Scope{client})
		require.NoError(t, err)
		for _, r := range records {
			states = append(states, r.State)
		}
		return states
	}
	processtest.EachDatabase(t, func(t *testing.T, database string) { require.NotContains(t, states(t, database, ""), encrypt.Active) })
	t.Run("planted fault", func(t *testing.T) {
		require.Contains(t, states(t, sqldbtest.PostgresURL(t), faulty), encrypt.Active)
	})
}
