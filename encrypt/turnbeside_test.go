package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// held is a store one of whose Inserts waits.
type held struct {
	encrypt.Store
	gate atomic.Pointer[gate]
}

func (h *held) Insert(ctx context.Context, r []encrypt.Record) ([]encrypt.Record, error) {
	if gate := h.gate.Swap(nil); gate != nil {
		gate.pass()
	}
	return h.Store.Insert(ctx, r)
}

// walked is a store that counts how often a Turn goes over all keys: first it surveys
// them, then it wraps them, again until nothing is left, and then it finds the old keysets.
type walked struct {
	*encrypt.Memory
	walks  atomic.Int64
	listed func() // when it wraps for the first time, after the keys were listed
	once   bool   // it sees nothing when it goes over them again
}

func (w *walked) List(ctx context.Context, after encrypt.Record, limit int) ([]encrypt.Record, error) {
	first := after.Scope == (encrypt.Scope{}) && after.Version == 0
	if first {
		w.walks.Add(1)
	}
	if w.once && w.walks.Load() == 3 {
		return nil, nil
	}
	page, err := w.Memory.List(ctx, after, limit)
	if first && w.walks.Load() == 2 && w.listed != nil {
		w.listed()
	}
	return page, err
}

// unfenced stores keys whatever wrapped them.
type unfenced struct{ *encrypt.Memory }

func (u unfenced) Insert(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	records = slices.Clone(records)
	for i := range records {
		records[i].Under = nil
	}
	return u.Memory.Insert(ctx, records)
}

// When a slow node stores its key.
const (
	whileListed = iota // a Turn has listed the keys, and the tenant has no new keyset yet
	whileWaiting
	afterwards
)

// turnBesideASlowNode lets another node read which keyset is the newest, make a key under
// it, of a new tenant where it is not a known one, and store that later. It returns an
// error unless what that node sealed opens afterwards, and the next Turn succeeds.
func turnBesideASlowNode(t *testing.T, turning *walked, fenced bool, tenant string, when int) error {
	kek, clock := newTurningKEK(t), newClock(t)
	memory := turning.Memory
	k := openKeyring(t, kek, turning, nil)
	seals(t, k, 1, 3)
	slow := &held{Store: memory}
	if !fenced {
		slow.Store = unfenced{memory}
	}
	node := openKeyring(t, openTurningKEK(t, kek.path), slow, nil)
	at := crmguard.Place{Tenant: tenant, Client: "slow", Kind: "contacts", Record: "r", Field: "phone"}
	if tenant == "t0" {
		_, err := node.Seal(acting("t0"), crmguard.Place{Tenant: "t0"}, nil) // warms the tenant
		require.NoError(t, err)
	}
	g := newGate()
	slow.gate.Store(g)
	var sealed []byte
	var sealing error
	done := make(chan struct{})
	go func() {
		defer close(done)
		sealed, sealing = node.Seal(acting(tenant), at, []byte("slow"))
	}()
	<-g.waiting
	store := sync.OnceFunc(func() {
		close(g.open)
		<-done
	})
	if turning.walks.Store(0); when == whileListed {
		turning.listed = store
	}
	turn := func(progress func(encrypt.TurnProgress)) error {
		var err error
		running(clock, func() { _, err = k.Turn(t.Context(), progress) })
		return err
	}
	require.NoError(t, turn(func(p encrypt.TurnProgress) {
		if p.Step == encrypt.TurnWaiting && when == whileWaiting {
			store()
		}
	}))
	store()
	if sealing != nil {
		return sealing
	}
	turning.once = false
	open := func() error {
		plaintext, err := openKeyring(t, openTurningKEK(t, kek.path), memory, nil).Open(acting(tenant), at, sealed)
		if err == nil && string(plaintext) != "slow" {
			err = errors.New("another value")
		}
		return err
	}
	return errors.Join(open(), turn(nil), open())
}

func TestATurnFindsWhatOthersWrapMeanwhile(t *testing.T) {
	for _, when := range []int{whileListed, whileWaiting} {
		require.NoError(t, turnBesideASlowNode(t, &walked{Memory: encrypt.NewMemory()}, true, "t0", when))
	}
	require.Error(t, turnBesideASlowNode(t, &walked{Memory: encrypt.NewMemory(), once: true}, true, "t0", whileListed),
		"the check notices a Turn without a second walk")
}

// A node that was suspended for the time of a Turn, be it with its machine and all its
// clocks, stores no key that nothing unwraps any more.
func TestWhoeverStoresAKeyAfterATurnMakesItAgain(t *testing.T) {
	for _, tenant := range []string{"t0", "new"} {
		require.NoError(t, turnBesideASlowNode(t, &walked{Memory: encrypt.NewMemory()}, true, tenant, afterwards), tenant)
		require.Error(t, turnBesideASlowNode(t, &walked{Memory: encrypt.NewMemory()}, false, tenant, afterwards),
			"the check notices a store without a fence, %s", tenant)
	}
}

// suspended is a store that lets something happen before it stores a client's key or version.
type suspended struct {
	*encrypt.Memory
	meanwhile func()
	late      []encrypt.Record // what comes to be after an Insert has failed
	lose      bool
}

func (s *suspended) Insert(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	if meanwhile := s.meanwhile; meanwhile != nil && records[0].Scope.Purpose == encrypt.DataKey {
		s.meanwhile = nil
		meanwhile()
	}
	if s.lose && records[0].Scope.Purpose == encrypt.DataKey {
		s.lose, s.late = false, records
		return nil, context.DeadlineExceeded
	}
	return s.Memory.Insert(ctx, records)
}

// The monotonic clock stands still while a machine is suspended.
func TestASuspendedMachineAndATurn(t *testing.T) {
	for _, rotate := range []bool{false, true} {
		kek, clock, memory := newTurningKEK(t), newClock(t), encrypt.NewMemory()
		store := &suspended{Memory: memory}
		a := openKeyring(t, openTurningKEK(t, kek.path), store, nil)
		b := openKeyring(t, kek, memory, nil)
		at := func(c string) crmguard.Place {
			return crmguard.Place{Tenant: "acme", Client: c, Kind: "contacts", Record: c, Field: "phone"}
		}
		_, err := a.Seal(acting("acme"), at("old"), []byte("x"))
		require.NoError(t, err)
		turn := func() {
			running(clock, func() {
				_, err := b.Turn(t.Context(), nil)
				require.NoError(t, err)
			})
		}
		store.meanwhile = func() {
			now := clock.Now()
			turn()
			clock.nanos.Store(now.UnixNano())
		}
		client := "new"
		if rotate {
			client = "old"
			_, err := a.Rotate(acting("acme"), dataScope(client))
			require.NoError(t, err)
		}
		sealed, err := a.Seal(acting("acme"), at(client), []byte("+7 916"))
		require.NoError(t, err)
		for _, k := range []*encrypt.Keyring{a, b} {
			k.Invalidate()
			plaintext, err := k.Open(acting("acme"), at(client), sealed)
			require.NoError(t, err)
			require.Equal(t, "+7 916", string(plaintext))
		}
		turn()
	}
}

// A COMMIT whose answer was lost takes effect after a Turn.
func TestALostCommitAndATurn(t *testing.T) {
	kek, clock, memory := newTurningKEK(t), newClock(t), encrypt.NewMemory()
	store := &suspended{Memory: memory}
	a := openKeyring(t, openTurningKEK(t, kek.path), store, nil)
	b := openKeyring(t, kek, memory, nil)
	at := func(c string) crmguard.Place {
		return crmguard.Place{Tenant: "acme", Client: c, Kind: "contacts", Record: c, Field: "phone"}
	}
	_, err := a.Seal(acting("acme"), at("old"), []byte("x"))
	require.NoError(t, err)
	store.lose = true
	_, err = a.Seal(acting("acme"), at("new"), []byte("x"))
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
	turn := func() {
		running(clock, func() {
			_, err := b.Turn(t.Context(), nil)
			require.NoError(t, err)
		})
	}
	turn()
	_, err = memory.Insert(t.Context(), store.late)
	require.NoError(t, err)
	_, err = a.Seal(acting("acme"), at("new"), []byte("x"))
	require.NoError(t, err)
	turn()
}

func TestTheCheckNoticesATurnThatDestroysNothing(t *testing.T) {
	kek, store, clock := newTurningKEK(t), encrypt.NewMemory(), newClock(t)
	kek.keepOld = true
	k := openKeyring(t, kek, store, nil)
	rows := seals(t, k, 2, 2)
	backup := copyOf(t, store)
	running(clock, func() { _, _ = k.Turn(t.Context(), nil) })
	n, err := opens(openKeyring(t, openTurningKEK(t, kek.path), backup, nil), rows)
	require.NoError(t, err)
	require.NotZero(t, n)
}

// Everybody reads, writes, creates, rotates and erases while the KEK turns, on nodes
// of their own.
func TestATurnUnderLoad(t *testing.T) {
	kek, store, clock := newTurningKEK(t), encrypt.NewMemory(), newClock(t)
	rows := seals(t, openKeyring(t, kek, store, nil), 5, 40)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var calls atomic.Int64
	var mu sync.Mutex
	for g := range 4 {
		node := openKeyring(t, openTurningKEK(t, kek.path), store, &encrypt.Options{CacheEntries: 16})
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				row := rows[(i*7+g)%len(rows)]
				mu.Unlock()
				plaintext, err := node.Open(acting(row.at.Tenant), row.at, row.sealed)
				if err != nil || string(plaintext) != row.at.Client {
					t.Errorf("open: %v", err)
					return
				}
				at := crmguard.Place{Tenant: fmt.Sprint("t", i%7), Client: fmt.Sprint("n", g, "-", i), Kind: "contacts", Record: "r", Field: "phone"}
				sealed, err := node.Seal(acting(at.Tenant), at, []byte(at.Client))
				if err != nil {
					t.Errorf("seal: %v", err)
					return
				}
				if i%5 == 0 {
					if _, err := node.Rotate(acting(at.Tenant), encrypt.Scope{Tenant: at.Tenant, Purpose: encrypt.DataKey, Name: at.Client}); err != nil {
						t.Errorf("rotate: %v", err)
					}
				}
				mu.Lock()
				rows = append(rows, sealedRow{at, sealed})
				mu.Unlock()
				calls.Add(1)
			}
		})
	}
	turner := openKeyring(t, openTurningKEK(t, kek.path), store, nil)
	for range 2 {
		runningBy(clock, 50*time.Millisecond, func() {
			_, err := turner.Turn(t.Context(), nil)
			require.NoError(t, err)
		})
	}
	close(stop)
	wg.Wait()
	require.NotZero(t, calls.Load())
	n, err := opens(openKeyring(t, openTurningKEK(t, kek.path), store, nil), rows)
	require.NoError(t, err)
	require.Equal(t, len(rows), n, "%d calls beside the turns", calls.Load())
	t.Log(calls.Load(), "calls")
}
