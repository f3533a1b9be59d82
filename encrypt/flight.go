package encrypt

import (
	"context"
	"fmt"
	"time"
)

// fetch reads one scope, once for all who ask at the same time.
func (k *Keyring) fetch(ctx context.Context, s Scope, create bool) (*scopeKeys, error) {
	s = s.clone()        // a flight may outlive the caller
	for range attempts { // the first flight may have begun before an Erase that has ended since
		keys, err := share(ctx, k, scopeFlight(s, create), func(ctx context.Context) (*scopeKeys, error) {
			return k.loadScope(ctx, s, create)
		})
		if err != nil {
			return nil, err
		}
		if k.settled(keys) {
			return keys, nil
		}
	}
	return nil, errStalled
}

// Names of flights are quoted: no two scopes share one, whatever is in their names.
func scopeFlight(s Scope, create bool) string {
	return fmt.Sprintf("scope %d %t %q %q", s.Purpose, create, s.Tenant, s.Name)
}

// keysetFlight has the epoch in its name: who asks after an Invalidate joins none from before.
func keysetFlight(s Scope, version uint32, epoch uint64) string {
	return fmt.Sprintf("keyset %d %d %q", version, epoch, s.Tenant)
}

// sharedTimeout ends a flight that all who wait for have left. What comes later
// than a lease could not be used.
const sharedTimeout = Lease - 2*time.Second

// share runs fn once for all concurrent callers with the same name. A caller that
// gives up does not end it for the others.
func share[T any](ctx context.Context, k *Keyring, name string, fn func(ctx context.Context) (T, error)) (T, error) {
	var zero T
	if k.closed.Load() {
		return zero, errClosed
	}
	flight := k.flights.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sharedTimeout)
		defer cancel()
		return fn(ctx)
	})
	select {
	case <-ctx.Done():
		return zero, unavailable("waiting for keys", ctx.Err())
	case result := <-flight:
		if result.Err != nil {
			return zero, result.Err
		}
		return result.Val.(T), nil
	}
}
