package encrypt_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
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
