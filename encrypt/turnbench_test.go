package encrypt_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// BenchmarkCold makes one stored key ready for use, its tenant's keyset being there:
// ours at most 0.3 times tink, which reads and builds a wrapped keyset.
func BenchmarkCold(b *testing.B) {
	b.Run("ours", func(b *testing.B) {
		k := newKeyring(b, encrypt.NewMemory(), nil)
		_, err := k.Seal(acting("acme"), home, nil)
		require.NoError(b, err)
		ready := k.Unwrapper(b, homeKey)
		b.ReportAllocs()
		for b.Loop() {
			if err := ready(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tink", func(b *testing.B) {
		handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
		require.NoError(b, err)
		wrapping := bareTink(b)
		var stored keyset.MemReaderWriter
		require.NoError(b, handle.WriteWithAssociatedData(&stored, wrapping, []byte("c1")))
		b.ReportAllocs()
		for b.Loop() {
			reader := keyset.MemReaderWriter{EncryptedKeyset: stored.EncryptedKeyset}
			handle, err := keyset.ReadWithAssociatedData(&reader, wrapping, []byte("c1"))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := aead.New(handle); err != nil {
				b.Fatal(err)
			}
		}
	})
}

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
