package signin

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
)

// tallyEvery is how often refusals of strangers become an entry.
const tallyEvery = time.Minute

// tally adds up refusals of one kind until they are due to be recorded.
type tally struct {
	mu     sync.Mutex
	counts map[string]int       // not yet recorded, by reason
	due    map[string]time.Time // when the next entry may be made
}

// add counts one refusal and returns how many to record now, 0 for none.
func (t *tally) add(reason string, now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = make(map[string]int)
	}
	if t.due == nil {
		t.due = make(map[string]time.Time)
	}
	t.counts[reason]++
	if now.Before(t.due[reason]) {
		return 0
	}
	n := t.counts[reason]
	t.counts[reason], t.due[reason] = 0, now.Add(tallyEvery)
	return n
}

// putBack counts what could not be recorded.
func (t *tally) putBack(reason string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = make(map[string]int)
	}
	t.counts[reason] += n
}

// rest returns and forgets what was not recorded.
func (t *tally) rest() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := t.counts
	t.counts = nil
	return counts
}

// noteStranger records, now and then, that somebody was refused of whom nothing
// is known. A journal that fails does not stop the refusal.
func (d *Door) noteStranger(ctx context.Context, a Attempt, reason string) {
	now := d.o.Clock()
	if n := d.strangers.add(reason, now); n > 0 {
		if err := d.recordStrangers(ctx, a, reason, n, now); err != nil {
			d.o.Logger.ErrorContext(ctx, "signin: refusals were not recorded", "reason", reason, "count", n, "error", err)
		}
	}
}

func (d *Door) recordStrangers(ctx context.Context, a Attempt, reason string, n int, now time.Time) error {
	err := d.record(ctx, crmguard.Event{
		Time:   now,
		Action: crmguard.SignIn, Outcome: crmguard.Denied, Reason: reason, Count: n, Request: a.Request,
		Subject:  crmguard.Subject{Tenant: d.o.Tenant, Addr: a.Addr}, // nobody
		Resource: crmguard.Resource{Tenant: d.o.Tenant, Kind: resourceKind},
	})
	if err != nil {
		d.strangers.putBack(reason, n)
	}
	return err
}

// Close records the refusals that are not yet in the journal.
func (d *Door) Close(ctx context.Context) error {
	var errs []error
	for reason, n := range d.strangers.rest() {
		if n > 0 {
			errs = append(errs, d.recordStrangers(ctx, Attempt{}, reason, n, d.o.Clock()))
		}
	}
	return errors.Join(errs...)
}
