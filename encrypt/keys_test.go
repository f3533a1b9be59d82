package encrypt_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

// tampering changes records on their way out of a store.
type tampering struct {
	encrypt.Store
	change func(r *encrypt.Record)
}

func (s *tampering) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	records, err := s.Store.Load(ctx, scopes)
	for i := range records {
		if s.change != nil {
			s.change(&records[i])
		}
	}
	return records, err
}

// Whoever can write the key store cannot make one client's key serve as another's,
// another tenant's, another version's or for another purpose.
func TestAKeyServesItsScopeOnly(t *testing.T) {
	kek, memory := newKEK(t), encrypt.NewMemory()
	k := openKeyring(t, kek, memory, nil)
	ctx := acting("acme")
	sealed, err := k.Seal(ctx, client(1), []byte("x"))
	require.NoError(t, err)
	_, err = k.Seal(ctx, client(2), []byte("x"))
	require.NoError(t, err)
	_, err = k.Seal(ctx, crmguard.Place{Tenant: "acme"}, []byte("x"))
	require.NoError(t, err)
	_, err = k.Seal(acting("other"), crmguard.Place{Tenant: "other", Client: "c1"}, []byte("x"))
	require.NoError(t, err)

	stolen := map[string]encrypt.Scope{
		"client":  {Tenant: "acme", Purpose: encrypt.DataKey, Name: "c2"},
		"tenant":  {Tenant: "other", Purpose: encrypt.DataKey, Name: "c1"},
		"nobody":  {Tenant: "acme", Purpose: encrypt.DataKey},
		"version": {Tenant: "acme", Purpose: encrypt.DataKey, Name: "c1"},
	}
	for name, from := range stolen {
		t.Run(name, func(t *testing.T) {
			records, err := memory.Load(ctx, []encrypt.Scope{from})
			require.NoError(t, err)
			require.Len(t, records, 1)
			store := &tampering{Store: memory, change: func(r *encrypt.Record) {
				if r.Scope == (dataScope("c1")) {
					r.Wrapped = bytes.Clone(records[0].Wrapped)
					if name == "version" {
						r.Version = 2
					}
				}
			}}
			_, err = openKeyring(t, kek, store, nil).Open(ctx, client(1), sealed)
			require.ErrorIs(t, err, encrypt.ErrDamaged)
		})
	}
}

func TestAKeyIsMadeOnceHoweverManyAsk(t *testing.T) {
	kek, store := newKEK(t), &counting{Store: encrypt.NewMemory()}
	nodes := []*encrypt.Keyring{openKeyring(t, kek, store, nil), openKeyring(t, kek, store, nil)}
	ctx := acting("acme")
	sealed := racetest.Run(t, func(i int) ([]byte, error) { return nodes[i%2].Seal(ctx, home, []byte("x")) })
	fresh := openKeyring(t, kek, store, nil)
	for i := range sealed {
		for _, k := range append(nodes, fresh) {
			_, err := k.Open(ctx, home, sealed[i])
			require.NoError(t, err)
		}
	}
}

func TestColdKeysAreFetchedOnceHoweverManyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kek, store := newKEK(t), &counting{Store: encrypt.NewMemory()}
		ctx := acting("acme")
		sealed, err := openKeyring(t, kek, store, nil).Seal(ctx, home, []byte("x"))
		require.NoError(t, err)
		cold := openKeyring(t, kek, slow{store}, nil)
		kek.calls.Store(0)
		store.loads.Store(0)
		racetest.Run(t, func(int) ([]byte, error) { return cold.Open(ctx, home, sealed) })
		require.EqualValues(t, 1, kek.calls.Load())
		require.EqualValues(t, 1, store.loads.Load())
	})
}

// slow answers when all who ask have come: in a bubble of synctest time passes only then.
type slow struct{ encrypt.Store }

func (s slow) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	time.Sleep(100 * time.Millisecond)
	return s.Store.Load(ctx, scopes)
}

func TestWhoeverGivesUpDoesNotEndItForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kek, store := newKEK(t), encrypt.NewMemory()
		sealed, err := openKeyring(t, kek, store, nil).Seal(acting("acme"), home, []byte("x"))
		require.NoError(t, err)
		cold := openKeyring(t, kek, slow{store}, nil)
		impatient, cancel := context.WithCancel(acting("acme"))
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := cold.Open(impatient, home, sealed); !errors.Is(err, context.Canceled) {
				t.Errorf("canceled: %v", err)
			}
		})
		synctest.Wait() // it waits for the key store
		wg.Go(func() {
			if _, err := cold.Open(acting("acme"), home, sealed); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}

func TestKEKOutage(t *testing.T) {
	kek, store, clock := newKEK(t), encrypt.NewMemory(), newClock(t)
	ctx := acting("acme")
	k := openKeyring(t, kek, store, &encrypt.Options{Clock: clock.Now, CacheAge: time.Minute})
	sealed, err := k.Seal(ctx, home, []byte("x"))
	require.NoError(t, err)
	require.NoError(t, k.Check(ctx))

	kek.down.Store(true)
	_, err = k.Open(ctx, home, sealed)
	require.NoError(t, err, "cached keys go on")
	_, err = k.Seal(ctx, client(7), []byte("x"))
	require.NoError(t, err, "new clients of a tenant whose keyset is cached too")
	_, err = k.Seal(acting("new"), crmguard.Place{Tenant: "new", Client: "c1"}, []byte("x"))
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
	require.ErrorIs(t, err, errDown, "the cause can be seen")
	require.ErrorIs(t, k.Check(ctx), crmguard.ErrUnavailable)

	clock.Advance(time.Minute)
	_, err = k.Open(ctx, home, sealed)
	require.ErrorIs(t, err, crmguard.ErrUnavailable, "until their age runs out")
	kek.down.Store(false)
	_, err = k.Open(ctx, home, sealed)
	require.NoError(t, err)
}

// Keys that did not come are not available, whoever gave up: nobody shall take that for a
// value that somebody has changed.
func TestWhoeverGivesUpKeysAreNotAvailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kek, store := newKEK(t), encrypt.NewMemory()
		sealed, err := openKeyring(t, kek, store, nil).Seal(acting("acme"), home, []byte("x"))
		require.NoError(t, err)
		for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
			_, err = openKeyring(t, endedKEK{kek, cause}, store, nil).Open(acting("acme"), home, sealed)
			require.ErrorIs(t, err, crmguard.ErrUnavailable, "the KEK: %v", cause)
			require.ErrorIs(t, err, cause)

			ctx, cancel := context.WithTimeout(acting("acme"), time.Millisecond)
			if errors.Is(cause, context.Canceled) {
				cancel()
			}
			_, err = openKeyring(t, kek, slow{store}, nil).Open(ctx, home, sealed)
			cancel()
			require.ErrorIs(t, err, crmguard.ErrUnavailable, "the caller: %v", cause)
			require.ErrorIs(t, err, cause)
			time.Sleep(time.Second) // the flight ends
		}
	})
}

// endedKEK has given up on its own.
type endedKEK struct {
	tink.AEADWithContext
	err error
}

func (k endedKEK) DecryptWithContext(context.Context, []byte, []byte) ([]byte, error) {
	return nil, k.err
}

func TestAWrongKEKIsNoticedBeforeItDoesHarm(t *testing.T) {
	store := encrypt.NewMemory()
	ctx := acting("acme")
	sealed, err := newKeyring(t, store, nil).Seal(ctx, home, []byte("x"))
	require.NoError(t, err)
	wrong := newKeyring(t, store, nil)
	require.ErrorIs(t, wrong.Check(ctx), encrypt.ErrWrongKEK)
	_, err = wrong.Open(ctx, home, sealed)
	require.ErrorIs(t, err, encrypt.ErrWrongKEK)
	_, err = wrong.Seal(acting("new"), crmguard.Place{Tenant: "new", Client: "c1"}, []byte("x"))
	require.ErrorIs(t, err, encrypt.ErrWrongKEK, "no second set of keys is begun")
	records, err := store.Load(ctx, []encrypt.Scope{{Tenant: "new", Purpose: encrypt.TenantKeyset}})
	require.NoError(t, err)
	require.Empty(t, records)
}

// brokenStore fails while down.
type brokenStore struct {
	encrypt.Store
	down atomic.Bool
}

func (s *brokenStore) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	if s.down.Load() {
		return nil, errDown
	}
	return s.Store.Load(ctx, scopes)
}

func (s *brokenStore) Closing(ctx context.Context) (int64, []encrypt.Record, error) {
	if s.down.Load() {
		return 0, nil, errDown
	}
	return s.Store.Closing(ctx)
}

// Without the key store nobody knows whether a client was erased elsewhere, so
// cached keys end with the lease.
func TestKeyStoreOutage(t *testing.T) {
	store, clock := &brokenStore{Store: encrypt.NewMemory()}, newClock(t)
	ctx := acting("acme")
	k := newKeyring(t, store, &encrypt.Options{Clock: clock.Now})
	sealed, err := k.Seal(ctx, home, []byte("x"))
	require.NoError(t, err)
	store.down.Store(true)
	require.ErrorIs(t, k.Check(ctx), crmguard.ErrUnavailable)
	clock.Advance(encrypt.Lease - time.Second)
	_, err = k.Open(ctx, home, sealed)
	require.NoError(t, err)
	clock.Advance(time.Second)
	_, err = k.Open(ctx, home, sealed)
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
	store.down.Store(false)
	_, err = k.Open(ctx, home, sealed)
	require.NoError(t, err)
}

func TestClosedKeyring(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	ctx := acting("acme")
	sealed, err := k.Seal(ctx, home, nil)
	require.NoError(t, err)
	require.NotZero(t, k.Cached())
	require.NoError(t, k.Close())
	require.Zero(t, k.Cached(), "no key stays in memory")
	for name, call := range map[string]func() error{
		"Seal":           func() error { _, err := k.Seal(ctx, home, nil); return err },
		"Open":           func() error { _, err := k.Open(ctx, home, sealed); return err },
		"MAC":            func() error { _, err := k.MAC(ctx, home, nil); return err },
		"Check":          func() error { return k.Check(ctx) },
		"Erase":          func() error { _, err := k.Erase(ctx, "acme", "c1"); return err },
		"Receipt":        func() error { _, err := k.Receipt(ctx, "acme", "c1"); return err },
		"FinishErasures": func() error { _, err := k.FinishErasures(job("acme")); return err },
		"Replay":         func() error { _, err := k.Replay(job("acme")); return err },
		"Rotate":         func() error { _, err := k.Rotate(ctx, homeKey); return err },
		"Retire":         func() error { _, err := k.Retire(ctx, homeKey, 1); return err },
		"Sweep":          func() error { _, err := k.Sweep(ctx, "acme", nil); return err },
	} {
		require.ErrorContains(t, call(), "the keyring is closed", name)
	}
}

func TestNewRefuses(t *testing.T) {
	kek := newKEK(t)
	for _, o := range []*encrypt.Options{{CacheAge: -1}, {CacheEntries: -1}, {BackupRetention: -1}, {IndexLife: -1}} {
		_, err := encrypt.New(kek, encrypt.NewMemory(), o)
		require.Error(t, err)
	}
	_, err := encrypt.New(nil, encrypt.NewMemory(), nil)
	require.Error(t, err)
	_, err = encrypt.New(kek, nil, nil)
	require.Error(t, err)
}

// anyKEK decrypts everything, to something of its own.
type anyKEK struct{ tink.AEADWithContext }

func (anyKEK) DecryptWithContext(context.Context, []byte, []byte) ([]byte, error) {
	return []byte("no check of a KEK"), nil
}

func TestAKEKThatDecryptsEverythingIsTheWrongOne(t *testing.T) {
	kek, store := newKEK(t), encrypt.NewMemory()
	require.NoError(t, openKeyring(t, kek, store, nil).Check(t.Context()))
	k := openKeyring(t, anyKEK{kek}, store, nil)
	require.ErrorIs(t, k.Check(t.Context()), encrypt.ErrWrongKEK)
	_, err := k.Seal(acting("acme"), home, nil)
	require.ErrorIs(t, err, encrypt.ErrWrongKEK, "nor does it begin a second set of keys")
}
