package encrypt

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Erase closes a client: this process seals and opens nothing of the client from
// now on, others follow within [Lease], and the client's index rows are deleted.
// The key is destroyed by [Keyring.FinishErasures]. Erase may be called again, and
// should be after an error: it goes on where it stopped and returns how far the
// erasure has come. A client without any data is closed too.
//
// The receipt also lists copies, which the host knows of, for whoever has to delete them;
// those of earlier calls stay in it. Where the KEK does not answer, the client is closed all
// the same, and the receipt comes without its MAC, beside the error.
func (k *Keyring) Erase(ctx context.Context, tenant, client string, copies ...Copy) (Receipt, error) {
	scope, err := k.erasing(ctx, tenant, client)
	if err != nil {
		return Receipt{}, err
	}
	for _, c := range copies {
		if err := checkName(c.What, c.Where); err != nil {
			return Receipt{}, err
		}
	}
	record, err := k.close(ctx, scope, k.wallClock())
	if err != nil {
		return Receipt{}, err
	}
	record, err = k.dropIndex(ctx, record, func(n *receiptNote) { n.addCopies(copies) })
	return k.issue(ctx, record, nil, err)
}

// close moves a scope to Closing, if it was active.
func (k *Keyring) close(ctx context.Context, scope Scope, at time.Time) (Record, error) {
	record, err := k.store.Advance(ctx, scope, Closing, at)
	if err != nil {
		return Record{}, unavailable("key store", err)
	}
	// What was read of the client before this moment is not used any more, even if the
	// cache should forget what it is told next.
	number := k.changed.add(scope, k.clock.exact())
	k.cache.put(&scopeKeys{scope: scope, state: max(record.State, Closing), loaded: k.now(), generation: k.generation.Load(), change: number})
	if record.State == Closing {
		k.seen.add(scope, k.clock.exact())
	}
	return record, nil
}

// Receipt reads how far an erasure has come and changes nothing. After a
// [Keyring.Turn] its dates may be earlier. Without an erasure it is [ErrNotErased], and
// [ErrDamaged] where the store calls destroyed what still has a key. States and dates in the
// key store carry no MAC: whoever writes it can lie in them.
func (k *Keyring) Receipt(ctx context.Context, tenant, client string) (Receipt, error) {
	scope, err := k.erasing(ctx, tenant, client)
	if err != nil {
		return Receipt{}, err
	}
	records, err := k.stored(ctx, scope)
	switch {
	case err != nil:
		return Receipt{}, err
	case len(records) == 0 || records[0].State == Active:
		return Receipt{}, ErrNotErased
	}
	newest := records[len(records)-1]
	for _, r := range records {
		if newest.State == Destroyed && len(r.Wrapped) > 0 {
			return Receipt{}, fmt.Errorf("%w: version %d of %q is called destroyed and has a key", ErrDamaged, r.Version, scope)
		}
	}
	return k.issue(ctx, newest, nil, nil)
}

// issue makes the receipt of what was done, also when failed says that it was not all.
// The eras of tenants that are known already need not be read again.
func (k *Keyring) issue(ctx context.Context, record Record, eras map[string]era, failed error) (Receipt, error) {
	tenant := record.Scope.Tenant
	e, known := eras[tenant]
	var err error
	if record.State == Destroyed && !known {
		if e, err = k.era(ctx, tenant); err != nil {
			return Receipt{}, errors.Join(failed, err)
		}
		if eras != nil {
			eras[tenant] = e
		}
	}
	receipt, err := k.receipt(record, e)
	if err := errors.Join(failed, err); err != nil {
		return receipt, err
	}
	signed, err := k.sign(ctx, receipt)
	if err != nil {
		return receipt, fmt.Errorf("encrypt: authenticate a receipt: %w", err)
	}
	return signed, nil
}

// erasing returns the scope of a client whose erasure is ordered or looked at.
func (k *Keyring) erasing(ctx context.Context, tenant, client string) (Scope, error) {
	switch {
	case client == "":
		return Scope{}, errors.New("encrypt: erase whom? empty client")
	case k.closed.Load():
		return Scope{}, errClosed
	}
	if err := checkName(tenant, client); err != nil {
		return Scope{}, err
	}
	return Scope{tenant, DataKey, client}.clone(), checkSubject(ctx, tenant)
}

// closing asks the store what is closing, and remembers since when.
func (k *Keyring) closing(ctx context.Context) (revision int64, closing []Record, err error) {
	revision, closing, err = k.store.Closing(ctx)
	if err != nil {
		return 0, nil, unavailable("key store", err)
	}
	scopes := make([]Scope, len(closing))
	for i := range closing {
		scopes[i] = closing[i].Scope
	}
	k.seen.only(scopes, k.clock.exact())
	return revision, closing, nil
}

// dropIndex deletes the index rows of a client, and notes before which other records
// are found with the same values: nobody can tell afterwards.
func (k *Keyring) dropIndex(ctx context.Context, record Record, also func(n *receiptNote)) (Record, error) {
	if k.opts.Index == nil {
		return k.note(ctx, record, also)
	}
	duplicates, err := k.opts.Index.Duplicates(ctx, record.Scope.Tenant, record.Scope.Name)
	if err != nil {
		return record, fmt.Errorf("encrypt: duplicates of a closed client: %w", err)
	}
	record, err = k.note(ctx, record, func(n *receiptNote) {
		also(n)
		n.addDuplicates(duplicates)
	})
	if err != nil {
		return record, err
	}
	rows, err := k.opts.Index.DropClient(ctx, record.Scope.Tenant, record.Scope.Name)
	if err != nil {
		return record, fmt.Errorf("encrypt: delete index rows of a closed client: %w", err)
	}
	return k.note(ctx, record, func(n *receiptNote) { n.IndexRows += rows })
}
