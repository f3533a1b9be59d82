package encrypt

import (
	"context"
	"testing"
)

// WaitForPoll waits until polls in the background have ended.
func (k *Keyring) WaitForPoll() { k.background.Wait() }

// Cached says of how many scopes keys are in memory.
func (k *Keyring) Cached() int { return k.cache.len() }

// Unwrapper returns a function that makes the stored key of a scope ready for use, as
// when it is read for the first time.
func (k *Keyring) Unwrapper(tb testing.TB, s Scope) func() error {
	tb.Helper()
	ctx := context.Background()
	keysets, err := k.store.Load(ctx, []Scope{{Tenant: s.Tenant, Purpose: TenantKeyset}})
	if err != nil {
		tb.Fatal(err)
	}
	records, err := k.store.Load(ctx, []Scope{s})
	if err != nil {
		tb.Fatal(err)
	}
	return func() error {
		keys := &scopeKeys{scope: s, state: Active}
		err := k.unwrapAll(ctx, keys, records, keysets)
		k.cache.put(keys)
		return err
	}
}
