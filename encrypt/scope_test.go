package encrypt_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// What the constructors name is what sealing, finding and authenticating made.
func TestScopesAreThoseInUse(t *testing.T) {
	store := encrypt.NewMemory()
	k := newKeyring(t, store, &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	ctx := acting("acme")
	table, err := encrypt.NewTable[contact](k, "contacts", nil)
	require.NoError(t, err)
	_, err = table.Seal(ctx, "acme", page(1)...)
	require.NoError(t, err)
	at := crmguard.Place{Tenant: "acme", Kind: "contacts", Field: "import-key"}
	_, err = k.Pseudonyms(ctx, at, []byte("x"))
	require.NoError(t, err)
	_, err = k.MAC(ctx, at, []byte("x"))
	require.NoError(t, err)
	_, err = k.Seal(ctx, at, []byte("x"))
	require.NoError(t, err)
	for _, scope := range []encrypt.Scope{
		encrypt.ClientScope("acme", "c00"), encrypt.ClientScope("acme", ""),
		encrypt.IndexScope("acme", "contacts", "phone", "phone"), encrypt.IndexScope("acme", "contacts", "import-key", ""),
		encrypt.MACScope("acme", "contacts", "import-key"),
	} {
		records, err := store.Load(ctx, []encrypt.Scope{scope})
		require.NoError(t, err)
		require.Len(t, records, 1, "%v", scope)
		_, err = k.Rotate(ctx, scope)
		require.NoError(t, err)
	}
}
