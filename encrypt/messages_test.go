package encrypt_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// checkNoneUncounted seals on two nodes for several leases, and returns an error as soon as the store
// knows of fewer messages than there are.
func checkNoneUncounted(t *testing.T, store encrypt.Store, batch int) error {
	kek := newKEK(t)
	nodes := []*encrypt.Keyring{openKeyring(t, kek, store, nil), openKeyring(t, kek, store, nil)}
	cells := make([]encrypt.Cell, batch)
	for i := range cells {
		cells[i] = encrypt.Cell{Place: home, Plaintext: []byte{}}
	}
	for sealed := uint64(0); sealed < 5*1024; {
		for _, k := range nodes {
			if batch == 1 {
				_, err := k.Seal(acting("acme"), home, nil)
				require.NoError(t, err)
			} else {
				require.NoError(t, k.SealAll(acting("acme"), "acme", cells))
			}
			sealed += uint64(batch)
			records, err := store.Load(t.Context(), []encrypt.Scope{homeKey})
			require.NoError(t, err)
			if n := records[0].Messages; n < sealed {
				return fmt.Errorf("%d messages are %d in the store", sealed, n)
			}
			require.LessOrEqual(t, records[0].Messages, 2*sealed+2*(1024+uint64(batch)), "not many more, either")
		}
	}
	return nil
}

// stingy notes one message less than it is asked to.
type stingy struct{ encrypt.Store }

func (s stingy) Lease(ctx context.Context, keys []encrypt.Record, n uint64) ([]encrypt.Record, error) {
	return s.Store.Lease(ctx, keys, n-1)
}

// The store's count is never below what was sealed, over all nodes.
func TestMessagesAreCounted(t *testing.T) {
	for _, batch := range []int{1, 7, 1500} {
		require.NoError(t, checkNoneUncounted(t, encrypt.NewMemory(), batch), "batches of %d", batch)
	}
	require.Error(t, checkNoneUncounted(t, stingy{encrypt.NewMemory()}, 1), "the check notices one message that is not counted")
}

// One call to the store reserves a thousand messages, and the first thousand come with the key.
func TestLeasesAreFew(t *testing.T) {
	store := &counting{Store: encrypt.NewMemory()}
	k := newKeyring(t, store, nil)
	for range 2 {
		require.Zero(t, store.leases.Load())
		for range 512 {
			_, err := k.Seal(acting("acme"), home, nil)
			require.NoError(t, err)
		}
	}
	for range 1024 {
		_, err := k.Seal(acting("acme"), home, nil)
		require.NoError(t, err)
	}
	require.EqualValues(t, 1, store.leases.Load())
}

// However many cells a batch has of a client, and wherever they stand in it.
func TestMessagesOfABatchAreLeasedAtOnce(t *testing.T) {
	const each = 3000
	ctx := acting("acme")
	for name, test := range map[string]struct {
		client          func(i int) int
		worn            bool
		leases, inserts int64
	}{
		"side by side":       {func(i int) int { return i / each }, false, 1, 0},
		"in turns":           {func(i int) int { return i % 2 }, false, 1, 0},
		"in turns, and worn": {func(i int) int { return i % 2 }, true, 7, 2}, // each new key has leases of its own
	} {
		t.Run(name, func(t *testing.T) {
			kek, store := newKEK(t), &counting{Store: encrypt.NewMemory()}
			cells := make([]encrypt.Cell, 2*each)
			for i := range cells {
				cells[i] = cell(fmt.Sprint("c", test.client(i)), "r1", "name", "x")
			}
			first := []encrypt.Cell{cell("c0", "r1", "name", "x"), cell("c1", "r1", "name", "x")}
			require.NoError(t, openKeyring(t, kek, store, nil).SealAll(ctx, "acme", first))
			scopes := []encrypt.Scope{dataScope("c0"), dataScope("c1")}
			if test.worn {
				_, err := store.Lease(ctx, []encrypt.Record{{Scope: scopes[0], Version: 1}, {Scope: scopes[1], Version: 1}}, 1<<28)
				require.NoError(t, err)
			}
			store.leases.Store(0)
			store.inserts.Store(0)
			require.NoError(t, openKeyring(t, kek, store, nil).SealAll(ctx, "acme", cells))
			require.Equal(t, test.leases, store.leases.Load())
			require.Equal(t, test.inserts, store.inserts.Load())
			records, err := store.Load(ctx, scopes)
			require.NoError(t, err)
			for _, r := range records {
				if r.Version == uint32(len(records)/2) { // the one that has sealed
					require.GreaterOrEqual(t, r.Messages, uint64(each))
					require.LessOrEqual(t, r.Messages, uint64(each+3*1024))
				}
			}
		})
	}
}

// Keys that are read anew go on with what they had reserved: the count in the store
// would grow by a lease at every reading otherwise.
func TestReadingKeysAnewWastesNoMessages(t *testing.T) {
	kek, store, clock := newKEK(t), &counting{Store: encrypt.NewMemory()}, newClock(t)
	k := openKeyring(t, kek, store, nil)
	for range 5 {
		_, err := k.Seal(acting("acme"), home, nil)
		require.NoError(t, err)
		clock.Advance(time.Hour)
	}
	require.GreaterOrEqual(t, store.loads.Load(), int64(5), "read anew each time")
	require.Zero(t, store.leases.Load())
}

// A key that has sealed 2^28 messages is replaced, one that has sealed 2^31 refuses.
func TestWornKeysAreReplaced(t *testing.T) {
	kek, memory := newKEK(t), encrypt.NewMemory()
	ctx := acting("acme")
	scope := dataScope("c1")
	wear := func(version uint32, n uint64) {
		_, err := memory.Lease(ctx, []encrypt.Record{{Scope: scope, Version: version}}, n)
		require.NoError(t, err)
	}
	here, there := openKeyring(t, kek, memory, nil), openKeyring(t, kek, memory, nil)
	old, err := here.Seal(ctx, home, []byte("old"))
	require.NoError(t, err)
	_, err = there.Open(ctx, home, old)
	require.NoError(t, err)
	wear(1, 1<<28)
	fresh := openKeyring(t, kek, memory, nil)
	sealed, err := fresh.Seal(ctx, home, []byte("new"))
	require.NoError(t, err)
	require.Equal(t, byte(2), sealed[7], "the key's version")
	for _, k := range []*encrypt.Keyring{here, there, fresh} {
		for _, value := range [][]byte{old, sealed} {
			_, err := k.Open(ctx, home, value)
			require.NoError(t, err, "both versions open on all nodes")
		}
	}
	records, err := memory.Load(ctx, []encrypt.Scope{scope})
	require.NoError(t, err)
	require.Len(t, records, 2)
	require.LessOrEqual(t, records[1].Messages, uint64(2048))

	wear(2, 1<<28)
	table, err := encrypt.NewTable[contact](openKeyring(t, kek, memory, &encrypt.Options{Index: encrypt.NewMemoryIndex()}), "contacts", nil)
	require.NoError(t, err)
	row := &contact{ID: "c1", Phone: "123"}
	_, err = table.Seal(ctx, "acme", row)
	require.NoError(t, err)
	require.Equal(t, byte(3), row.PhoneSealed[7], "tables replace worn keys too")
	require.NoError(t, table.Open(ctx, "acme", row))

	_, err = here.Erase(ctx, "acme", "c1")
	require.NoError(t, err)
	for _, value := range [][]byte{old, sealed} {
		_, err := here.Open(ctx, home, value)
		require.ErrorIs(t, err, crmguard.ErrErased, "all versions are erased")
	}
}

// What another node has closed is erased; what the store has lost is not.
func TestWhyThereIsNoLease(t *testing.T) {
	ctx := acting("acme")
	for name, test := range map[string]struct {
		after func(t *testing.T, k *encrypt.Keyring, store *swapped)
		want  error
	}{
		"closed elsewhere": {func(t *testing.T, k *encrypt.Keyring, store *swapped) {
			_, err := store.Advance(ctx, dataScope("c1"), encrypt.Closing, time.Now())
			require.NoError(t, err)
		}, crmguard.ErrErased},
		"store lost it": {func(_ *testing.T, _ *encrypt.Keyring, store *swapped) { store.Store = encrypt.NewMemory() }, encrypt.ErrNoKey},
	} {
		t.Run(name, func(t *testing.T) {
			kek, store, clock := newKEK(t), &swapped{encrypt.NewMemory()}, newClock(t)
			sealed, err := openKeyring(t, kek, store, nil).Seal(ctx, home, nil)
			require.NoError(t, err)
			k := openKeyring(t, kek, store, &encrypt.Options{Clock: clock.Now})
			_, err = k.Open(ctx, home, sealed) // caches the key, without a lease to seal
			require.NoError(t, err)
			test.after(t, k, store)
			_, err = k.Seal(ctx, home, nil)
			require.ErrorIs(t, err, test.want)
		})
	}
}

// swapped is a store that can be replaced by another.
type swapped struct{ encrypt.Store }

func TestUsedUpKeysRefuse(t *testing.T) {
	kek, memory := newKEK(t), encrypt.NewMemory()
	store := &stuck{Store: memory}
	ctx := acting("acme")
	_, err := openKeyring(t, kek, store, nil).Seal(ctx, home, nil)
	require.NoError(t, err)
	for _, step := range []struct {
		messages uint64
		ok       bool
	}{{1 << 28, true}, {1 << 31, false}} {
		_, err := memory.Lease(ctx, []encrypt.Record{{Scope: dataScope("c1"), Version: 1}}, step.messages)
		require.NoError(t, err)
		_, err = openKeyring(t, kek, store, nil).Seal(ctx, home, nil)
		require.Equal(t, step.ok, err == nil, "%v", err)
	}
}

// stuck cannot store second versions.
type stuck struct{ encrypt.Store }

func (s *stuck) Insert(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	for _, r := range records {
		if r.Version > 1 {
			return nil, errDown
		}
	}
	return s.Store.Insert(ctx, records)
}
