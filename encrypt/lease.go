package encrypt

import (
	"context"
	"errors"
	"time"

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

// pollTimeout is less than the time from the start of a poll to the lease's end.
const pollTimeout = 4 * time.Second

// pollSoon looks for changes of the store in the background, so that no call
// waits for it. When that does not succeed before the lease ends, calls read the
// keys that they need anew.
func (k *Keyring) pollSoon(now int64) {
	due := k.pollDue.Load()
	if now <= due || !k.pollDue.CompareAndSwap(due, now+int64(Lease/2)) || k.closed.Load() {
		return
	}
	k.background.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), pollTimeout)
		defer cancel()
		if err := k.poll(ctx); err != nil {
			k.opts.Logger.WarnContext(ctx, "encrypt: the key store does not answer", "error", err)
		}
	})
}

// poll extends the lease of all cached keys, or drops them when a state has
// changed.
func (k *Keyring) poll(ctx context.Context) error {
	k.pollMu.Lock()
	defer k.pollMu.Unlock()
	started := k.now()
	revision, _, err := k.store.Closing(ctx)
	if err != nil {
		return unavailable("key store", err)
	}
	if revision != k.revision {
		k.revision = revision
		k.generation.Add(1)
	}
	k.leaseEnd.Store(started + int64(Lease))
	return nil
}

// take counts one message about to be sealed.
func (k *Keyring) take(ctx context.Context, s Scope, key *key) error {
	if key.left.Add(-1) >= 0 {
		return nil
	}
	return k.reserve(ctx, []reservation{{s, key, 1}})
}

// reservation is a number of messages to be sealed under one key.
type reservation struct {
	scope Scope
	key   *key
	count int64
}

// reserve takes new leases for keys in one store call, and of each lease at once
// what the caller needs.
func (k *Keyring) reserve(ctx context.Context, wanted []reservation) error {
	if len(wanted) == 0 {
		return nil
	}
	size := int64(0)
	records := make([]Record, len(wanted))
	for i, r := range wanted {
		size = max(size, leaseSize(r.scope)+r.count)
		records[i] = Record{Scope: r.scope, Version: r.key.version}
	}
	leased, err := k.store.Lease(ctx, records, uint64(size)) //nolint:gosec // sizes are positive
	if err != nil {
		return unavailable("key store", err)
	}
	totals := make(map[Scope]uint64, len(leased))
	for _, r := range leased {
		totals[r.Scope] = r.Messages
	}
	for _, r := range wanted {
		total, ok := totals[r.scope]
		switch {
		case !ok:
			return crmguard.ErrErased
		case total > maxMessages:
			return errUsedUp
		}
		r.key.left.Store(size - r.count)
	}
	return nil
}
