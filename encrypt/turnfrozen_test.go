package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

// frozen is the key store of a process that stands still for longer than others wait, once.
type frozen struct {
	*encrypt.Memory
	mu               sync.RWMutex // held while the process stands still
	stopped, resumed chan struct{}
	stands           string // when
}

func (f *frozen) stand() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stands = ""
	close(f.stopped)
	<-f.resumed
}

// Lease is how others see that the process is alive.
func (f *frozen) Lease(ctx context.Context, keys []encrypt.Record, n uint64) ([]encrypt.Record, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.Memory.Lease(ctx, keys, n)
}

func (f *frozen) Insert(ctx context.Context, fresh []encrypt.Record) ([]encrypt.Record, error) {
	if f.stands == storingKeyset && fresh[0].Scope.Purpose == encrypt.TenantKeyset {
		f.stand()
	}
	records, err := f.Memory.Insert(ctx, fresh)
	if f.stands == claimed && fresh[0].Scope.Purpose == encrypt.KEKCheck {
		f.stand()
	}
	return records, err
}

func (f *frozen) Replace(ctx context.Context, was, now []encrypt.Record) (int, error) {
	does := ""
	if len(now) > 0 {
		switch first := now[0]; {
		case first.Scope.Purpose == encrypt.TenantKeyset:
			does = removingKeysets
		case first.Scope.Purpose != encrypt.KEKCheck:
			does = wrappingKeys
		case len(first.Wrapped) > 0 && first.ClosedAt.IsZero():
			does = rotated
		}
	}
	if does != "" && f.stands == does {
		f.stand()
	}
	n, err := f.Memory.Replace(ctx, was, now)
	if does == removingKeysets && f.stands == keysetsRemoved {
		f.stand()
	}
	return n, err
}

// hookedKEK lets something happen before old keys are destroyed, and after a rotation.
type hookedKEK struct {
	*turningKEK
	destroying, rotated func()
	asksNobody          bool // a planted fault: it destroys what others have rotated away from
}

func (k *hookedKEK) Rotate(ctx context.Context) error {
	err := k.turningKEK.Rotate(ctx)
	if k.rotated != nil {
		k.rotated()
	}
	return err
}

func (k *hookedKEK) DestroyOld(ctx context.Context) (time.Time, error) {
	if k.destroying != nil {
		k.destroying()
	}
	if k.asksNobody {
		now, err := encrypt.OpenKeyFile(k.path, "", false)
		if err != nil {
			return time.Time{}, err
		}
		return now.DestroyOld(ctx)
	}
	return k.turningKEK.DestroyOld(ctx)
}

// When a Turn stands still, and when it goes on beside the one of another process.
const (
	claimed         = "it has begun"
	rotated         = "the KEK has rotated"
	storingKeyset   = "a new keyset is being stored"
	wrappingKeys    = "keys under a new keyset are being stored"
	removingKeysets = "old keysets are being removed"
	keysetsRemoved  = "old keysets are removed"
	destroyingKEK   = "old keys of the KEK are being destroyed"

	otherRotated  = "the other has rotated"
	otherWrapping = "the other wraps keys"
	otherEnded    = "the other has ended"
)

// turnBesideAFrozenOne returns an error unless the Turn that stood still gives way, the
// other one ends well, and all rows open afterwards.
func turnBesideAFrozenOne(t *testing.T, stands, goesOn string, asksNobody bool) error {
	clock, memory := newClock(t), encrypt.NewMemory()
	store := &frozen{Memory: memory, stopped: make(chan struct{}), resumed: make(chan struct{}), stands: stands}
	frozenKEK := &hookedKEK{turningKEK: newTurningKEK(t), asksNobody: asksNobody}
	if stands == destroyingKEK {
		frozenKEK.destroying = store.stand
	}
	rows := seals(t, openKeyring(t, frozenKEK, memory, nil), 3, 4)
	var first error
	ended := make(chan struct{})
	k := openKeyring(t, frozenKEK, store, nil)
	go func() {
		defer close(ended)
		running(clock, func() { _, first = k.Turn(t.Context(), nil) })
	}()
	<-store.stopped
	resume := sync.OnceFunc(func() {
		close(store.resumed)
		<-ended
	})
	otherKEK := &hookedKEK{turningKEK: openTurningKEK(t, frozenKEK.path)}
	if goesOn == otherRotated {
		otherKEK.rotated = resume
	}
	var second error
	running(clock, func() {
		_, second = openKeyring(t, otherKEK, memory, nil).Turn(t.Context(), func(p encrypt.TurnProgress) {
			if goesOn == otherWrapping && p.Step == encrypt.TurnWrapping {
				resume()
			}
		})
	})
	resume()
	n, err := opens(openKeyring(t, openTurningKEK(t, frozenKEK.path), memory, nil), rows)
	switch {
	case err != nil || n != len(rows):
		return fmt.Errorf("%d of %d rows open: %w", n, len(rows), err)
	case second != nil:
		return fmt.Errorf("the other: %w", second)
	case !errors.Is(first, encrypt.ErrTurning):
		return fmt.Errorf("the one that stood still has ended with %w", first)
	case stands != destroyingKEK && frozenKEK.destroyed.Load() > 0:
		return errors.New("it destroyed keys of the KEK though another has taken over")
	}
	return nil
}

func TestATurnThatStoodStillDestroysNothingOfTheNext(t *testing.T) {
	for _, stands := range []string{claimed, rotated, storingKeyset, wrappingKeys, removingKeysets, keysetsRemoved, destroyingKEK} {
		for _, goesOn := range []string{otherRotated, otherWrapping, otherEnded} {
			require.NoError(t, turnBesideAFrozenOne(t, stands, goesOn, false), "%s, %s", stands, goesOn)
		}
	}
	require.Error(t, turnBesideAFrozenOne(t, destroyingKEK, otherRotated, true), "the check notices a KEK that asks nobody")
}
