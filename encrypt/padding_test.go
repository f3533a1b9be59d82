package encrypt

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// What another program has sealed with the right key, as padded, but has not padded
// like this: it opens nowhere, be it authentic or not.
func TestAuthenticValuesWithMalformedPaddingAreRefused(t *testing.T) {
	kek, err := OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	k, err := New(kek, NewMemory(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, k.Close()) }()
	ctx := crmguard.System(t.Context(), "acme", "test")
	at := crmguard.Place{Tenant: "acme", Client: "c1", Kind: "contacts", Record: "c1", Field: "note"}
	keys, err := k.keysOf(ctx, &Scope{at.Tenant, DataKey, at.Client}, true)
	require.NoError(t, err)
	key := keys.newest()
	seal := func(padded string) []byte {
		h := header{algorithmPadded, key.version}
		return key.aead.Seal(h.append(nil), nil, []byte(padded), appendPlaceAD(nil, domainField, h, &at))
	}
	for _, malformed := range []string{"", "\x00", "\x00\x00\x00\x00", "Anna", "Anna\x00\x00", "Anna\x80\x01", "Anna\x80\x00\x7f\x00", "\xff"} {
		sealed := seal(malformed)
		plaintext, err := k.Open(ctx, at, sealed)
		require.ErrorIs(t, err, ErrMalformed, "%q", malformed)
		require.Nil(t, plaintext)
		cells := []Cell{{Place: at, Sealed: sealed}}
		require.NoError(t, k.OpenAll(ctx, "acme", cells))
		require.ErrorIs(t, cells[0].Err, ErrMalformed, "%q", malformed)
		require.Nil(t, cells[0].Plaintext)
	}
	for padded, want := range map[string]string{"\x80": "", "Anna\x80": "Anna", "Anna\x80\x00\x00": "Anna", "\x80\x80\x00": "\x80"} {
		plaintext, err := k.Open(ctx, at, seal(padded))
		require.NoError(t, err)
		require.Equal(t, want, string(plaintext))
	}
}
