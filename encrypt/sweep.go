package encrypt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// sweepAge is far above the time from making a client's key to the COMMIT of the
// first row. What is older than sweepUntil is never swept: had its row not been written, an
// earlier call would have found that.
const (
	sweepAge   = 24 * time.Hour
	sweepUntil = 7 * 24 * time.Hour
)

// sweepBatch is how many clients are asked for at once.
const sweepBatch = 500

// sweepLimit is how many of a tenant's clients may be missing. More are not those of a
// few transactions that were rolled back.
func sweepLimit(clients int) int { return min(max(clients/10, 3), 1000) }

// ErrSweep says that so many clients are missing that [Keyring.Sweep] has swept none.
var ErrSweep = errors.New("encrypt: too many clients do not exist: check that it is the right database, that it was not restored, and who has deleted clients; nothing was swept")

// Sweep erases the keys of a tenant's clients that were made one to seven days ago for
// rows which do not exist, because their transactions were rolled back. It asks exist
// which of some clients the host has, and returns how many it has closed; they are
// destroyed as by [Keyring.Erase]. Their ids are never used again: exist must also
// return those for which the host may yet write a row.
//
// Deleting rows in the host's database, or restoring an older one, must not
// destroy keys: older keys stay, and where more than a tenth of the
// tenant's clients, or more than 1000, would be swept (three are always allowed), none is, and
// the error is [ErrSweep]. A host calls it every day or more often; keys that it misses do no harm.
func (k *Keyring) Sweep(ctx context.Context, tenant string, exist func(ctx context.Context, clients []string) (existing []string, err error)) (swept int, err error) {
	inventory, ok := k.store.(Inventory)
	switch {
	case !ok:
		return 0, errInventory
	case k.closed.Load():
		return 0, errClosed
	}
	if err := checkSubject(ctx, tenant); err != nil {
		return 0, err
	}
	clients, all, err := k.sweepable(ctx, inventory, tenant)
	if err != nil {
		return 0, err
	}
	var orphans []string
	for part := range slices.Chunk(clients, sweepBatch) {
		existing, err := exist(ctx, slices.Clone(part))
		if err != nil {
			return 0, fmt.Errorf("encrypt: which clients exist: %w", err)
		}
		known := setOf(existing)
		for _, client := range part {
			if !known[client] {
				orphans = append(orphans, client)
			}
		}
	}
	if limit := sweepLimit(all); len(orphans) > limit {
		return 0, fmt.Errorf("%w: %d of %d, and at most %d may be", ErrSweep, len(orphans), all, limit)
	}
	for _, client := range orphans {
		if _, err := k.Erase(ctx, tenant, client); err != nil {
			return swept, err
		}
		swept++
	}
	return swept, nil
}

// sweepable are the clients in use whose first key is old enough and not too old. It also
// counts all clients in use.
func (k *Keyring) sweepable(ctx context.Context, inventory Inventory, tenant string) (clients []string, all int, err error) {
	now := k.wallClock()
	var last Scope
	for r, err := range inventoryOf(ctx, inventory, tenant, DataKey) {
		if err != nil {
			return nil, 0, err
		}
		oldest := r.Scope != last
		last = r.Scope
		if !oldest || r.Scope.Name == "" || r.State != Active {
			continue
		}
		all++
		// A version after the first was made for a row that was sealed anew.
		if age := now.Sub(r.CreatedAt); r.Version == 1 && age >= sweepAge && age < sweepUntil {
			clients = append(clients, r.Scope.Name)
		}
	}
	return clients, all, nil
}
