package encrypt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNotRotating says that the KEK is no [RotatingKEK].
	ErrNotRotating = errors.New("encrypt: the key-encryption key cannot rotate")
	// ErrTurning says that another call of [Keyring.Turn], here or in another process,
	// is under way, or has taken over.
	ErrTurning = errors.New("encrypt: another turn of the key-encryption key is under way")
)

// Steps of a Turn, in their order; it may wait and wrap several times.
const (
	TurnWrapping   = "wrapping"   // new keysets for tenants, and their keys under these
	TurnWaiting    = "waiting"    // until no process works any more with what it had read of the old keysets
	TurnDestroying = "destroying" // the old keysets and the older keys of the KEK
)

// TurnProgress is how far a [Keyring.Turn] has come.
type TurnProgress struct {
	Step                string
	Tenants, AllTenants int // that have their new keyset; of how many there were at the beginning
	Keys, AllKeys       int // that are wrapped anew; likewise
}

// Turned is what a [Keyring.Turn] has done.
type Turned struct {
	Tenants, Keys    int // keysets made; keys wrapped anew
	BeganAt, EndedAt time.Time
	Gone             time.Time // when the last copy of the older keys of the KEK is gone
}

// turn is the memory of one Turn in the note of the newest KEK check.
type turn struct {
	Generation  uint32    `json:"generation"`
	BeganAt     time.Time `json:"began_at"`
	OldestIndex time.Time `json:"oldest_index,omitzero"` // when the oldest index key of all tenants was made that existed then
	EndedAt     time.Time `json:"ended_at,omitzero"`
	Gone        time.Time `json:"gone,omitzero"`
}

// Turn replaces the KEK: it rotates, every tenant gets a new keyset under the new KEK,
// all other keys are wrapped anew under that keyset without asking the KEK, and then
// the old keysets and the older keys of the KEK are destroyed. So nothing in older
// copies of the key store can be unwrapped any more, neither the keys of erased clients
// nor any other: a backup of the key store made after a Turn is the first good one.
//
// Everybody reads and writes on meanwhile: the store refuses new keys under the old keysets
// from the moment when there is a new one. Turn takes [Lease] and more, because it
// waits until no process works with what it has read before. It asks the KEK
// once per tenant whose keyset is in the cache, twice for others, and a few times more.
// Before it destroys anything, a key that cannot be unwrapped ends it with [ErrDamaged]:
// restore or erase that one.
//
// One that was cut off is begun anew by the next call, which waits another Lease to see
// that nobody is at it; until then all is as usable as before. The KEK must be a
// [RotatingKEK], or it is [ErrNotRotating]. Progress may be nil; it is called from
// Turn's own goroutine.
func (k *Keyring) Turn(ctx context.Context, progress func(TurnProgress)) (Turned, error) {
	kek, ok := k.kek.(RotatingKEK)
	if !ok {
		return Turned{}, ErrNotRotating
	}
	inventory, ok := k.store.(Inventory)
	switch {
	case !ok:
		return Turned{}, errInventory
	case k.closed.Load():
		return Turned{}, errClosed
	case progress == nil:
		progress = func(TurnProgress) {}
	}
	if err := checkHost(ctx); err != nil {
		return Turned{}, err
	}
	t := &turning{k: k, kek: kek, inventory: inventory, tell: progress}
	if err := t.claim(ctx); err != nil {
		return Turned{}, err
	}
	held, stop := t.hold(ctx)
	err := t.run(held)
	if lost := stop(); lost != nil {
		return t.done, lost
	}
	if err != nil && !errors.Is(err, ErrTurning) && errors.Is(t.alive(ctx), ErrTurning) {
		err = fmt.Errorf("%w: %w", ErrTurning, err) // what failed was in the other's way
	}
	return t.done, err
}

// turning is a Turn under way.
type turning struct {
	k         *Keyring
	kek       RotatingKEK
	inventory Inventory
	tell      func(TurnProgress)

	claimed  Record // by scope and version
	check    Record // of that version, which is the new generation
	history  []turn // with this Turn at the end
	made     int64  // when, on the exact clock, the last new keyset was stored
	progress TurnProgress
	done     Turned
}

func (t *turning) run(ctx context.Context) error {
	if err := t.rotate(ctx); err != nil {
		return err
	}
	if err := t.wrapAll(ctx); err != nil {
		return err
	}
	return t.destroy(ctx)
}

// rotate makes the KEK's new key, and the check says so from then on.
func (t *turning) rotate(ctx context.Context) error {
	if err := t.alive(ctx); err != nil {
		return err
	}
	if err := t.kek.Rotate(ctx); err != nil {
		return unavailable("KEK", err)
	}
	next, err := t.k.newCheck(ctx, t.check.Version, t.check.Version)
	if err != nil {
		return err
	}
	next.CreatedAt, next.Note = t.check.CreatedAt, t.check.Note
	if err := t.replaceCheck(ctx, next); err != nil {
		return err
	}
	t.made = t.k.clock.exact()
	return nil
}

func (t *turning) replaceCheck(ctx context.Context, next Record) error {
	n, err := t.inventory.Replace(ctx, []Record{t.check}, []Record{next})
	if err != nil {
		return unavailable("key store", err)
	}
	if n != 1 {
		return ErrTurning
	}
	t.check = next
	return nil
}

// wrapAll goes over all keys until nothing is left, and nothing can come any more.
func (t *turning) wrapAll(ctx context.Context) error {
	for {
		t.progress.Step = TurnWrapping
		w := wrapping{turning: t}
		before := t.done
		for page, err := range inventoryPages(ctx, t.inventory, Record{}) {
			if err == nil {
				err = w.page(ctx, page)
			}
			if err != nil {
				return err
			}
		}
		if err := w.damaged.err(); err != nil {
			return err
		}
		rest := Lease - time.Duration(t.k.clock.exact()-t.made)
		if rest <= 0 && t.done == before {
			return nil
		}
		if rest > 0 {
			t.progress.Step = TurnWaiting
			t.tell(t.progress)
			if err := t.k.sleep(ctx, rest); err != nil {
				return err
			}
		}
	}
}

// destroy removes what is not needed any more, and notes that the Turn has ended.
func (t *turning) destroy(ctx context.Context) error {
	t.progress.Step = TurnDestroying
	t.tell(t.progress)
	if err := t.removeKeysets(ctx); err != nil {
		return err
	}
	if err := t.alive(ctx); err != nil {
		return err
	}
	gone, err := t.kek.DestroyOld(ctx)
	if err != nil {
		return unavailable("KEK", err)
	}
	checks, err := t.k.stored(ctx, kekCheckScope)
	if err != nil {
		return err
	}
	var older []Record
	for _, r := range checks {
		if r.Version < t.check.Version {
			older = append(older, r)
		}
	}
	if err := t.remove(ctx, older); err != nil {
		return err
	}
	next := t.check
	next.ClosedAt = t.k.wallClock()
	next.DestroyedAt = latest(gone, next.ClosedAt).UTC().Truncate(time.Microsecond)
	t.done.EndedAt, t.done.Gone = next.ClosedAt, next.DestroyedAt
	last := &t.history[len(t.history)-1]
	last.EndedAt, last.Gone = next.ClosedAt, next.DestroyedAt
	if next.Note, err = json.Marshal(t.history); err != nil {
		return fmt.Errorf("encrypt: turn: %w", err)
	}
	return t.replaceCheck(ctx, next)
}

// removeKeysets removes what is older than the keysets that this Turn has made.
func (t *turning) removeKeysets(ctx context.Context) error {
	var remove, older []Record
	for page, err := range inventoryPages(ctx, t.inventory, Record{}) {
		if err != nil {
			return err
		}
		for _, r := range page {
			if r.Scope.Purpose != TenantKeyset {
				continue
			}
			if len(older) > 0 && older[0].Scope != r.Scope {
				older = nil
			}
			if generation, _, err := parse(r.Wrapped, algorithmKeyset, 1); err == nil && generation == t.check.Version {
				remove = append(remove, older...)
			}
			older = append(older, r)
		}
	}
	return t.remove(ctx, remove)
}

func (t *turning) remove(ctx context.Context, old []Record) error {
	now := make([]Record, len(old))
	for i, r := range old {
		r.Wrapped = nil
		now[i] = r
	}
	if _, err := t.inventory.Replace(ctx, old, now); err != nil {
		return unavailable("key store", err)
	}
	return nil
}
