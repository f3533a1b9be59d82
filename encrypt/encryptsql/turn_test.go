package encryptsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/internal/uptime"
)

// fastClock is the time of the leases of the whole process. It stands still until run
// lets a step pass every few milliseconds; stop gives the process its own time back.
type fastClock struct {
	begin   time.Time
	nanos   atomic.Int64
	running sync.WaitGroup
	done    chan struct{}
	restore func()
}

func stillClock() *fastClock {
	c := &fastClock{begin: time.Now(), done: make(chan struct{})}
	c.restore = uptime.Move(func() time.Duration { return time.Hour + time.Duration(c.nanos.Load()) })
	return c
}

func runningClock(step time.Duration) *fastClock {
	c := stillClock()
	c.run(step)
	return c
}

func (c *fastClock) now() time.Time { return c.begin.Add(time.Duration(c.nanos.Load())) }

func (c *fastClock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

func (c *fastClock) run(step time.Duration) {
	c.running.Go(func() {
		for {
			select {
			case <-c.done:
				return
			case <-time.After(5 * time.Millisecond):
				c.advance(step)
			}
		}
	})
}

func (c *fastClock) stop() {
	close(c.done)
	c.running.Wait()
	c.restore()
}

func fileKEK(t testing.TB, path string) encrypt.RotatingKEK {
	t.Helper()
	kek, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	return kek
}

func openNode(t testing.TB, kek encrypt.RotatingKEK, store encrypt.Store, o *encrypt.Options) *encrypt.Keyring {
	t.Helper()
	k, err := encrypt.New(kek, store, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, k.Close()) })
	return k
}

func sealAll(t testing.TB, k *encrypt.Keyring, from, to int) (sealed [][]byte) {
	t.Helper()
	ctx := crmguard.System(context.Background(), "acme", "test")
	cells := make([]encrypt.Cell, to-from)
	for i := range cells {
		cells[i] = encrypt.Cell{Place: place(from + i), Plaintext: []byte(place(from + i).Client)}
	}
	for page := range slices.Chunk(cells, 500) {
		require.NoError(t, k.SealAll(ctx, "acme", page))
	}
	for i := range cells {
		sealed = append(sealed, cells[i].Sealed)
	}
	return sealed
}

// opened returns how many of the clients from a number on open with the right value.
func opened(k *encrypt.Keyring, sealed [][]byte, from int) (n int, last error) {
	ctx := crmguard.System(context.Background(), "acme", "test")
	cells := make([]encrypt.Cell, len(sealed))
	for i := range cells {
		cells[i] = encrypt.Cell{Place: place(from + i), Sealed: sealed[i]}
	}
	for page := range slices.Chunk(cells, 500) {
		if err := k.OpenAll(ctx, "acme", page); err != nil {
			last = err
		}
		for _, c := range page {
			switch {
			case c.Err != nil:
				last = c.Err
			case string(c.Plaintext) == c.Place.Client:
				n++
			}
		}
	}
	return n, last
}

// copyTables puts a copy of all key records where a thief or a backup has them.
func copyTables(t *testing.T, db *sql.DB) *encryptsql.Store {
	t.Helper()
	old, err := encryptsql.New(t.Context(), db, &encryptsql.Options{TablePrefix: "stolen_"})
	require.NoError(t, err)
	_, err = db.Exec(`INSERT INTO stolen_keys SELECT * FROM crmguard_keys`)
	require.NoError(t, err)
	return old
}

// Whoever has an old dump and the key tables of that day reads nothing of a thousand
// clients that were erased since, once the KEK has turned: with the KEK as it is now
// neither they nor anybody opens; with the present tables all others do.
func TestAnOldDumpAfterATurn(t *testing.T) {
	const erased, kept = 1000, 200
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		clock := stillClock() // or polls would read all that is closing, all the time
		defer clock.stop()
		ctx := crmguard.System(context.Background(), "acme", "test")
		path := filepath.Join(t.TempDir(), "kek.json")
		store, err := encryptsql.New(ctx, db, nil)
		require.NoError(t, err)
		k := openNode(t, fileKEK(t, path), store, &encrypt.Options{Clock: clock.now})
		dump := sealAll(t, k, 0, erased+kept)
		tables := copyTables(t, db)

		receipts := make(map[string]encrypt.Receipt)
		for i := range erased {
			_, err := k.Erase(ctx, "acme", place(i).Client)
			require.NoError(t, err)
		}
		clock.advance(encrypt.ClosingTime)
		for _, r := range finishAll(t, k) {
			receipts[r.Client] = r
		}
		require.Len(t, receipts, erased)

		thief := openNode(t, fileKEK(t, path), tables, nil)
		n, err := opened(thief, dump, 0)
		require.NoError(t, err)
		require.Equal(t, erased+kept, n, "until then the old tables open everything")

		clock.advance(encrypt.Lease)
		clock.run(time.Second)
		turned, err := k.Turn(ctx, nil)
		require.NoError(t, err)
		require.Equal(t, []int{1, kept + 1}, []int{turned.Tenants, turned.Keys}, "the others', and the key of receipts")

		thief = openNode(t, fileKEK(t, path), tables, nil)
		n, err = opened(thief, dump, 0)
		require.Error(t, err)
		require.Zero(t, n)
		fresh := openNode(t, fileKEK(t, path), store, &encrypt.Options{Clock: clock.now})
		n, err = opened(fresh, dump[:erased], 0)
		require.ErrorIs(t, err, crmguard.ErrErased)
		require.Zero(t, n)
		n, err = opened(fresh, dump[erased:], erased)
		require.NoError(t, err)
		require.Equal(t, kept, n)
		after, err := fresh.Receipt(ctx, "acme", place(0).Client)
		require.NoError(t, err)
		require.True(t, after.UnreadableAfter.Before(receipts[after.Client].UnreadableAfter), "earlier than the backups' age")
		var rows int
		require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM crmguard_keys WHERE state = 4`).Scan(&rows))
		require.Equal(t, 2, rows, "a keyset and a check have left their version's number")
	})
}

// turn tries again, as hosts do, while the Turn's own sign of life holds the write-ahead log.
func turn(t *testing.T, k *encrypt.Keyring) (turned encrypt.Turned) {
	t.Helper()
	for range 10 {
		var err error
		turned, err = k.Turn(crmguard.System(t.Context(), "acme", "test"), nil)
		if err == nil {
			return turned
		}
		require.ErrorIs(t, err, encryptsql.ErrNotGoneYet)
	}
	require.Fail(t, "the write-ahead log is in use for ever")
	return turned
}

// removedKeysLeft rotates and retires half of the clients' keys, turns the KEK, and
// returns how many keys that are removed, or wrapped anew, are found on disk.
func removedKeysLeft(t *testing.T, path string, store *encryptsql.Store) int {
	t.Helper()
	clock := stillClock() // polls would hold the write-ahead log
	defer clock.stop()
	ctx := crmguard.System(context.Background(), "acme", "test")
	k := openNode(t, fileKEK(t, filepath.Join(t.TempDir(), "kek.json")), store, nil)
	wrapped := busyPool(t, k, store)
	for name := range wrapped {
		scope := encrypt.Scope{Tenant: "acme", Purpose: encrypt.DataKey, Name: name}
		_, err := k.Rotate(ctx, scope)
		require.NoError(t, err)
	}
	require.NotZero(t, keysOnDisk(t, path, wrapped))
	for name := range wrapped {
		scope := encrypt.Scope{Tenant: "acme", Purpose: encrypt.DataKey, Name: name}
		removed, err := k.Retire(ctx, scope, 2)
		require.NoError(t, err)
		require.Equal(t, 1, removed)
	}
	left := keysOnDisk(t, path, wrapped)
	before := make(map[string][]byte)
	for after := (encrypt.Record{}); ; {
		page, err := store.List(ctx, after, 50)
		require.NoError(t, err)
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			before[fmt.Sprint(r.Scope, r.Version)] = r.Wrapped
			after = r
		}
	}
	require.Len(t, before, clients+3)
	clock.run(100 * time.Millisecond)
	turn(t, k)
	return left + keysOnDisk(t, path, before)
}

func TestRemovedKeysAreGoneFromTheFiles(t *testing.T) {
	path := filepath.Join(sqldbtest.Dir(t), "keys.db")
	store, err := encryptsql.OpenSQLite(t.Context(), path, true)
	require.NoError(t, err)
	defer closeIt(t, store)
	require.Zero(t, removedKeysLeft(t, path, store))
}

func TestTheCheckNoticesRemovedKeysThatStay(t *testing.T) {
	path := filepath.Join(sqldbtest.Dir(t), "keys.db")
	pool, err := sql.Open("sqlite", path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_pragma=secure_delete(OFF)")
	require.NoError(t, err)
	defer closeIt(t, pool)
	store, err := encryptsql.NewUnchecked(t.Context(), pool)
	require.NoError(t, err)
	require.NotZero(t, removedKeysLeft(t, path, store))
}

// While a reader keeps old pages, a removal says that it has not ended, and the next
// call of Replace ends it.
func TestAReaderHoldsARemovalUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	store, err := encryptsql.OpenSQLite(t.Context(), path, true)
	require.NoError(t, err)
	defer closeIt(t, store)
	ctx := crmguard.System(context.Background(), "acme", "test")
	k := openNode(t, fileKEK(t, filepath.Join(t.TempDir(), "kek.json")), store, nil)
	sealAll(t, k, 0, 1)
	scope := encrypt.Scope{Tenant: "acme", Purpose: encrypt.DataKey, Name: "c0"}
	records, err := store.Load(ctx, []encrypt.Scope{scope})
	require.NoError(t, err)
	key := map[string][]byte{"c0": records[0].Wrapped}
	_, err = k.Rotate(ctx, scope)
	require.NoError(t, err)
	other, err := sqldb.OpenSQLite(ctx, path)
	require.NoError(t, err)
	defer closeIt(t, other)
	reader, err := other.Begin()
	require.NoError(t, err)
	var n int
	require.NoError(t, reader.QueryRow(`SELECT COUNT(*) FROM crmguard_keys`).Scan(&n))

	for range 2 {
		_, err = k.Retire(ctx, scope, 2)
		require.ErrorIs(t, err, encryptsql.ErrNotGoneYet)
	}
	require.NotZero(t, keysOnDisk(t, path, key))
	require.NoError(t, reader.Rollback())
	_, err = store.Replace(ctx, nil, nil)
	require.NoError(t, err)
	require.Zero(t, keysOnDisk(t, path, key))
	removed, err := k.Retire(ctx, scope, 2)
	require.NoError(t, err)
	require.Zero(t, removed)
}

// Everybody seals and opens on nodes of their own while the KEK turns twice.
func TestATurnUnderLoad(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		defer runningClock(100 * time.Millisecond).stop()
		ctx := crmguard.System(context.Background(), "acme", "test")
		path := filepath.Join(t.TempDir(), "kek.json")
		store, err := encryptsql.New(ctx, db, nil)
		require.NoError(t, err)
		turner := openNode(t, fileKEK(t, path), store, nil)
		sealed := sealAll(t, turner, 0, 100)
		ended := make(chan struct{})
		var wg sync.WaitGroup
		var calls atomic.Int64
		added := make([]sync.Map, 3)
		for g := range 3 {
			node := openNode(t, fileKEK(t, path), store, &encrypt.Options{CacheEntries: 16})
			wg.Go(func() {
				for i := 1000 * (g + 1); ; i++ {
					select {
					case <-ended:
						return
					default:
					}
					if n, err := opened(node, sealed[i%100:i%100+1], i%100); err != nil || n != 1 {
						t.Errorf("open: %v", err)
						return
					}
					value, err := node.Seal(ctx, place(i), []byte(place(i).Client))
					if err != nil {
						t.Errorf("seal: %v", err)
						return
					}
					added[g].Store(i, value)
					calls.Add(2)
				}
			})
		}
		for range 2 { // no call takes longer than a lease by that clock
			if _, err := turner.Turn(ctx, nil); err != nil {
				t.Error(err)
			}
		}
		close(ended)
		wg.Wait()
		fresh := openNode(t, fileKEK(t, path), store, nil)
		n, err := opened(fresh, sealed, 0)
		require.NoError(t, err)
		require.Equal(t, len(sealed), n)
		for g := range added {
			added[g].Range(func(i, value any) bool {
				n, err := opened(fresh, [][]byte{value.([]byte)}, i.(int))
				require.NoError(t, err)
				require.Equal(t, 1, n, "nothing written meanwhile is lost")
				return true
			})
		}
		require.Greater(t, calls.Load(), int64(20))
	})
}

// mortal is a store that kills its process at a call.
type mortal struct {
	*encryptsql.Store
	left atomic.Int64
}

func (m *mortal) call() {
	if m.left.Add(-1) >= 0 {
		return
	}
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {}
}

func (m *mortal) Load(ctx context.Context, s []encrypt.Scope) ([]encrypt.Record, error) {
	m.call()
	return m.Store.Load(ctx, s)
}

func (m *mortal) Insert(ctx context.Context, r []encrypt.Record) ([]encrypt.Record, error) {
	m.call()
	return m.Store.Insert(ctx, r)
}

func (m *mortal) List(ctx context.Context, after encrypt.Record, limit int) ([]encrypt.Record, error) {
	m.call()
	return m.Store.List(ctx, after, limit)
}

func (m *mortal) Replace(ctx context.Context, was, now []encrypt.Record) (int, error) {
	m.call()
	return m.Store.Replace(ctx, was, now)
}

// turnAndDie turns the KEK of a database until it has called the store so often.
func turnAndDie(ctx context.Context, p *processtest.Process) error {
	defer runningClock(time.Second).stop()
	db, store, err := openStore(ctx, p.Args[0])
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // ends with the process
	kek, err := encrypt.OpenKeyFile(p.Args[1], "", false)
	if err != nil {
		return err
	}
	calls, err := strconv.Atoi(p.Args[2])
	if err != nil {
		return err
	}
	dying := &mortal{Store: store}
	dying.left.Store(int64(calls))
	k, err := encrypt.New(kek, dying, nil)
	if err != nil {
		return err
	}
	if _, err = k.Turn(ctx, nil); err == nil {
		fmt.Println("turned")
	}
	return err
}

// Wherever a process is killed in a Turn, everything opens, and the next one ends it.
func TestAProcessKilledWhileTheKEKTurns(t *testing.T) {
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		defer runningClock(time.Second).stop()
		ctx := crmguard.System(context.Background(), "acme", "test")
		path := filepath.Join(t.TempDir(), "kek.json")
		db, store, err := openStore(ctx, database)
		require.NoError(t, err)
		defer closeIt(t, db)
		sealed := sealAll(t, openNode(t, fileKEK(t, path), store, nil), 0, 20)
		old := copyTables(t, db)
		for calls := 3; ; calls += 3 {
			output, err := processtest.Command(t, "turn and die", database, path, strconv.Itoa(calls)).CombinedOutput()
			n, opening := opened(openNode(t, fileKEK(t, path), store, nil), sealed, 0)
			require.NoError(t, opening, "after %d calls: %s", calls, output)
			require.Equal(t, len(sealed), n)
			if err == nil {
				require.True(t, strings.Contains(string(output), "turned"))
				require.Greater(t, calls, 12)
				break
			}
			require.NotContains(t, string(output), "encrypt:", "it was killed, not refused")
		}
		// The last one has ended what all the others began.
		n, err := opened(openNode(t, fileKEK(t, path), old, nil), sealed, 0)
		require.Error(t, err)
		require.Zero(t, n)
		records, err := store.Load(ctx, []encrypt.Scope{{Purpose: encrypt.KEKCheck}})
		require.NoError(t, err)
		require.Len(t, records, 1)
		require.False(t, records[0].ClosedAt.IsZero())
	})
}
