package encrypt_test

import (
	"context"
	"errors"
	"fmt"
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
	*encrypt.Memory
	gate atomic.Pointer[gate]
}

func (h *held) Insert(ctx context.Context, r []encrypt.Record) ([]encrypt.Record, error) {
	if gate := h.gate.Swap(nil); gate != nil {
		gate.pass()
	}
	return h.Memory.Insert(ctx, r)
}

// oneWalk is a store in which a Turn sees nothing when it goes over all keys again.
type oneWalk struct {
	*encrypt.Memory
	walks atomic.Int64
}

func (o *oneWalk) List(ctx context.Context, after encrypt.Record, limit int) ([]encrypt.Record, error) {
	if after.Scope == (encrypt.Scope{}) && after.Version == 0 {
		o.walks.Add(1)
	}
	if o.walks.Load() == 3 { // the first is the survey, the last one finds the old keysets
		return nil, nil
	}
	return o.Memory.List(ctx, after, limit)
}

// turnBesideASlowNode lets another node read which keyset is the newest, and store a key
// under it when the Turn waits, or not before its end. It returns an error
// unless what that node sealed opens afterwards.
func turnBesideASlowNode(t *testing.T, turning interface {
	encrypt.Store
	encrypt.Inventory
}, memory *encrypt.Memory, slow encrypt.Store, gates *atomic.Pointer[gate], late bool) error {
	kek, clock := newTurningKEK(t), newClock(t)
	k := openKeyring(t, kek, turning, nil)
	seals(t, k, 1, 3)
	node := openKeyring(t, openTurningKEK(t, kek.path), slow, nil)
	at := crmguard.Place{Tenant: "t0", Client: "slow", Kind: "contacts", Record: "r", Field: "phone"}
	_, err := node.Seal(acting("t0"), crmguard.Place{Tenant: "t0"}, nil) // warms the tenant
	require.NoError(t, err)
	g := newGate()
	gates.Store(g)
	var sealed []byte
	var sealing error
	done := make(chan struct{})
	go func() {
		defer close(done)
		sealed, sealing = node.Seal(acting("t0"), at, []byte("slow"))
	}()
	<-g.waiting
	store := func() {
		close(g.open)
		<-done
	}
	waiting := make(chan struct{})
	turned := make(chan struct{})
	go func() {
		defer close(turned)
		once := false
		if _, err := k.Turn(t.Context(), func(p encrypt.TurnProgress) {
			if p.Step != encrypt.TurnWaiting || once {
				return
			}
			once = true
			if !late {
				store()
			}
			close(waiting)
		}); err != nil {
			t.Error(err)
		}
	}()
	<-waiting
	running(clock, func() { <-turned })
	if late {
		store()
	}
	if sealing != nil {
		return sealing
	}
	plaintext, err := openKeyring(t, openTurningKEK(t, kek.path), memory, nil).Open(acting("t0"), at, sealed)
	if err == nil && string(plaintext) != "slow" {
		err = errors.New("another value")
	}
	return err
}

func TestATurnFindsWhatOthersWrapMeanwhile(t *testing.T) {
	store := &held{Memory: encrypt.NewMemory()}
	require.NoError(t, turnBesideASlowNode(t, store.Memory, store.Memory, store, &store.gate, false))
	faulty := &held{Memory: encrypt.NewMemory()}
	require.Error(t, turnBesideASlowNode(t, &oneWalk{Memory: faulty.Memory}, faulty.Memory, faulty, &faulty.gate, false),
		"the check notices a Turn without a second walk")
}

// unlisted hides that a store can replace.
type unlisted struct{ encrypt.Store }

func TestWhoeverStoresAKeyAfterATurnWrapsItAgain(t *testing.T) {
	store := &held{Memory: encrypt.NewMemory()}
	require.NoError(t, turnBesideASlowNode(t, store.Memory, store.Memory, store, &store.gate, true))
	faulty := &held{Memory: encrypt.NewMemory()}
	require.Error(t, turnBesideASlowNode(t, faulty.Memory, faulty.Memory, unlisted{faulty}, &faulty.gate, true),
		"the check notices a node that does not look again")
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
