package encrypt

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFlightNamesAreInjective(t *testing.T) {
	names := make(map[string]Scope)
	scopes := []Scope{
		{"2", DataKey, "acmecompany1c1"}, {"acmecompany1", DataKey, "c1"}, {"a b", DataKey, "c"}, {"a", DataKey, "b c"},
		{`a" "b`, DataKey, "c"}, {"a", DataKey, `b" "c`}, {"a", DataKey, `b\" \"c`}, {"a", IndexKey, "b"}, {"a", MACKey, "b"}, {"a", DataKey, "b"},
	}
	for _, s := range scopes {
		for _, create := range []bool{false, true} {
			name := scopeFlight(s, create)
			require.NotContains(t, names, name)
			names[name] = s
		}
		require.NotContains(t, names, keysetFlight(Scope{Tenant: s.Tenant}, 1, 0))
	}
	require.NotEqual(t, keysetFlight(Scope{Tenant: "1x"}, 1, 0), keysetFlight(Scope{Tenant: "x"}, 11, 0))
	require.NotEqual(t, keysetFlight(Scope{Tenant: "1 x"}, 1, 0), keysetFlight(Scope{Tenant: "x"}, 11, 0))
}

// Even if keys of another scope came to a place, nothing would be sealed or opened
// with them.
func TestKeysOfAnotherScopeAreRefused(t *testing.T) {
	theirs := Scope{"acme", DataKey, "c1"}
	keys := &scopeKeys{scope: theirs, state: Active, versions: []key{{version: 1}}}
	require.NoError(t, keys.usable(&theirs))
	for _, other := range []Scope{{"acme", DataKey, "c2"}, {"other", DataKey, "c1"}, {"acme", MACKey, "c1"}} {
		require.ErrorIs(t, keys.usable(&other), errScope)
	}
}
