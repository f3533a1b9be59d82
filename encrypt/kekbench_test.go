package encrypt_test

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// BenchmarkColdKey compares what a client costs that is opened for the first time: our
// wrapped key, and an encrypted keyset of Tink's for each client.
func BenchmarkColdKey(b *testing.B) {
	b.Run("wrapped", func(b *testing.B) {
		unwrap := coldKey(b)
		b.ReportAllocs()
		for b.Loop() {
			unwrap()
		}
	})
	b.Run("tink", func(b *testing.B) {
		wrapping, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
		require.NoError(b, err)
		kek, err := encrypt.NewKeysetAEAD(wrapping) // the faster one
		require.NoError(b, err)
		handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
		require.NoError(b, err)
		var encrypted bytes.Buffer
		require.NoError(b, handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&encrypted), kek, []byte("ad")))
		b.ReportAllocs()
		for b.Loop() {
			handle, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(encrypted.Bytes())), kek, []byte("ad"))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := aead.New(handle); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// coldKey returns what makes a stored key of a client ready for use.
func coldKey(tb testing.TB) func() {
	memory := encrypt.NewMemory()
	k := newKeyring(tb, memory, nil)
	_, err := k.Seal(acting("acme"), home, nil)
	require.NoError(tb, err)
	records, err := memory.Load(tb.Context(), []encrypt.Scope{dataScope(home.Client)})
	require.NoError(tb, err)
	tenant, err := memory.Load(tb.Context(), []encrypt.Scope{{Tenant: "acme", Purpose: encrypt.TenantKeyset}})
	require.NoError(tb, err)
	return func() {
		if err := k.Unwrap(tb.Context(), records, tenant); err != nil {
			tb.Fatal(err)
		}
	}
}

// coldPage opens a page of fifty clients of which no key is in memory.
func coldPage(tb testing.TB) func() {
	const page = 50
	k := newKeyring(tb, encrypt.NewMemory(), nil)
	ctx := job("acme")
	cells := make([]encrypt.Cell, page)
	for i := range cells {
		client := "c" + strconv.Itoa(i)
		cells[i] = encrypt.Cell{Plaintext: fieldValue, Place: crmguard.Place{Tenant: "acme", Client: client, Kind: "contacts", Record: client, Field: "phone"}}
	}
	require.NoError(tb, k.SealAll(ctx, "acme", cells))
	return func() {
		k.Invalidate()
		if err := k.OpenAll(ctx, "acme", cells); err != nil || cells[page-1].Err != nil {
			tb.Fatal(err, cells[page-1].Err)
		}
	}
}

// BenchmarkColdPage includes a call of the KEK.
func BenchmarkColdPage(b *testing.B) {
	open := coldPage(b)
	b.ReportAllocs()
	for b.Loop() {
		open()
	}
}

// A cold client is three objects, two of AES-GCM and one that holds the rest; what else a page
// needs, the clients share.
func TestColdAllocations(t *testing.T) {
	require.LessOrEqual(t, testing.AllocsPerRun(100, coldKey(t)), 6.0)
	require.LessOrEqual(t, testing.AllocsPerRun(100, coldPage(t)), 50*3+120.0)
}

// BenchmarkKeyFile is a call of the KEK, with the look at the file that goes with it.
func BenchmarkKeyFile(b *testing.B) {
	kek, err := encrypt.OpenKeyFile(b.TempDir()+"/kek.json", "", true)
	require.NoError(b, err)
	ciphertext, err := kek.EncryptWithContext(b.Context(), make([]byte, 100), nil)
	require.NoError(b, err)
	for b.Loop() {
		if _, err := kek.DecryptWithContext(b.Context(), ciphertext, nil); err != nil {
			b.Fatal(err)
		}
	}
}
