package encrypt

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Receipt says how far the erasure of a client has come, and until when backups
// may still hold what could be read.
type Receipt struct {
	Tenant          string    `json:"tenant"`
	Client          string    `json:"client"`
	State           string    `json:"state"` // closing or destroyed
	ClosedAt        time.Time `json:"closed_at"`
	DestroyedAt     time.Time `json:"destroyed_at,omitzero"`
	UnreadableAfter time.Time `json:"unreadable_after"` // no backup holds the key any more
	UnlinkableAfter time.Time `json:"unlinkable_after"` // no backup holds an index value that could be tested
	IndexRows       int       `json:"index_rows"`       // deleted by this call
}

// Erase closes a client: this process seals and opens nothing of the client from
// now on, others follow within [Lease], and the client's index rows are deleted.
// The key is destroyed by [Keyring.FinishErasures]. Erase may be called again, and
// should be after an error: it goes on where it stopped and returns how far the
// erasure has come. A client without any data is closed too.
func (k *Keyring) Erase(ctx context.Context, tenant, client string) (Receipt, error) {
	switch {
	case tenant == "":
		return Receipt{}, errTenant
	case client == "":
		return Receipt{}, errors.New("encrypt: erase whom? empty client")
	case k.closed.Load():
		return Receipt{}, errClosed
	}
	if err := checkName(tenant, client); err != nil {
		return Receipt{}, err
	}
	if err := checkSubject(ctx, tenant); err != nil {
		return Receipt{}, err
	}
	scope := Scope{tenant, DataKey, client}
	record, err := k.store.Advance(ctx, scope, Closing, k.wallClock())
	if err != nil {
		return Receipt{}, unavailable("key store", err)
	}
	k.cache.put(&scope, &scopeKeys{scope: scope, state: max(record.State, Closing), loaded: k.now(), generation: k.generation.Load()})
	return k.dropIndex(ctx, record)
}

// FinishErasures destroys the keys of clients, of all tenants, that were closed at
// least [ClosingTime] ago, and deletes index rows that late transactions have left.
// Hosts call it every minute or so. What fails is tried again by the next call;
// the receipts of what succeeded are returned beside the error.
func (k *Keyring) FinishErasures(ctx context.Context) (finished []Receipt, err error) {
	if k.closed.Load() {
		return nil, errClosed
	}
	_, closing, err := k.store.Closing(ctx)
	if err != nil {
		return nil, unavailable("key store", err)
	}
	var failed []error
	now := k.wallClock()
	for _, record := range closing {
		if now.Before(record.ClosedAt.Add(ClosingTime)) {
			continue
		}
		receipt, err := k.destroy(ctx, record, now)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		finished = append(finished, receipt)
	}
	return finished, errors.Join(failed...)
}

// destroy deletes index rows first: if the process ends in between, the scope is
// still closing and all is done again.
func (k *Keyring) destroy(ctx context.Context, record Record, now time.Time) (Receipt, error) {
	dropped, err := k.dropIndex(ctx, record)
	if err != nil {
		return Receipt{}, err
	}
	if record, err = k.store.Advance(ctx, record.Scope, Destroyed, now); err != nil {
		return Receipt{}, unavailable("key store", err)
	}
	receipt := k.receipt(record)
	receipt.IndexRows = dropped.IndexRows
	return receipt, nil
}

func (k *Keyring) dropIndex(ctx context.Context, record Record) (Receipt, error) {
	receipt := k.receipt(record)
	if k.opts.Index == nil {
		return receipt, nil
	}
	rows, err := k.opts.Index.DropClient(ctx, record.Scope.Tenant, record.Scope.Name)
	if err != nil {
		return receipt, fmt.Errorf("encrypt: delete index rows of a closed client: %w", err)
	}
	receipt.IndexRows = rows
	return receipt, nil
}

// receipt counts from the destruction or, until then, from its earliest time.
func (k *Keyring) receipt(record Record) Receipt {
	gone := record.DestroyedAt
	if record.State != Destroyed {
		gone = record.ClosedAt.Add(ClosingTime)
	}
	return Receipt{
		Tenant: record.Scope.Tenant, Client: record.Scope.Name, State: record.State.String(),
		ClosedAt: record.ClosedAt, DestroyedAt: record.DestroyedAt,
		UnreadableAfter: gone.Add(k.opts.BackupRetention),
		UnlinkableAfter: gone.Add(k.opts.IndexLife),
	}
}
