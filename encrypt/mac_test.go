package encrypt_test

import (
	"cmp"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

func TestMACBindsPlaceAndData(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	ctx := context.Background()
	data := []byte("person 7 epoch 3")
	mac, err := k.MAC(ctx, home, data)
	require.NoError(t, err)
	require.Len(t, mac, 40)
	require.NoError(t, k.Verify(ctx, home, data, mac))
	for name, at := range elsewhere() {
		_, err := k.MAC(ctx, at, data) // so that the key exists
		require.NoError(t, err)
		require.ErrorIs(t, k.Verify(ctx, at, data, mac), encrypt.ErrForeign, name)
	}
	require.ErrorIs(t, k.Verify(ctx, home, data[1:], mac), encrypt.ErrForeign)
	require.ErrorIs(t, k.Verify(ctx, home, nil, mac), encrypt.ErrForeign)
	for i := range mac {
		for bit := range 8 {
			mac[i] ^= 1 << bit
			require.Error(t, k.Verify(ctx, home, data, mac), "byte %d bit %d", i, bit)
			mac[i] ^= 1 << bit
		}
	}
	for _, bad := range [][]byte{nil, mac[:39], append(mac[:40:40], 0)} {
		require.ErrorIs(t, k.Verify(ctx, home, data, bad), encrypt.ErrMalformed)
	}
	sealed, err := k.Seal(ctx, home, data)
	require.NoError(t, err)
	require.ErrorIs(t, k.Verify(ctx, home, data, sealed), encrypt.ErrMalformed, "a sealed value is no MAC")
	_, err = k.Open(acting("acme"), home, mac)
	require.ErrorIs(t, err, encrypt.ErrMalformed, "a MAC is no sealed value")
}

// The place's parts and the data are kept apart: moving a letter from one to the
// other changes the MAC.
func TestMACIsInjective(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	ctx := context.Background()
	mac, err := k.MAC(ctx, crmguard.Place{Tenant: "acme", Kind: "k", Record: "ab"}, []byte("c"))
	require.NoError(t, err)
	require.ErrorIs(t, k.Verify(ctx, crmguard.Place{Tenant: "acme", Kind: "k", Record: "a"}, []byte("bc"), mac), encrypt.ErrForeign)
}

func TestPseudonyms(t *testing.T) {
	store := encrypt.NewMemory()
	k := newKeyring(t, store, nil)
	ctx := context.Background()
	pseudonym := func(at crmguard.Place, value string) string {
		all, err := k.Pseudonyms(ctx, at, []byte(value))
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.Len(t, all[0], 16)
		return string(all[0])
	}
	first := pseudonym(home, "+79123456789")
	require.Equal(t, first, pseudonym(home, "+79123456789"))
	require.NotEqual(t, first, pseudonym(home, "+79123456780"))

	same := home
	same.Client, same.Record = "c2", "r2"
	require.Equal(t, first, pseudonym(same, "+79123456789"), "one value is the same for all clients of a field")
	for _, name := range []string{"tenant", "kind", "field", "cut"} {
		require.NotEqual(t, first, pseudonym(elsewhere()[name], "+79123456789"), name)
	}
}

// Whoever has a MAC of any kind and text made would write receipts himself.
func TestTheKindOfThePackageIsNobodyElses(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	ctx := acting("acme")
	_, err := k.Erase(ctx, "acme", "c1")
	require.NoError(t, err)
	receipt, err := k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	forged := receipt
	forged.State, forged.MAC = "destroyed", nil
	at := crmguard.Place{Tenant: "acme", Client: "c1", Kind: "crmguard", Field: "receipt"}
	other := home
	other.Client = "c2"
	sealed, err := k.Seal(ctx, other, nil)
	require.NoError(t, err)
	cells := []encrypt.Cell{{Place: at, Sealed: sealed}}
	for name, call := range map[string]func() error{
		"MAC":        func() error { _, err := k.MAC(ctx, at, document(t, forged)); return err },
		"Verify":     func() error { return k.Verify(ctx, at, nil, receipt.MAC) },
		"Pseudonyms": func() error { _, err := k.Pseudonyms(ctx, at, nil); return err },
		"Seal":       func() error { _, err := k.Seal(ctx, at, nil); return err },
		"Open":       func() error { _, err := k.Open(ctx, at, sealed); return err },
		"SealAll":    func() error { return k.SealAll(ctx, "acme", []encrypt.Cell{{Place: at, Plaintext: []byte("x")}}) },
		"OpenAll":    func() error { return cmp.Or(k.OpenAll(ctx, "acme", cells), cells[0].Err) },
		"NewTable":   func() error { _, err := encrypt.NewTable[contact](k, "crmguard", nil); return err },
		"Scan": func() error {
			_, err := k.Scan(job("acme"), "acme", "crmguard", []string{"x"}, encrypttest.NewMemoryRows(), nil)
			return err
		},
	} {
		require.ErrorContains(t, call(), `encrypt: the kind "crmguard" is this package's own`, name)
	}
	_, err = k.CheckReceipt(ctx, document(t, receipt))
	require.NoError(t, err)
}
