package encrypt

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
)

// How many messages a node reserves at once, so that the count that the store
// keeps is never too small: few under a client's key, many under a tenant's own.
const (
	clientLease = 1 << 10
	tenantLease = 1 << 20
)

// Random nonces allow 2^32 messages under one AES-GCM key. From rotateAt on a
// new version is made; at maxMessages sealing is refused.
const (
	rotateAt    = 1 << 28
	maxMessages = 1 << 31
)

var errUsedUp = errors.New("encrypt: the key has sealed as many messages as it may")

func leaseSize(s Scope) int64 {
	switch {
	case s.Purpose != DataKey:
		return 0
	case s.Name == "":
		return tenantLease
	}
	return clientLease
}

// takeMore counts n messages about to be sealed under a key of which fewer are left,
// and returns the key to seal them with: the one given, or the next version.
func (k *Keyring) takeMore(ctx context.Context, s Scope, key *key, n int64) (*key, error) {
	worn, err := k.reserve(ctx, []reservation{{s, key, n}})
	if err != nil || len(worn) == 0 {
		return key, err
	}
	next, err := k.rotate(ctx, s, key)
	if err != nil || next == key || next.left.Add(-n) >= 0 {
		return next, err
	}
	return k.takeMore(ctx, s, next, n)
}

// reservation is a number of messages to be sealed under one key.
type reservation struct {
	scope Scope
	key   *key
	count int64
}

// reserve takes new leases for keys in one store call, and of each lease at once
// what the caller needs. It returns the scopes whose key should be replaced.
func (k *Keyring) reserve(ctx context.Context, wanted []reservation) (worn []Scope, err error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	size := int64(0)
	records := make([]Record, len(wanted))
	for i, r := range wanted {
		size = max(size, leaseSize(r.scope)+r.count)
		records[i] = Record{Scope: r.scope, Version: r.key.version}
	}
	leased, err := k.store.Lease(ctx, records, uint64(size)) //nolint:gosec // sizes are positive
	if err != nil {
		return nil, unavailable("key store", err)
	}
	totals := make(map[Scope]uint64, len(leased))
	for _, r := range leased {
		totals[r.Scope] = r.Messages
	}
	for _, r := range wanted {
		total, ok := totals[r.scope]
		switch {
		case !ok:
			return nil, k.whyNotLeased(ctx, r.scope)
		case total > maxMessages:
			return nil, errUsedUp
		case total > rotateAt:
			worn = append(worn, r.scope)
		}
		r.key.left.Store(size - r.count)
	}
	return worn, nil
}

// whyNotLeased tells a client that was closed meanwhile from a key that the store
// has lost.
func (k *Keyring) whyNotLeased(ctx context.Context, s Scope) error {
	keys, err := k.fetch(ctx, s, false)
	if err == nil {
		err = keys.usable(&s)
	}
	if err == nil {
		err = fmt.Errorf("%w: the key store gives no lease", crmguard.ErrUnavailable)
	}
	return err
}

// rotate makes the next version of a worn key and returns it. Until maxMessages a failure
// does no harm: the old key seals on, unless it turns out that the client was closed.
func (k *Keyring) rotate(ctx context.Context, s Scope, old *key) (*key, error) {
	next, err := k.nextVersion(ctx, s, old.version+1)
	if errors.Is(err, crmguard.ErrErased) {
		return nil, err
	}
	if err != nil {
		k.opts.Logger.WarnContext(ctx, "encrypt: a key has sealed very many messages and could not be replaced", "version", old.version, "error", err)
		return old, nil
	}
	return next, nil
}

func (k *Keyring) nextVersion(ctx context.Context, s Scope, version uint32) (*key, error) {
	if err := k.makeVersion(ctx, s, version); err != nil {
		return nil, err
	}
	keys, err := k.fetch(ctx, s, false)
	if err == nil {
		err = keys.usable(&s)
	}
	if err != nil {
		return nil, err
	}
	return keys.newest(), nil
}

// makeVersion stores a version of a key, unless somebody has made it already.
func (k *Keyring) makeVersion(ctx context.Context, s Scope, version uint32) error {
	for range attempts {
		keysets, err := k.keysets(ctx, s.Tenant)
		if err != nil {
			return err
		}
		newest := keysets[len(keysets)-1]
		wrapping, err := k.tenantKey(ctx, keysets, newest.Version)
		if err != nil {
			return err
		}
		record, err := k.newRecord(s, version, wrapping)
		if err != nil {
			return err
		}
		record.Messages = 0 // whoever uses it takes a lease
		record.Under = newest.Wrapped
		byScope := make(map[Scope][]Record)
		if _, err := k.insert(ctx, []Record{record}, byScope); err != nil {
			return err
		}
		stored := byScope[s]
		if len(stored) > 0 && (stored[len(stored)-1].Version >= version || stored[0].State != Active) {
			return nil
		} // the tenant has got another keyset meanwhile
	}
	return errNotKept
}
