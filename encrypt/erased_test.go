package encrypt_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

// afterLoad hands out what was read before the gate opened.
type afterLoad struct {
	encrypt.Store
	mu   sync.Mutex
	gate *gate
}

func (s *afterLoad) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	records, err := s.Store.Load(ctx, scopes)
	s.mu.Lock()
	gate := s.gate
	s.gate = nil
	s.mu.Unlock()
	if gate != nil {
		gate.pass()
	}
	return records, err
}

// A reader that saw a client active brings nothing back, even when the cache has
// forgotten meanwhile that this process has closed it.
func TestASlowReaderAndAFullCacheBringNothingBack(t *testing.T) {
	kek, memory := newKEK(t), encrypt.NewMemory()
	sealed, err := openKeyring(t, kek, memory, nil).Seal(acting("acme"), home, []byte("x"))
	require.NoError(t, err)
	store := &afterLoad{Store: memory}
	k := openKeyring(t, kek, store, &encrypt.Options{CacheEntries: 8})
	_, err = k.Seal(acting("acme"), client(2), nil)
	require.NoError(t, err)
	plaintext, err := slowReader(k, store, sealed, func() {
		_, err := k.Erase(acting("acme"), "acme", "c1")
		require.NoError(t, err)
		for i := range 40 {
			_, err := k.Seal(acting("acme"), client(100+i), nil)
			require.NoError(t, err)
		}
	})
	require.ErrorIs(t, err, crmguard.ErrErased, "opened %q after the erasure", plaintext)
	require.NoError(t, refuses(k, sealed))
}

// A node whose wall clock is ahead does not destroy a key that others still use.
func TestAClockThatIsAheadDestroysNothingEarly(t *testing.T) {
	kek, store, clock := newKEK(t), encrypt.NewMemory(), newClock(t)
	ahead := func() time.Time { return clock.Now().Add(24 * time.Hour) }
	here := openKeyring(t, kek, store, &encrypt.Options{Clock: clock.Now})
	there := openKeyring(t, kek, store, &encrypt.Options{Clock: ahead})
	_, err := here.Erase(acting("acme"), "acme", "c1")
	require.NoError(t, err)
	finish := func(k *encrypt.Keyring) int {
		finished, err := k.FinishErasures(t.Context())
		require.NoError(t, err)
		return len(finished)
	}
	require.Zero(t, finish(there), "it sees the client closing for the first time")
	clock.Advance(encrypt.ClosingTime - time.Microsecond)
	require.Zero(t, finish(there))
	restarted := openKeyring(t, kek, store, &encrypt.Options{Clock: ahead})
	clock.Advance(time.Microsecond)
	require.Zero(t, finish(restarted), "whoever starts anew waits anew")
	require.Equal(t, 1, finish(there))
	require.Zero(t, finish(here), "once")

	_, err = there.Erase(acting("acme"), "acme", "c2")
	require.NoError(t, err)
	require.Zero(t, finish(here), "from now on it knows")
	clock.Advance(encrypt.ClosingTime)
	require.Zero(t, finish(here), "nor does one whose clock is behind, by its own clock")
	require.Equal(t, 1, finish(there), "the one that closed it has known since then")
}

// A receipt promises nothing before the key is destroyed.
func TestReceipt(t *testing.T) {
	clock := newClock(t)
	store := &brokenStore{Store: encrypt.NewMemory()}
	k := newKeyring(t, store, &encrypt.Options{Clock: clock.Now})
	ctx := acting("acme")
	sealed, err := k.Seal(ctx, home, nil)
	require.NoError(t, err)
	for _, client := range []string{"c1", "c2"} {
		_, err = k.Receipt(ctx, "acme", client)
		require.ErrorIs(t, err, encrypt.ErrNotErased)
	}
	_, err = k.Open(ctx, home, sealed)
	require.NoError(t, err, "asking orders nothing")

	ordered, err := k.Erase(ctx, "acme", "c1")
	require.NoError(t, err)
	receipt, err := k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, ordered, receipt)
	require.Zero(t, receipt.UnreadableAfter)
	require.Zero(t, receipt.UnlinkableAfter)

	clock.Advance(1000 * time.Hour) // nobody has finished it
	receipt, err = k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Zero(t, receipt.UnreadableAfter)
	finished, err := k.FinishErasures(job("acme"))
	require.NoError(t, err)
	receipt, err = k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, finished, []encrypt.Receipt{receipt})
	require.Equal(t, clock.Now().Add(30*24*time.Hour), receipt.UnreadableAfter)
	require.Equal(t, clock.Now().Add(120*24*time.Hour), receipt.UnlinkableAfter)

	_, err = k.Receipt(acting("other"), "acme", "c1")
	require.Error(t, err)
	_, err = k.Receipt(ctx, "acme", "")
	require.Error(t, err)
	store.down.Store(true)
	_, err = k.Receipt(ctx, "acme", "c1")
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
}

// closesOnInsert closes a client while its worn key is being replaced.
type closesOnInsert struct{ encrypt.Store }

func (s closesOnInsert) Insert(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	for _, r := range records {
		if r.Version > 1 {
			if _, err := s.Advance(ctx, r.Scope, encrypt.Closing, time.Now()); err != nil {
				return nil, err
			}
		}
	}
	return s.Store.Insert(ctx, records)
}

func TestAClientClosedWhileItsKeyIsReplacedIsErased(t *testing.T) {
	for name, seal := range map[string]func(k *encrypt.Keyring) error{
		"field": func(k *encrypt.Keyring) error { _, err := k.Seal(acting("acme"), home, nil); return err },
		"table": func(k *encrypt.Keyring) error {
			table, err := encrypt.NewTable[contact](k, "contacts", nil)
			if err != nil {
				return err
			}
			_, err = table.Seal(acting("acme"), "acme", &contact{ID: "c1", Phone: "1"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			kek, memory := newKEK(t), encrypt.NewMemory()
			_, err := openKeyring(t, kek, memory, nil).Seal(acting("acme"), home, nil)
			require.NoError(t, err)
			scope := dataScope("c1")
			_, err = memory.Lease(t.Context(), []encrypt.Record{{Scope: scope, Version: 1}}, 1<<28)
			require.NoError(t, err)
			k := openKeyring(t, kek, closesOnInsert{memory}, &encrypt.Options{Index: encrypt.NewMemoryIndex()})
			require.ErrorIs(t, seal(k), crmguard.ErrErased, "not sealed with the old key")
		})
	}
}

// closesOnLease closes a client just before its messages are counted.
type closesOnLease struct {
	*encrypt.Memory
	client string
}

func (s closesOnLease) Lease(ctx context.Context, keys []encrypt.Record, n uint64) ([]encrypt.Record, error) {
	for _, key := range keys {
		if key.Scope == dataScope(s.client) {
			if _, err := s.Advance(ctx, key.Scope, encrypt.Closing, time.Now()); err != nil {
				return nil, err
			}
		}
	}
	return s.Memory.Lease(ctx, keys, n)
}

// A client that another node closes while a batch is being sealed is named, and stops no job.
func TestAClientClosedWhileABatchIsSealedIsNamed(t *testing.T) {
	store := closesOnLease{encrypt.NewMemory(), ""}
	k := newKeyring(t, &store, nil)
	cells := func() []encrypt.Cell {
		return []encrypt.Cell{cell("c0", "r0", "phone", "x"), cell("c1", "r1", "phone", "y"), cell("c2", "r2", "phone", "z")}
	}
	rows := encrypttest.NewMemoryRows()
	sealed := cells()
	require.NoError(t, k.SealAll(job("acme"), "acme", sealed))
	for _, c := range sealed {
		rows.Put("acme", encrypt.Row{Record: c.Place.Record, Client: c.Place.Client, Sealed: map[string][]byte{"phone": c.Sealed}})
		_, err := k.Rotate(job("acme"), dataScope(c.Place.Client)) // of the new version no messages are leased
		require.NoError(t, err)
	}
	store.client = "c1"
	again := cells()
	err := k.SealAll(job("acme"), "acme", again)
	var row *encrypt.RowError
	require.ErrorAs(t, err, &row)
	require.Equal(t, &encrypt.RowError{Row: 1, Record: "r1", Field: "phone", Err: crmguard.ErrErased}, row)
	require.Equal(t, cells(), again)

	store.client = "c2"
	type phone struct {
		ID     string `encrypt:",record"`
		Client string `encrypt:",client"`
		Phone  string `encrypt:"phone"`
		Sealed []byte `encrypt:"phone,sealed"`
	}
	table, err := encrypt.NewTable[phone](k, "contacts", nil)
	require.NoError(t, err)
	report, err := table.Reencrypt(job("acme"), "acme", rows, nil)
	require.NoError(t, err)
	require.Equal(t, 3, report.Rows)
	require.Equal(t, 1, report.Changed)
	require.Equal(t, 2, report.Erased)
}
