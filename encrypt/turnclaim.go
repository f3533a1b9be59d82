package encrypt

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/internal/uptime"
)

// claim makes sure that no other Turn is under way: whoever stores the next version of
// the KEK check may turn.
func (t *turning) claim(ctx context.Context) error {
	k := t.k
	check, err := k.checkKEK(ctx)
	if err != nil {
		return err
	}
	if check.Version > 1 && check.ClosedAt.IsZero() {
		if err := k.sleep(ctx, Lease); err != nil {
			return err
		}
		before := check.Record
		if check, err = k.checkKEK(ctx); err != nil {
			return err
		}
		if check.Version != before.Version || check.Messages != before.Messages {
			return ErrTurning
		}
	}
	if t.history, err = parseNote[[]turn](check.Record); err != nil {
		return err
	}
	if n := len(t.history); n > 0 && t.history[n-1].EndedAt.IsZero() {
		t.history = t.history[:n-1]
	}
	if t.check, err = k.newCheck(ctx, check.Version+1, check.generation); err != nil {
		return err
	}
	t.claimed = Record{Scope: kekCheckScope, Version: t.check.Version}
	began := turn{Generation: t.check.Version, BeganAt: t.check.CreatedAt}
	if began.OldestIndex, err = t.survey(ctx); err != nil {
		return err
	}
	t.history = append(t.history, began)
	t.done.BeganAt = began.BeganAt
	if t.check.Note, err = json.Marshal(t.history); err != nil {
		return fmt.Errorf("encrypt: turn: %w", err)
	}
	stored, err := k.store.Insert(ctx, []Record{t.check})
	if err != nil {
		return unavailable("key store", err)
	}
	if len(stored) == 0 {
		return errNotKept
	}
	if newest := stored[len(stored)-1]; newest.Version != t.check.Version || !bytes.Equal(newest.Wrapped, t.check.Wrapped) {
		return ErrTurning
	}
	return nil
}

// survey counts what there is to do, and finds the oldest index key.
func (t *turning) survey(ctx context.Context) (oldestIndex time.Time, err error) {
	var last Scope
	for page, err := range inventoryPages(ctx, t.inventory, Record{}) {
		if err != nil {
			return oldestIndex, err
		}
		for _, r := range page {
			switch {
			case r.Scope.Purpose == KEKCheck || len(r.Wrapped) == 0:
			case r.Scope.Purpose == TenantKeyset:
				if r.Scope != last {
					t.progress.AllTenants++
				}
				last = r.Scope
			default:
				t.progress.AllKeys++
				if r.Scope.Purpose == IndexKey && (oldestIndex.IsZero() || r.CreatedAt.Before(oldestIndex)) {
					oldestIndex = r.CreatedAt
				}
			}
		}
	}
	return oldestIndex, nil
}

// hold tells other processes that this one is alive until stop is called, which returns
// an error when somebody has taken over all the same, as if it were not. The context
// ends then.
func (t *turning) hold(ctx context.Context) (held context.Context, stop func() error) {
	held, cancel := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() {
		for t.k.sleep(held, Lease/4) == nil {
			if err := t.alive(held); err != nil && held.Err() == nil {
				cancel(err)
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	return held, func() error {
		cancel(nil)
		return <-ended
	}
}

// alive counts this Turn's messages, of which others see that they grow, and fails
// when one of them has begun another Turn.
func (t *turning) alive(ctx context.Context) error {
	if _, err := t.k.store.Lease(ctx, []Record{t.claimed}, 1); err != nil {
		return unavailable("key store", err)
	}
	records, err := t.k.stored(ctx, kekCheckScope)
	if err != nil {
		return err
	}
	if len(records) == 0 || records[len(records)-1].Version != t.claimed.Version {
		return ErrTurning
	}
	return nil
}

// sleep waits on the clock that leases run on.
func (k *Keyring) sleep(ctx context.Context, d time.Duration) error {
	for end := k.clock.exact() + int64(d); ; {
		rest := time.Duration(end - k.clock.exact())
		if rest <= 0 {
			return ctx.Err()
		}
		if uptime.Moved() != nil { // nobody tells when
			rest = min(rest, time.Millisecond)
		}
		timer := time.NewTimer(rest)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}
