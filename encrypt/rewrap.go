package encrypt

import (
	"context"
	"fmt"
	"slices"
)

// A [Keyring.Turn] waits [Lease] after it has made a tenant's new keyset, and then
// looks for keys that were wrapped by the old one meanwhile. So whoever wraps a key
// must have stored it within Lease of having read which keyset is the newest.

// late says whether something that began at a time on the exact clock took so long
// that a Turn may have ended meanwhile.
func (k *Keyring) late(started int64) bool { return k.clock.exact()-started >= int64(Lease-slack) }

// insertWrapped stores keys that were wrapped by a keyset which was the tenant's newest
// one at the time started. Should that have taken too long, they are wrapped again
// by the one that is the newest now, before anybody seals with them.
func (k *Keyring) insertWrapped(ctx context.Context, started int64, wrapping *key, fresh []Record, byScope map[Scope][]Record) (map[Scope]bool, error) {
	bounded, cancel := context.WithTimeout(ctx, sharedTimeout)
	defer cancel()
	mine, err := k.insert(bounded, fresh, byScope)
	if err != nil || !k.late(started) {
		return mine, err
	}
	return mine, k.rewrapLate(ctx, wrapping, slices.DeleteFunc(slices.Clone(fresh), func(r Record) bool { return !mine[r.Scope] }))
}

// rewrapLate wraps keys of a tenant by the newest keyset if it is another one by now.
func (k *Keyring) rewrapLate(ctx context.Context, wrapping *key, records []Record) error {
	inventory, ok := k.store.(Inventory)
	if !ok || len(records) == 0 {
		return nil // nobody can have turned the KEK
	}
	keysets, err := k.store.Load(ctx, []Scope{wrapping.scope})
	if err != nil {
		return unavailable("key store", err)
	}
	if len(keysets) == 0 || keysets[len(keysets)-1].Version == wrapping.version {
		return nil
	}
	newest, err := k.tenantKey(ctx, keysets, keysets[len(keysets)-1].Version)
	if err != nil {
		return err
	}
	now := make([]Record, len(records))
	for i, r := range records {
		if now[i], err = rewrap(r, wrapping, newest); err != nil {
			return err
		}
	}
	if _, err := inventory.Replace(ctx, records, now); err != nil { // what has changed meanwhile the Turn itself has found
		return unavailable("key store", err)
	}
	return nil
}

// rewrapLateKeyset is rewrapLate for a tenant's first keyset.
func (k *Keyring) rewrapLateKeyset(ctx context.Context, keyset freshKeyset, stored Record) error {
	inventory, ok := k.store.(Inventory)
	if !ok {
		return nil
	}
	check, err := k.checkKEK(ctx)
	if err != nil {
		return err
	}
	now, err := keyset.wrapped(ctx, k, check.generation)
	if err != nil {
		return err
	}
	if _, err := inventory.Replace(ctx, []Record{stored}, []Record{now}); err != nil {
		return unavailable("key store", err)
	}
	return nil
}

// rewrap returns a record whose key, wrapped by one keyset, is wrapped by another.
func rewrap(r Record, from, to *key) (Record, error) {
	_, ciphertext, err := parse(r.Wrapped, algorithmWrapped, keySize)
	if err != nil {
		return Record{}, fmt.Errorf("%w: version %d of %q", ErrDamaged, r.Version, r.Scope)
	}
	secret, err := unwrapWith(from, &r, ciphertext)
	if err != nil {
		return Record{}, fmt.Errorf("%w: version %d of %q", err, r.Version, r.Scope)
	}
	r.Wrapped, err = wrapKey(to, r.Scope, r.Version, secret)
	return r, err
}
