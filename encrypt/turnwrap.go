package encrypt

import (
	"context"
	"errors"
	"fmt"
)

// wrapping goes once over all keys of a Turn.
type wrapping struct {
	*turning
	tenant  *tenantTurn // the one whose keys come now
	damaged damagedKeys
}

// tenantTurn is one tenant's share of a Turn.
type tenantTurn struct {
	scope   Scope
	records []Record // its keysets
	newest  uint32   // the one under the new generation of the KEK
	keysets map[uint32]*tenantKeyset
}

// page wraps anew what is not under the newest keyset of its tenant.
func (w *wrapping) page(ctx context.Context, page []Record) error {
	var was, now []Record
	for _, r := range page {
		if r.Scope.Tenant == "" {
			continue // the check of the KEK
		}
		if w.tenant == nil || w.tenant.scope.Tenant != r.Scope.Tenant {
			if err := w.begin(ctx, r.Scope.Tenant); err != nil {
				return err
			}
		}
		if r.Scope.Purpose == TenantKeyset || len(r.Wrapped) == 0 {
			continue
		}
		next, err := w.wrap(ctx, r)
		switch {
		case errors.Is(err, ErrDamaged):
			w.damaged.add(err)
		case err != nil:
			return err
		case next != nil:
			was, now = append(was, r), append(now, *next)
		}
	}
	if len(was) > 0 {
		n, err := w.inventory.Replace(ctx, was, now)
		if err != nil {
			return unavailable("key store", err)
		}
		w.done.Keys += n
		w.progress.Keys += n
	}
	w.tell(w.progress)
	return nil
}

// wrap returns nil for a key that is under the newest keyset already.
func (w *wrapping) wrap(ctx context.Context, r Record) (*Record, error) {
	version, _, err := parse(r.Wrapped, algorithmWrapped, keySize)
	if err != nil {
		return nil, fmt.Errorf("%w: version %d of %q", ErrDamaged, r.Version, r.Scope)
	}
	if version == w.tenant.newest {
		return nil, nil
	}
	from, err := w.keyset(ctx, version)
	if err != nil {
		return nil, err
	}
	to, err := w.keyset(ctx, w.tenant.newest)
	if err != nil {
		return nil, err
	}
	next, err := rewrap(r, from, to)
	return &next, err
}

// keyset holds what the cache might forget between two keys of a tenant.
func (w *wrapping) keyset(ctx context.Context, version uint32) (*tenantKeyset, error) {
	if known := w.tenant.keysets[version]; known != nil {
		return known, nil
	}
	keyset, err := w.k.tenantKey(ctx, w.tenant.records, version)
	if err != nil {
		return nil, err
	}
	w.tenant.keysets[version] = keyset
	return keyset, nil
}

// begin makes the tenant's new keyset, unless it has one.
func (w *wrapping) begin(ctx context.Context, tenant string) error {
	scope := Scope{Tenant: tenant, Purpose: TenantKeyset}
	records, err := w.k.stored(ctx, scope)
	if err != nil {
		return err
	}
	w.tenant = &tenantTurn{scope: scope, records: records, keysets: make(map[uint32]*tenantKeyset)}
	if len(records) == 0 {
		return nil // it has erased clients at most
	}
	newest := records[len(records)-1]
	w.tenant.newest = newest.Version
	generation, _, err := parse(newest.Wrapped, algorithmKeyset, 1)
	if err != nil {
		return fmt.Errorf("%w: the keyset of tenant %q", ErrDamaged, tenant)
	}
	if generation == w.check.Version {
		return nil
	}
	fresh, err := w.k.newKeyset(scope, newest.Version+1)
	if err != nil {
		return err
	}
	record, err := fresh.wrapped(ctx, w.k, &kekCheck{Record: w.check, generation: w.check.Version})
	if err != nil {
		return err
	}
	byScope := make(map[Scope][]Record)
	mine, err := w.k.insert(ctx, []Record{record}, byScope)
	if err != nil {
		return err
	}
	if !mine[scope] {
		return ErrTurning // only a Turn makes the next version
	}
	w.made = w.k.clock.exact()
	w.k.rememberKeyset(fresh.tenantKeyset)
	w.tenant.records, w.tenant.newest = byScope[scope], record.Version
	w.tenant.keysets[record.Version] = fresh.tenantKeyset
	w.done.Tenants++
	w.progress.Tenants++
	return nil
}

// rewrap returns a record whose key, wrapped by one keyset, is wrapped by another.
func rewrap(r Record, from, to *tenantKeyset) (Record, error) {
	_, payload, err := parse(r.Wrapped, algorithmWrapped, keySize)
	if err != nil {
		return Record{}, fmt.Errorf("%w: version %d of %q", ErrDamaged, r.Version, r.Scope)
	}
	secret, err := from.unwrap(nil, &r, payload, new([]byte))
	if err != nil {
		return Record{}, fmt.Errorf("%w: version %d of %q", err, r.Version, r.Scope)
	}
	r.Wrapped, err = to.wrap(r.Scope, r.Version, secret)
	return r, err
}
