package encrypt_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// BenchmarkTurn wraps 100,000 clients' keys of 100 tenants anew, in memory. The clock
// moves on by itself: waiting is not measured.
func BenchmarkTurn(b *testing.B) {
	const tenants, clients = 100, 1000
	kek, store, clock := newTurningKEK(b), encrypt.NewMemory(), newClock(b)
	k := openKeyring(b, kek, store, nil)
	for i := range tenants {
		tenant := fmt.Sprint("t", i)
		for j := range clients {
			if _, err := k.Seal(acting(tenant), crmguard.Place{Tenant: tenant, Client: fmt.Sprint("c", j)}, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		var turned encrypt.Turned
		running(clock, func() {
			var err error
			if turned, err = k.Turn(context.Background(), nil); err != nil {
				b.Error(err)
			}
		})
		require.Equal(b, tenants*(clients+1), turned.Keys)
	}
}
