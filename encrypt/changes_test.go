package encrypt_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// slowReader opens a value on k with keys that were read before do ran.
func slowReader(k *encrypt.Keyring, store *afterLoad, sealed []byte, do func()) (plaintext []byte, err error) {
	held := newGate()
	store.mu.Lock()
	store.gate = held
	store.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { plaintext, err = k.Open(acting("acme"), home, sealed) })
	<-held.waiting
	do()
	close(held.open)
	wg.Wait()
	return plaintext, err
}

// A reader that saw a client's keys as they were undoes neither Rotate nor Retire.
func TestASlowReaderUndoesNoRotation(t *testing.T) {
	memory := encrypt.NewMemory()
	store := &afterLoad{Store: memory}
	k := newKeyring(t, struct {
		*afterLoad
		encrypt.Inventory
	}{store, memory}, nil)
	old, err := k.Seal(acting("acme"), home, []byte("x"))
	require.NoError(t, err)
	scope := encrypt.ClientScope("acme", "c1")
	k.Invalidate()
	_, _ = slowReader(k, store, old, func() {
		version, err := k.Rotate(acting("acme"), scope)
		require.NoError(t, err)
		require.EqualValues(t, 2, version)
	})
	sealed, err := k.Seal(acting("acme"), home, []byte("x"))
	require.NoError(t, err)
	require.Equal(t, byte(2), sealed[7], "version of the key")
	k.Invalidate()
	_, _ = slowReader(k, store, old, func() {
		_, err := k.Retire(acting("acme"), scope, 2)
		require.NoError(t, err)
	})
	_, err = k.Open(acting("acme"), home, old)
	require.ErrorIs(t, err, encrypt.ErrRetired)
}

// Whatever belongs to no client is another tenant's business all the same.
func TestPlacesWithoutAClientAreTheTenantsOwn(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	at := crmguard.Place{Tenant: "acme", Kind: "factors", Record: "1", Field: "secret"}
	sealed, err := k.Seal(context.Background(), at, []byte("x"))
	require.NoError(t, err, "nobody need be there")
	for name, ctx := range map[string]context.Context{"nobody": context.Background(), "one's own": acting("acme")} {
		_, err := k.Open(ctx, at, sealed)
		require.NoError(t, err, name)
	}
	_, err = k.Open(acting("evil"), at, sealed)
	require.ErrorIs(t, err, encrypt.ErrSubject)
	_, err = k.Seal(acting("evil"), at, nil)
	require.ErrorIs(t, err, encrypt.ErrSubject)
	cells := []encrypt.Cell{{Place: at, Plaintext: []byte("x"), Sealed: sealed}}
	require.ErrorIs(t, k.OpenAll(acting("evil"), "acme", cells), encrypt.ErrSubject)
	require.Error(t, k.SealAll(acting("evil"), "acme", cells))
}

// The id of a client that is erased may lie in memory that is used again at once.
func TestEraseKeepsNothingOfTheCaller(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	id := []byte("c1")
	_, err := k.Erase(acting("acme"), "acme", unsafe.String(&id[0], len(id)))
	require.NoError(t, err)
	copy(id, "zz")
	require.ErrorIs(t, refused(k), crmguard.ErrErased)
	_, err = k.Receipt(acting("acme"), "acme", "c1")
	require.NoError(t, err)
}

func refused(k *encrypt.Keyring) error {
	_, err := k.Seal(acting("acme"), home, nil)
	return err
}

// What a long place needs once is not kept with the key.
func TestKeysKeepNoLargeMemory(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	at := home
	at.Record = string(make([]byte, 60_000))
	before := heap()
	for i := range 200 {
		at.Client = "c" + strconv.Itoa(i)
		_, err := k.Seal(acting("acme"), at, nil)
		require.NoError(t, err)
	}
	require.Less(t, heap(), before+4<<20)
	_, err := k.Seal(acting("acme"), at, nil) // k is alive
	require.NoError(t, err)
}

// OnOpen is asked about whatever is opened, also when asking takes longer than a lease
// and a client's key appears meanwhile.
func TestWhatAppearsWhileOnOpenIsAskedStaysShut(t *testing.T) {
	clock, memory := newClock(t), encrypt.NewMemory()
	kek := newKEK(t)
	writer := openKeyring(t, kek, memory, nil)
	cells := []encrypt.Cell{{Place: client(1), Plaintext: []byte("one")}, {Place: client(2), Plaintext: []byte("two")}}
	require.NoError(t, writer.SealAll(acting("acme"), "acme", cells))
	store := &during{Store: hides{memory, client(1).Client, new(bool)}}
	var asked []string
	k := openKeyring(t, kek, store, &encrypt.Options{OnOpen: func(_ context.Context, _ string, clients []string) error {
		asked = append(asked, clients...)
		*store.Store.(hides).shown = true
		clock.Advance(encrypt.Lease)
		return nil
	}})
	require.NoError(t, k.OpenAll(acting("acme"), "acme", cells))
	require.Equal(t, []string{client(2).Client}, asked)
	require.Error(t, cells[0].Err)
	require.Nil(t, cells[0].Plaintext)
	require.NoError(t, cells[1].Err)
}

// hides is a store that lacks a client's key until it is shown.
type hides struct {
	encrypt.Store
	client string
	shown  *bool
}

func (s hides) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	found, err := s.Store.Load(ctx, scopes)
	var kept []encrypt.Record
	for _, r := range found {
		if *s.shown || r.Scope.Name != s.client {
			kept = append(kept, r)
		}
	}
	return kept, err
}

// stalePoll answers polls as if they had begun before an erasure.
type stalePoll struct {
	encrypt.Store
	before atomic.Pointer[int64] // the revision
}

func (s *stalePoll) Closing(ctx context.Context) (int64, []encrypt.Record, error) {
	if revision := s.before.Load(); revision != nil {
		return *revision, nil, nil
	}
	return s.Store.Closing(ctx)
}

// A poll that began before an erasure and ends after it makes nobody forget the erasure.
func TestAPollFromBeforeAnErasureBringsNothingBack(t *testing.T) {
	kek, clock, memory := newKEK(t), newClock(t), encrypt.NewMemory()
	sealed, err := openKeyring(t, kek, memory, nil).Seal(acting("acme"), home, []byte("x"))
	require.NoError(t, err)
	polls := &stalePoll{Store: memory}
	store := &afterLoad{Store: polls}
	k := openKeyring(t, kek, store, &encrypt.Options{CacheEntries: 8})
	_, err = k.Seal(acting("acme"), client(2), nil)
	require.NoError(t, err)
	plaintext, err := slowReader(k, store, sealed, func() {
		revision, _, err := memory.Closing(t.Context())
		require.NoError(t, err)
		polls.before.Store(&revision)
		_, err = k.Erase(acting("acme"), "acme", "c1")
		require.NoError(t, err)
		clock.Advance(encrypt.Lease/2 + time.Second)
		for i := range 40 {
			_, err := k.Seal(acting("acme"), client(100+i), nil)
			require.NoError(t, err)
		}
		k.WaitForPoll()
	})
	require.ErrorIs(t, err, crmguard.ErrErased, "opened %q after the erasure", plaintext)
}
