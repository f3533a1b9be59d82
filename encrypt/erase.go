package encrypt

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	UnreadableAfter time.Time `json:"unreadable_after,omitzero"` // no backup holds the key any more; zero until the key is destroyed
	UnlinkableAfter time.Time `json:"unlinkable_after,omitzero"` // no backup holds an index value that could be tested; zero likewise
	IndexRows       int       `json:"index_rows"`                // deleted by this call
}

// Erase closes a client: this process seals and opens nothing of the client from
// now on, others follow within [Lease], and the client's index rows are deleted.
// The key is destroyed by [Keyring.FinishErasures]. Erase may be called again, and
// should be after an error: it goes on where it stopped and returns how far the
// erasure has come. A client without any data is closed too.
func (k *Keyring) Erase(ctx context.Context, tenant, client string) (Receipt, error) {
	scope, err := k.erasing(ctx, tenant, client)
	if err != nil {
		return Receipt{}, err
	}
	record, err := k.store.Advance(ctx, scope, Closing, k.wallClock())
	if err != nil {
		return Receipt{}, unavailable("key store", err)
	}
	// Whatever was read before this moment is not used any more, even if the cache
	// should forget what it is told next.
	k.generation.Add(1)
	k.cache.put(&scope, &scopeKeys{scope: scope, state: max(record.State, Closing), loaded: k.now(), generation: k.generation.Load()})
	if record.State == Closing {
		k.seen.add(scope, k.clock.exact())
	}
	return k.dropIndex(ctx, record)
}

// Receipt reads how far an erasure has come and changes nothing. Without an
// erasure it is [ErrNotErased].
func (k *Keyring) Receipt(ctx context.Context, tenant, client string) (Receipt, error) {
	scope, err := k.erasing(ctx, tenant, client)
	if err != nil {
		return Receipt{}, err
	}
	records, err := k.store.Load(ctx, []Scope{scope})
	switch {
	case err != nil:
		return Receipt{}, unavailable("key store", err)
	case len(records) == 0 || records[0].State == Active:
		return Receipt{}, ErrNotErased
	}
	return k.receipt(records[len(records)-1]), nil
}

// erasing returns the scope of a client whose erasure is ordered or looked at.
func (k *Keyring) erasing(ctx context.Context, tenant, client string) (Scope, error) {
	switch {
	case tenant == "":
		return Scope{}, errTenant
	case client == "":
		return Scope{}, errors.New("encrypt: erase whom? empty client")
	case k.closed.Load():
		return Scope{}, errClosed
	}
	if err := checkName(tenant, client); err != nil {
		return Scope{}, err
	}
	return Scope{tenant, DataKey, client}, checkSubject(ctx, tenant)
}

// sightings remember since when this process has known scopes to be closing, on
// its own clock: those of two nodes may differ by more than a key has left.
type sightings struct {
	mu    sync.Mutex
	since map[Scope]int64
}

func (s *sightings) add(scope Scope, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.since[scope]; known {
		return
	}
	if s.since == nil {
		s.since = make(map[Scope]int64)
	}
	s.since[scope] = now
}

// update takes in all scopes that are closing and forgets the others.
func (s *sightings) update(closing []Record, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := make(map[Scope]int64, len(closing))
	for _, r := range closing {
		first, known := s.since[r.Scope]
		if !known {
			first = now
		}
		since[r.Scope] = first
	}
	s.since = since
}

// longEnough says whether a scope has been seen closing for [ClosingTime].
func (s *sightings) longEnough(scope Scope, now int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, known := s.since[scope]
	return known && now-first >= int64(ClosingTime)
}

// closing asks the store what is closing, and remembers since when.
func (k *Keyring) closing(ctx context.Context) (revision int64, closing []Record, err error) {
	revision, closing, err = k.store.Closing(ctx)
	if err != nil {
		return 0, nil, unavailable("key store", err)
	}
	k.seen.update(closing, k.clock.exact())
	return revision, closing, nil
}

// FinishErasures destroys the keys of clients, of all tenants, that were closed at
// least [ClosingTime] ago, by the clock and by what this process has seen itself: one
// that has just started waits as long again. It also deletes index rows that late
// transactions have left. Hosts call it every minute or so. What fails is tried again
// by the next call; the receipts of what succeeded are returned beside the error.
func (k *Keyring) FinishErasures(ctx context.Context) (finished []Receipt, err error) {
	if k.closed.Load() {
		return nil, errClosed
	}
	_, closing, err := k.closing(ctx)
	if err != nil {
		return nil, err
	}
	var failed []error
	now := k.wallClock()
	for _, record := range closing {
		if now.Before(record.ClosedAt.Add(ClosingTime)) || !k.seen.longEnough(record.Scope, k.now()) {
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

// receipt counts from the destruction: until then nobody knows the dates.
func (k *Keyring) receipt(record Record) Receipt {
	receipt := Receipt{
		Tenant: record.Scope.Tenant, Client: record.Scope.Name, State: record.State.String(),
		ClosedAt: record.ClosedAt, DestroyedAt: record.DestroyedAt,
	}
	if record.State == Destroyed {
		receipt.UnreadableAfter = record.DestroyedAt.Add(k.opts.BackupRetention)
		receipt.UnlinkableAfter = record.DestroyedAt.Add(k.opts.IndexLife)
	}
	return receipt
}
