package encrypt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// sweepAge is far above the time from making a client's key to the COMMIT of the
// first row.
const sweepAge = 24 * time.Hour

// sweepBatch is how many clients are asked for at once.
const sweepBatch = 500

var errSweep = errors.New("encrypt: not one of the clients exists: is that the right database? Nothing was swept")

// Sweep erases the keys of a tenant's clients that were made at least a day ago for
// rows which do not exist, because their transactions were rolled back. It asks exist
// which of some clients the host has, and returns how many it has closed; they are
// destroyed as by [Keyring.Erase]. Their ids are never used again: exist must also
// return those for which the host may yet write a row.
//
// When exist knows not one of ten clients or more, nothing is swept, because that is
// rather a wrong database.
func (k *Keyring) Sweep(ctx context.Context, tenant string, exist func(ctx context.Context, clients []string) (existing []string, err error)) (swept int, err error) {
	inventory, ok := k.store.(Inventory)
	switch {
	case tenant == "":
		return 0, errTenant
	case !ok:
		return 0, errInventory
	case k.closed.Load():
		return 0, errClosed
	}
	if err := checkSubject(ctx, tenant); err != nil {
		return 0, err
	}
	clients, err := k.oldClients(ctx, inventory, tenant)
	if err != nil {
		return 0, err
	}
	var orphans []string
	for part := range slices.Chunk(clients, sweepBatch) {
		existing, err := exist(ctx, slices.Clone(part))
		if err != nil {
			return 0, fmt.Errorf("encrypt: which clients exist: %w", err)
		}
		known := make(map[string]bool, len(existing))
		for _, client := range existing {
			known[client] = true
		}
		for _, client := range part {
			if !known[client] {
				orphans = append(orphans, client)
			}
		}
	}
	if len(orphans) == len(clients) && len(clients) >= 10 {
		return 0, errSweep
	}
	for _, client := range orphans {
		if _, err := k.Erase(ctx, tenant, client); err != nil {
			return swept, err
		}
		swept++
	}
	return swept, nil
}

// oldClients are those in use that have had a key for sweepAge.
func (k *Keyring) oldClients(ctx context.Context, inventory Inventory, tenant string) (clients []string, err error) {
	made := k.wallClock().Add(-sweepAge)
	for after := (Record{Scope: Scope{Tenant: tenant, Purpose: DataKey}}); ; {
		page, err := inventory.List(ctx, after, 1000)
		if err != nil {
			return nil, unavailable("key store", err)
		}
		for _, r := range page {
			if r.Scope.Tenant != tenant || r.Scope.Purpose != DataKey {
				return clients, nil
			}
			oldest := r.Scope != after.Scope
			after = r
			if oldest && r.Scope.Name != "" && r.State == Active && !r.CreatedAt.After(made) {
				clients = append(clients, r.Scope.Name)
			}
		}
		if len(page) == 0 {
			return clients, nil
		}
	}
}
