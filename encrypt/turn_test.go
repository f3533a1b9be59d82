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

// turningKEK is a key file whose calls are counted.
type turningKEK struct {
	encrypt.RotatingKEK
	path                                     string
	encrypts, decrypts, rotations, destroyed atomic.Int64
	keepOld                                  bool             // a planted fault: nothing is destroyed
	now                                      func() time.Time // nil: the key file's own clock
}

func newTurningKEK(tb testing.TB) *turningKEK {
	tb.Helper()
	return openTurningKEK(tb, tb.TempDir()+"/kek.json")
}

func openTurningKEK(tb testing.TB, path string) *turningKEK {
	tb.Helper()
	kek, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(tb, err)
	return &turningKEK{RotatingKEK: kek, path: path}
}

func (k *turningKEK) EncryptWithContext(ctx context.Context, b, ad []byte) ([]byte, error) {
	k.encrypts.Add(1)
	return k.RotatingKEK.EncryptWithContext(ctx, b, ad)
}

func (k *turningKEK) DecryptWithContext(ctx context.Context, b, ad []byte) ([]byte, error) {
	k.decrypts.Add(1)
	return k.RotatingKEK.DecryptWithContext(ctx, b, ad)
}

func (k *turningKEK) Rotate(ctx context.Context) error {
	k.rotations.Add(1)
	return k.RotatingKEK.Rotate(ctx)
}

func (k *turningKEK) DestroyOld(ctx context.Context) (time.Time, error) {
	k.destroyed.Add(1)
	if k.keepOld {
		return time.Now(), nil
	}
	gone, err := k.RotatingKEK.DestroyOld(ctx)
	if k.now != nil {
		gone = k.now()
	}
	return gone, err
}

func (k *turningKEK) calls() int64 { return k.encrypts.Load() + k.decrypts.Load() }

func (k *turningKEK) reset() { k.encrypts.Store(0); k.decrypts.Store(0) }

// running moves the clock on as long as something takes.
func running(c *clock, do func()) { runningBy(c, time.Second, do) }

// runningBy is running for calls that must not take longer than a lease by that clock.
func runningBy(c *clock, step time.Duration, do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	for {
		select {
		case <-done:
			return
		case <-time.After(2 * time.Millisecond):
			c.Advance(step)
		}
	}
}

// sealedRow is what some client had.
type sealedRow struct {
	at     crmguard.Place
	sealed []byte
}

func seals(tb testing.TB, k *encrypt.Keyring, tenants, clients int) (rows []sealedRow) {
	tb.Helper()
	for i := range tenants {
		for j := range clients {
			at := crmguard.Place{Tenant: fmt.Sprint("t", i), Client: fmt.Sprint("c", j), Kind: "contacts", Record: "r", Field: "phone"}
			sealed, err := k.Seal(acting(at.Tenant), at, []byte(at.Client))
			require.NoError(tb, err)
			rows = append(rows, sealedRow{at, sealed})
		}
	}
	return rows
}

// opens returns how many rows open with the right value, and the last error.
func opens(k *encrypt.Keyring, rows []sealedRow) (n int, last error) {
	for _, row := range rows {
		plaintext, err := k.Open(acting(row.at.Tenant), row.at, row.sealed)
		switch {
		case err != nil:
			last = err
		case string(plaintext) == row.at.Client:
			n++
		}
	}
	return n, last
}

func listRecords(tb testing.TB, s encrypt.Inventory) (all []encrypt.Record) {
	tb.Helper()
	for after := (encrypt.Record{}); ; after = all[len(all)-1] {
		page, err := s.List(context.Background(), after, 500)
		require.NoError(tb, err)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
	}
}

// copyOf is what a backup of a key store holds.
func copyOf(tb testing.TB, s encrypt.Inventory) *encrypt.Memory {
	tb.Helper()
	backup := encrypt.NewMemory()
	for _, r := range listRecords(tb, s) {
		_, err := backup.Insert(context.Background(), []encrypt.Record{r})
		require.NoError(tb, err)
	}
	return backup
}

func TestTurn(t *testing.T) {
	kek, store, clock := newTurningKEK(t), encrypt.NewMemory(), newClock(t)
	k := openKeyring(t, kek, store, &encrypt.Options{Clock: clock.Now})
	other := openKeyring(t, openTurningKEK(t, kek.path), store, nil)
	rows := seals(t, k, 10, 30)
	mac, err := k.MAC(t.Context(), home, []byte("x"))
	require.NoError(t, err)
	n, err := opens(other, rows)
	require.NoError(t, err)
	require.Equal(t, len(rows), n)
	backup := copyOf(t, store)

	kek.reset()
	var steps []string
	var last encrypt.TurnProgress
	var turned encrypt.Turned
	began := clock.Now()
	running(clock, func() {
		turned, err = k.Turn(t.Context(), func(p encrypt.TurnProgress) {
			if len(steps) == 0 || steps[len(steps)-1] != p.Step {
				steps = append(steps, p.Step)
			}
			last = p
		})
	})
	require.NoError(t, err)
	require.Equal(t, 11, turned.Tenants, "acme has a MAC key")
	require.Equal(t, 300+11+1, turned.Keys, "clients, receipts, a MAC")
	require.False(t, turned.BeganAt.Before(began))
	require.GreaterOrEqual(t, turned.EndedAt.Sub(turned.BeganAt), encrypt.Lease)
	require.False(t, turned.Gone.Before(turned.EndedAt))
	require.Equal(t, []string{encrypt.TurnWrapping, encrypt.TurnWaiting, encrypt.TurnWrapping, encrypt.TurnDestroying}, steps)
	require.Equal(t, encrypt.TurnProgress{Step: encrypt.TurnDestroying, Tenants: 11, AllTenants: 11, Keys: 312, AllKeys: 312}, last)
	require.EqualValues(t, 11+2, kek.encrypts.Load(), "one for a tenant, two for the check")
	require.EqualValues(t, 1, kek.decrypts.Load(), "the check")
	require.EqualValues(t, []int64{1, 1}, []int64{kek.rotations.Load(), kek.destroyed.Load()})

	for _, r := range listRecords(t, store) {
		switch r.Scope.Purpose {
		case encrypt.TenantKeyset, encrypt.KEKCheck:
			require.EqualValues(t, 2, r.Version, "the old ones are gone")
			require.Equal(t, byte(2), r.Wrapped[7], "the generation of the KEK")
		default:
			require.EqualValues(t, 1, r.Version)
			require.Equal(t, byte(2), r.Wrapped[7], "the version of the keyset")
		}
	}
	fresh := openKeyring(t, openTurningKEK(t, kek.path), store, nil)
	for _, k := range []*encrypt.Keyring{k, other, fresh} {
		n, err = opens(k, rows)
		require.NoError(t, err)
		require.Equal(t, len(rows), n)
		require.NoError(t, k.Verify(t.Context(), home, []byte("x"), mac))
		require.NoError(t, k.Check(t.Context()))
	}
	restored := openKeyring(t, openTurningKEK(t, kek.path), backup, nil)
	n, err = opens(restored, rows)
	require.Zero(t, n, "old key tables are of no use with the present KEK")
	require.ErrorIs(t, err, encrypt.ErrWrongKEK)

	// And again, cold: the old keyset is asked for besides.
	cold := openTurningKEK(t, kek.path)
	running(clock, func() { turned, err = openKeyring(t, cold, store, nil).Turn(t.Context(), nil) })
	require.NoError(t, err)
	require.Equal(t, []int{11, 312}, []int{turned.Tenants, turned.Keys})
	require.EqualValues(t, 2*11+3, cold.calls())
	n, err = opens(openKeyring(t, openTurningKEK(t, kek.path), store, nil), rows)
	require.NoError(t, err)
	require.Equal(t, len(rows), n)
}

func TestTurnRefuses(t *testing.T) {
	_, err := newKeyring(t, &counting{Store: encrypt.NewMemory()}, nil).Turn(t.Context(), nil)
	require.ErrorContains(t, err, "Inventory")
	_, err = openKeyring(t, newKEK(t), encrypt.NewMemory(), nil).Turn(t.Context(), nil)
	require.ErrorIs(t, err, encrypt.ErrNotRotating)
	closed, err := encrypt.New(newTurningKEK(t), encrypt.NewMemory(), nil)
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	_, err = closed.Turn(t.Context(), nil)
	require.ErrorContains(t, err, "the keyring is closed")
}

func TestTurnOfAnEmptyStore(t *testing.T) {
	clock, kek := newClock(t), newTurningKEK(t)
	k := openKeyring(t, kek, encrypt.NewMemory(), nil)
	running(clock, func() {
		_, err := k.Turn(t.Context(), nil)
		require.NoError(t, err)
	})
	n, err := opens(k, seals(t, k, 2, 2))
	require.NoError(t, err)
	require.Equal(t, 4, n)
}

// A key that does not unwrap ends a Turn before anything is destroyed.
func TestTurnStopsAtDamage(t *testing.T) {
	kek, store, clock := newTurningKEK(t), encrypt.NewMemory(), newClock(t)
	k := openKeyring(t, kek, store, nil)
	rows := seals(t, k, 2, 3)
	scope := encrypt.Scope{Tenant: "t1", Purpose: encrypt.DataKey, Name: "c1"}
	records, err := store.Load(t.Context(), []encrypt.Scope{scope})
	require.NoError(t, err)
	broken := records[0]
	broken.Wrapped = slices.Clone(broken.Wrapped)
	broken.Wrapped[20] ^= 1
	_, err = store.Replace(t.Context(), records, []encrypt.Record{broken})
	require.NoError(t, err)
	running(clock, func() { _, err = k.Turn(t.Context(), nil) })
	require.ErrorIs(t, err, encrypt.ErrDamaged)
	require.ErrorContains(t, err, "c1")
	require.Zero(t, kek.destroyed.Load())
	n, _ := opens(openKeyring(t, openTurningKEK(t, kek.path), store, nil), rows)
	require.Equal(t, len(rows)-1, n)

	_, err = store.Replace(t.Context(), []encrypt.Record{broken}, records)
	require.NoError(t, err)
	running(clock, func() { _, err = k.Turn(t.Context(), nil) })
	require.NoError(t, err)
	n, _ = opens(openKeyring(t, openTurningKEK(t, kek.path), store, nil), rows)
	require.Equal(t, len(rows), n)
}

// Of two processes that turn at once one works, and the other is told so.
func TestTwoTurnsAtOnce(t *testing.T) {
	kek, store, clock := newTurningKEK(t), encrypt.NewMemory(), newClock(t)
	rows := seals(t, openKeyring(t, kek, store, nil), 3, 4)
	for range 3 {
		var ok, refused atomic.Int64
		running(clock, func() {
			var wg sync.WaitGroup
			for range 4 {
				k := openKeyring(t, openTurningKEK(t, kek.path), store, nil)
				wg.Go(func() {
					switch _, err := k.Turn(t.Context(), nil); {
					case err == nil:
						ok.Add(1)
					case errors.Is(err, encrypt.ErrTurning):
						refused.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			wg.Wait()
		})
		require.NotZero(t, ok.Load())
		require.EqualValues(t, 4, ok.Load()+refused.Load())
		n, err := opens(openKeyring(t, openTurningKEK(t, kek.path), store, nil), rows)
		require.NoError(t, err)
		require.Equal(t, len(rows), n)
	}
}

// forgetful keeps no second check of the KEK, and says nothing of it.
type forgetful struct{ *encrypt.Memory }

func (f forgetful) Insert(ctx context.Context, fresh []encrypt.Record) ([]encrypt.Record, error) {
	if fresh[0].Scope.Purpose == encrypt.KEKCheck && fresh[0].Version > 1 {
		return nil, nil
	}
	return f.Memory.Insert(ctx, fresh)
}

func TestATurnThatTheStoreDoesNotKeepIsNone(t *testing.T) {
	kek := newTurningKEK(t)
	k := openKeyring(t, kek, forgetful{encrypt.NewMemory()}, nil)
	rows := seals(t, k, 1, 1)
	_, err := k.Turn(t.Context(), nil)
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
	require.Zero(t, kek.rotations.Load())
	n, err := opens(k, rows)
	require.NoError(t, err)
	require.Len(t, rows, n)
}
