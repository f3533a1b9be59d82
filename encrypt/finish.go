package encrypt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ErrNoIndex says that an erasure cannot be finished, or an index ended, because the tenant has keys of
// an index and this process was not given Options.Index to delete its rows.
var ErrNoIndex = errors.New("encrypt: there may be index rows, and Options.Index is missing to delete them")

// FinishErasures destroys the keys of clients, of all tenants, that were closed at
// least [ClosingTime] ago, by the clock and by what this process has seen itself: one
// that has just started waits as long again. It also deletes index rows that late
// transactions have left, and repeats that every hour for a day for those whose keys this process has
// destroyed: a machine may have been suspended meanwhile. Hosts call it every minute or so.
//
// What fails is tried again by the next call; the receipts of what succeeded are returned beside the
// error. Where a key was destroyed and only its receipt could not be authenticated,
// [Keyring.Receipt] makes that receipt later. Without Options.Index, clients of tenants with an
// index stay closing: [ErrNoIndex].
func (k *Keyring) FinishErasures(ctx context.Context) (finished []Receipt, err error) {
	if k.closed.Load() {
		return nil, errClosed
	}
	if err := checkHost(ctx); err != nil {
		return nil, err
	}
	_, closing, err := k.closing(ctx)
	if err != nil {
		return nil, err
	}
	failed := []error{k.dropAgain(ctx)}
	now := k.wallClock()
	f := newFinisher(k)
	for _, record := range closing {
		if now.Before(record.ClosedAt.Add(ClosingTime)) || k.seen.add(record.Scope, k.now()) < ClosingTime {
			continue
		}
		if f.refusal(ctx, record) != nil {
			continue // said below, once for a tenant
		}
		record, err := k.dropIndex(ctx, record, func(*receiptNote) {})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if record, err = f.destroy(ctx, record, now); err != nil {
			failed = append(failed, err)
			continue
		}
		receipt, err := k.issue(ctx, record, f.eras, nil)
		if err != nil {
			failed = append(failed, err)
		}
		finished = append(finished, receipt)
	}
	return finished, errors.Join(append(failed, f.refusals())...)
}

// finisher is the one way to the end of an erasure. It remembers what it was told of tenants.
type finisher struct {
	keys      *Keyring
	eras      map[string]era
	migrating map[string]error
	indexed   map[string]error
}

func newFinisher(k *Keyring) *finisher {
	return &finisher{k, make(map[string]era), make(map[string]error), make(map[string]error)}
}

// destroy deletes the key of a client that is closed and has no index rows any more. If the
// process ends before, the scope is still closing and all is done again. Without the key
// a receipt promises that nothing can be read: nothing is destroyed while that would not be true.
func (f *finisher) destroy(ctx context.Context, record Record, now time.Time) (Record, error) {
	if err := f.refusal(ctx, record); err != nil {
		return Record{}, err
	}
	record, err := f.keys.store.Advance(ctx, record.Scope, Destroyed, now)
	if err != nil {
		return Record{}, unavailable("key store", err)
	}
	f.keys.gone.add(record, f.keys.clock.exact())
	return record, nil
}

// refusal says why a client has to stay closing. What is destroyed already may have index rows,
// in a database that was restored, but no plaintext waits for it.
func (f *finisher) refusal(ctx context.Context, record Record) error {
	tenant := record.Scope.Tenant
	if record.State != Destroyed {
		if err := once(f.migrating, tenant, func() error { return f.keys.notMigrating(ctx, tenant) }); err != nil {
			return err
		}
	}
	return once(f.indexed, tenant, func() error { return f.keys.indexAtHand(ctx, tenant) })
}

// refusals are the reasons why clients stay closing, of each tenant.
func (f *finisher) refusals() error {
	var all []error
	for _, known := range []map[string]error{f.migrating, f.indexed} {
		for _, tenant := range slices.Sorted(maps.Keys(known)) {
			all = append(all, known[tenant])
		}
	}
	return errors.Join(all...)
}

// once asks for each tenant one time.
func once(known map[string]error, tenant string, ask func() error) error {
	err, asked := known[tenant]
	if !asked {
		err = ask()
		known[tenant] = err
	}
	return err
}

// indexAtHand is [ErrNoIndex] for a tenant with keys of an [Index] that was not given.
func (k *Keyring) indexAtHand(ctx context.Context, tenant string) error {
	inventory, ok := k.store.(Inventory)
	if k.opts.Index != nil || !ok {
		return nil
	}
	for r, err := range inventoryOf(ctx, inventory, tenant, IndexKey) {
		if err != nil {
			return err
		}
		if inIndex(r.Scope) {
			return fmt.Errorf("%w: tenant %q", ErrNoIndex, tenant)
		}
	}
	return nil
}
