package encrypt_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// The store's count is never below what was sealed, over all nodes.
func TestMessagesAreCounted(t *testing.T) {
	kek, store := newKEK(t), &counting{Store: encrypt.NewMemory()}
	ctx := acting("acme")
	total := func() uint64 {
		records, err := store.Load(ctx, []encrypt.Scope{dataScope("c1")})
		require.NoError(t, err)
		return records[0].Messages
	}
	sealedBy := uint64(0)
	seal := func(k *encrypt.Keyring, n int) {
		for range n {
			_, err := k.Seal(ctx, home, nil)
			require.NoError(t, err)
			sealedBy++
		}
	}
	first := openKeyring(t, kek, store, nil)
	seal(first, 1024)
	require.Zero(t, store.leases.Load(), "the first lease comes with the key")
	require.EqualValues(t, 1024, total())
	seal(first, 1024)
	require.LessOrEqual(t, store.leases.Load(), int64(1))
	require.GreaterOrEqual(t, total(), sealedBy)
	second := openKeyring(t, kek, store, nil)
	seal(second, 1)
	require.GreaterOrEqual(t, total(), sealedBy)
	require.LessOrEqual(t, total(), sealedBy+2*1024+2)
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
