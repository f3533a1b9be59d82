package encrypt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
)

var (
	errInventory = errors.New("encrypt: the key store is no Inventory")
	errRotate    = errors.New("encrypt: keys of clients, tenants, indexes and MACs are rotated one by one; tenants' keysets turn with the KEK")
	errReceipts  = errors.New("encrypt: the key of receipts stays, or old receipts would not hold any more")
	errNewest    = errors.New("encrypt: the newest version of a key is not retired")
)

// Rotate makes the next version of a data, index or MAC key and returns it. Calls that
// begin now seal with it, in other processes from [Lease] on; what was sealed before
// opens until [Keyring.Retire]. Of calls at the same time one makes it. A scope
// that never had a key is [ErrNoKey], and one whose key is [ErrDamaged] gets none. Rotate and
// Retire need a subject of the tenant.
func (k *Keyring) Rotate(ctx context.Context, s Scope) (version uint32, err error) {
	if err := k.checkRotation(ctx, s); err != nil {
		return 0, err
	}
	keys, err := k.loadScope(ctx, s, false)
	if err == nil {
		err = keys.usable(&s)
	}
	if err != nil {
		return 0, err
	}
	version = keys.newest().version + 1
	if err := k.makeVersion(ctx, s, version); err != nil {
		return 0, err
	}
	return version, k.reread(ctx, s)
}

// RotateClients makes the next version of the key of each client of a tenant whose newest
// version was made before a given time, and returns for how many. A call that was cut off is
// continued by another one with the same time. Erased clients are left out. Progress, which may be nil,
// is called after every 500 keys that were looked at, whether or not any was rotated;
// its error ends the call. [Table.Reencrypt] comes next.
//
// Clients whose key is damaged stay as they are and keep no other from getting a new one; at the
// end they are an [ErrDamaged] that names them, the first hundred if there are more. A tenant that never had a key is [ErrNoKey].
func (k *Keyring) RotateClients(ctx context.Context, tenant string, before time.Time, progress func(ctx context.Context, rotated int) error) (rotated int, err error) {
	if err := k.checkRotation(ctx, ClientScope(tenant, "")); err != nil {
		return 0, err
	}
	inventory, ok := k.store.(Inventory)
	if !ok {
		return 0, errInventory
	}
	keysets, err := k.keysets(ctx, tenant)
	if err != nil {
		return 0, err
	}
	if _, err := k.tenantKey(ctx, keysets, keysets[len(keysets)-1].Version); err != nil {
		return 0, err // which would be said of each client
	}
	var newest Record
	var damaged damagedKeys
	rotate := func() error {
		if newest.Scope.Name == "" || newest.State != Active || !newest.CreatedAt.Before(before) {
			return nil
		}
		switch _, err := k.Rotate(ctx, newest.Scope); {
		case errors.Is(err, crmguard.ErrErased): // meanwhile
			return nil
		case errors.Is(err, ErrDamaged):
			damaged.add(fmt.Errorf("%w: client %q", err, newest.Scope.Name))
			return nil
		case err != nil:
			return err
		}
		rotated++
		return nil
	}
	looked := 0
	for r, err := range inventoryOf(ctx, inventory, tenant, DataKey) {
		if err != nil {
			return rotated, err
		}
		if r.Scope != newest.Scope {
			if err := rotate(); err != nil {
				return rotated, err
			}
		}
		newest = r
		if looked++; progress != nil && looked%inventoryPage == 0 {
			if err := progress(ctx, rotated); err != nil {
				return rotated, err
			}
		}
	}
	if err := rotate(); err != nil {
		return rotated, err
	}
	return rotated, damaged.err()
}

// Retire removes the versions of a key below the one that before names, and returns how
// many there were. What is still sealed under them is lost: it is [ErrRetired], here
// at once and elsewhere within [Lease]. So seal everything anew first: [Table.Reencrypt], begun
// [Lease] and [LongestTransaction] after [Keyring.Rotate], when nothing more comes under the older version.
func (k *Keyring) Retire(ctx context.Context, s Scope, before uint32) (removed int, err error) {
	if err := k.checkRotation(ctx, s); err != nil {
		return 0, err
	}
	inventory, ok := k.store.(Inventory)
	if !ok {
		return 0, errInventory
	}
	records, err := k.versions(ctx, s)
	if err != nil {
		return 0, err
	}
	if before > records[len(records)-1].Version {
		return 0, errNewest
	}
	var was, now []Record
	for _, r := range records {
		if r.Version < before {
			was = append(was, r)
			r.Wrapped = nil
			now = append(now, r)
		}
	}
	if removed, err = inventory.Replace(ctx, was, now); err != nil {
		return removed, unavailable("key store", err)
	}
	return removed, k.reread(ctx, s)
}

// reread puts a scope as it is now into the cache, which a full cache may make room for: so a
// job that rotates thousands leaves there what it has rotated last.
func (k *Keyring) reread(ctx context.Context, s Scope) error {
	k.changed.add(s, k.clock.exact())
	keys, err := k.loadScope(ctx, s, false)
	if err != nil {
		return err
	}
	return keys.usable(&s)
}

func (k *Keyring) checkRotation(ctx context.Context, s Scope) error {
	switch {
	case k.closed.Load():
		return errClosed
	case s.Purpose != DataKey && s.Purpose != IndexKey && s.Purpose != MACKey:
		return errRotate
	case s == receiptScope(s.Tenant):
		return errReceipts
	}
	if err := checkName(s.Tenant, s.Name); err != nil {
		return err
	}
	return checkSubject(ctx, s.Tenant)
}

// versions returns the records of a scope that is in use.
func (k *Keyring) versions(ctx context.Context, s Scope) ([]Record, error) {
	records, err := k.stored(ctx, s)
	switch {
	case err != nil:
		return nil, err
	case len(records) == 0:
		return nil, ErrNoKey
	case records[0].State != Active:
		return nil, crmguard.ErrErased
	}
	return records, nil
}
