package encrypt_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

// cut is a store that fails for good at a call, and a KEK that does with it.
type cut struct {
	encrypt.Inventory
	encrypt.Store
	left atomic.Int64
}

var errCut = errors.New("cut off")

func (c *cut) call() error {
	if c.left.Add(-1) < 0 {
		return errCut
	}
	return nil
}

func (c *cut) Load(ctx context.Context, s []encrypt.Scope) ([]encrypt.Record, error) {
	if err := c.call(); err != nil {
		return nil, err
	}
	return c.Store.Load(ctx, s)
}

func (c *cut) Insert(ctx context.Context, r []encrypt.Record) ([]encrypt.Record, error) {
	if err := c.call(); err != nil {
		return nil, err
	}
	return c.Store.Insert(ctx, r)
}

func (c *cut) Lease(ctx context.Context, r []encrypt.Record, n uint64) ([]encrypt.Record, error) {
	if err := c.call(); err != nil {
		return nil, err
	}
	return c.Store.Lease(ctx, r, n)
}

func (c *cut) List(ctx context.Context, after encrypt.Record, limit int) ([]encrypt.Record, error) {
	if err := c.call(); err != nil {
		return nil, err
	}
	return c.Inventory.List(ctx, after, limit)
}

func (c *cut) Replace(ctx context.Context, was, now []encrypt.Record) (int, error) {
	if err := c.call(); err != nil {
		return 0, err
	}
	return c.Inventory.Replace(ctx, was, now)
}

// cutKEK ends with its store.
type cutKEK struct {
	*turningKEK
	store *cut
}

func (k cutKEK) Rotate(ctx context.Context) error {
	if err := k.store.call(); err != nil {
		return err
	}
	return k.turningKEK.Rotate(ctx)
}

func (k cutKEK) DestroyOld(ctx context.Context) (time.Time, error) {
	if err := k.store.call(); err != nil {
		return time.Time{}, err
	}
	return k.turningKEK.DestroyOld(ctx)
}

// Whichever call is the last one before a process dies, everything opens, and the
// next Turn ends what it began.
func TestATurnThatIsCutOff(t *testing.T) {
	for after := int64(0); ; after++ {
		kek, memory, clock := newTurningKEK(t), encrypt.NewMemory(), newClock(t)
		rows := seals(t, openKeyring(t, kek, memory, nil), 3, 4)
		backup := copyOf(t, memory)
		store := &cut{Inventory: memory, Store: memory}
		store.left.Store(after)
		dying := openKeyring(t, cutKEK{openTurningKEK(t, kek.path), store}, store, nil)
		var died error
		running(clock, func() { _, died = dying.Turn(t.Context(), nil) })
		check := func(when string) {
			t.Helper()
			n, err := opens(openKeyring(t, openTurningKEK(t, kek.path), memory, nil), rows)
			require.NoError(t, err, "%s, after %d calls", when, after)
			require.Equal(t, len(rows), n)
		}
		check("cut off")
		added := openKeyring(t, openTurningKEK(t, kek.path), memory, nil)
		rows = append(rows, seals(t, added, 5, 5)...)
		var turned encrypt.Turned
		var err error
		running(clock, func() {
			turned, err = openKeyring(t, openTurningKEK(t, kek.path), memory, nil).Turn(t.Context(), nil)
		})
		require.NoError(t, err, "after %d calls", after)
		require.Equal(t, 5, turned.Tenants)
		check("turned")
		n, _ := opens(openKeyring(t, openTurningKEK(t, kek.path), backup, nil), rows)
		require.Zero(t, n)
		for _, r := range listRecords(t, memory) {
			if r.Scope.Purpose == encrypt.KEKCheck {
				require.False(t, r.ClosedAt.IsZero(), "and nothing is left to do")
				require.Equal(t, bytes.Count(r.Note, []byte(`"began_at"`)), bytes.Count(r.Note, []byte(`"ended_at"`)), "what was cut off has no place in the history")
			}
		}
		if died == nil {
			require.Greater(t, after, int64(20))
			return
		}
	}
}
