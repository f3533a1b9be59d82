package encryptsql_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/internal/uptime"
)

const clients = 60

func place(i int) crmguard.Place {
	return crmguard.Place{Tenant: "acme", Client: fmt.Sprint("c", i), Kind: "contacts", Record: fmt.Sprint("c", i), Field: "phone"}
}

func closeIt(t *testing.T, c io.Closer) {
	t.Helper()
	require.NoError(t, c.Close())
}

// keysOnDisk returns how many of the wrapped keys are found in the raw files of a
// database.
func keysOnDisk(t *testing.T, path string, wrapped map[string][]byte) int {
	t.Helper()
	n := 0
	for _, suffix := range []string{"", "-wal", "-shm"} {
		raw, err := os.ReadFile(path + suffix)
		if os.IsNotExist(err) {
			continue
		}
		require.NoError(t, err)
		for _, key := range wrapped {
			// Half a key would do, and pages may cut it.
			if bytes.Contains(raw, key[:len(key)/2]) || bytes.Contains(raw, key[len(key)/2:]) {
				n++
			}
		}
	}
	return n
}

// busyPool makes many connections write keys at once, so that pages split on all of
// them, and returns the wrapped keys of the clients with an even number.
func busyPool(t *testing.T, k *encrypt.Keyring, store encrypt.Store) map[string][]byte {
	t.Helper()
	ctx := crmguard.System(context.Background(), "acme", "test")
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			for i := g; i < clients; i += 6 {
				if _, err := k.Seal(ctx, place(i), []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wrapped := make(map[string][]byte)
	for i := 0; i < clients; i += 2 {
		records, err := store.Load(ctx, []encrypt.Scope{{Tenant: "acme", Purpose: encrypt.DataKey, Name: place(i).Client}})
		require.NoError(t, err)
		require.Len(t, records, 1)
		wrapped[place(i).Client] = records[0].Wrapped
	}
	return wrapped
}

func newKeyring(t *testing.T, store encrypt.Store, clock func() time.Time) *encrypt.Keyring {
	t.Helper()
	start := clock()
	t.Cleanup(uptime.Move(func() time.Duration { return clock().Sub(start) }))
	kek, err := encrypt.OpenKeyFile(filepath.Join(t.TempDir(), "kek.json"), "", true)
	require.NoError(t, err)
	k, err := encrypt.New(kek, store, &encrypt.Options{Clock: clock})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, k.Close()) })
	return k
}

// finishAll tries again, as hosts do, while a reader of the keyring's own, such as a poll, holds the
// write-ahead log.
func finishAll(t *testing.T, k *encrypt.Keyring) []encrypt.Receipt {
	t.Helper()
	var all []encrypt.Receipt
	for range 100 {
		finished, err := k.FinishErasures(crmguard.System(t.Context(), "acme", "test"))
		all = append(all, finished...)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, encryptsql.ErrNotGoneYet)
	}
	return all
}

// keysLeft erases half of the clients and returns how many of their keys are found
// on disk afterwards.
func keysLeft(t *testing.T, path string, store encrypt.Store) int {
	t.Helper()
	now := time.Now()
	k := newKeyring(t, store, func() time.Time { return now })
	wrapped := busyPool(t, k, store)
	require.NotZero(t, keysOnDisk(t, path, wrapped), "the check finds keys that are there")
	ctx := crmguard.System(context.Background(), "acme", "test")
	for name := range wrapped {
		_, err := k.Erase(ctx, "acme", name)
		require.NoError(t, err)
	}
	require.NotZero(t, keysOnDisk(t, path, wrapped))
	now = now.Add(encrypt.ClosingTime)
	require.Len(t, finishAll(t, k), len(wrapped))
	sealed, err := k.Seal(ctx, place(1), []byte("x"))
	require.NoError(t, err, "the other clients are still there")
	_, err = k.Open(ctx, place(1), sealed)
	require.NoError(t, err)
	return keysOnDisk(t, path, wrapped)
}

func TestDestroyedKeysAreGoneFromTheFiles(t *testing.T) {
	path := filepath.Join(sqldbtest.Dir(t), "keys.db")
	store, err := encryptsql.OpenSQLite(t.Context(), path, true)
	require.NoError(t, err)
	defer closeIt(t, store)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	require.Zero(t, keysLeft(t, path, store))
}

// The same play on a pool whose connections do not overwrite what they delete.
func TestTheCheckNoticesKeysThatStay(t *testing.T) {
	path := filepath.Join(sqldbtest.Dir(t), "keys.db")
	pool, err := sql.Open("sqlite", path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_pragma=secure_delete(OFF)")
	require.NoError(t, err)
	defer closeIt(t, pool)
	store, err := encryptsql.NewUnchecked(t.Context(), pool)
	require.NoError(t, err)
	require.NotZero(t, keysLeft(t, path, store))
}

// A reader that still sees the old pages keeps the key in the log: the receipt must
// not say destroyed.
func TestAReaderHoldsTheDestructionUp(t *testing.T) {
	path := filepath.Join(sqldbtest.Dir(t), "keys.db")
	store, err := encryptsql.OpenSQLite(t.Context(), path, true)
	require.NoError(t, err)
	defer closeIt(t, store)
	now := time.Now()
	k := newKeyring(t, store, func() time.Time { return now })
	wrapped := busyPool(t, k, store)
	for name := range wrapped {
		if name != "c0" {
			delete(wrapped, name)
		}
	}
	ctx := crmguard.System(context.Background(), "acme", "test")
	_, err = k.Erase(ctx, "acme", "c0")
	require.NoError(t, err)

	other, err := sqldb.OpenSQLite(ctx, path)
	require.NoError(t, err)
	defer closeIt(t, other)
	reader, err := other.Begin()
	require.NoError(t, err)
	var n int
	require.NoError(t, reader.QueryRow(`SELECT COUNT(*) FROM crmguard_keys`).Scan(&n))

	now = now.Add(encrypt.ClosingTime)
	finished, err := k.FinishErasures(ctx)
	require.ErrorIs(t, err, encryptsql.ErrNotGoneYet)
	require.Empty(t, finished)
	require.NotZero(t, keysOnDisk(t, path, wrapped))
	receipt, err := k.Erase(ctx, "acme", "c0")
	require.NoError(t, err)
	require.Equal(t, "closing", receipt.State)

	require.NoError(t, reader.Rollback())
	finished, err = k.FinishErasures(ctx)
	require.NoError(t, err)
	require.Len(t, finished, 1)
	require.Zero(t, keysOnDisk(t, path, wrapped))
}

func TestAPoolWithoutSecureDeleteIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	plain, err := sql.Open("sqlite", path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	defer closeIt(t, plain)
	_, err = encryptsql.New(t.Context(), plain, nil)
	require.ErrorContains(t, err, "secure_delete")

	_, err = plain.Exec(`PRAGMA secure_delete = ON`) // on one connection of the pool
	require.NoError(t, err)
	_, err = encryptsql.New(t.Context(), plain, nil)
	require.ErrorContains(t, err, "secure_delete")

	fast, err := sql.Open("sqlite", path+"?_pragma=journal_mode(WAL)&_pragma=secure_delete(FAST)")
	require.NoError(t, err)
	defer closeIt(t, fast)
	_, err = encryptsql.New(t.Context(), fast, nil)
	require.ErrorContains(t, err, "secure_delete", "fast leaves free pages as they are")

	careless, err := sql.Open("sqlite", path+"?_pragma=journal_mode(WAL)&_pragma=secure_delete(ON)&_pragma=synchronous(NORMAL)")
	require.NoError(t, err)
	defer closeIt(t, careless)
	_, err = encryptsql.New(t.Context(), careless, nil)
	require.ErrorContains(t, err, "synchronous", "a key lost in a power cut loses what it sealed")

	for _, pool := range []*sql.DB{plain, fast} {
		_, err = encryptsql.NewIndex(t.Context(), pool, nil)
		require.ErrorContains(t, err, "secure_delete", "index values of an erased client would stay")
	}

	one := sqldbtest.SQLite(t)
	one.SetMaxOpenConns(1)
	_, err = encryptsql.New(t.Context(), one, nil)
	require.NoError(t, err, "the probe fits into a small pool")
}

func TestTwoNodesMakeOneKey(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		kek, err := encrypt.OpenKeyFile(filepath.Join(t.TempDir(), "kek.json"), "", true)
		require.NoError(t, err)
		ctx := crmguard.System(context.Background(), "acme", "test")
		nodes := make([]*encrypt.Keyring, 2)
		for i := range nodes {
			store, err := encryptsql.New(ctx, db, nil)
			require.NoError(t, err)
			nodes[i], err = encrypt.New(kek, store, nil)
			require.NoError(t, err)
			defer closeIt(t, nodes[i])
		}
		sealed := racetest.Run(t, func(i int) ([]byte, error) { return nodes[i%2].Seal(ctx, place(i%5), []byte("x")) })
		for i := range sealed {
			for _, k := range nodes {
				_, err := k.Open(ctx, place(i%5), sealed[i])
				require.NoError(t, err)
			}
		}
		var keysets, keys int
		require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM crmguard_keys WHERE name = 't:'`).Scan(&keysets))
		require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM crmguard_keys WHERE name LIKE 'd:%'`).Scan(&keys))
		require.Equal(t, [2]int{1, 5}, [2]int{keysets, keys})
	})
}
