package rbac

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func TestFields(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, teamOrg())
	record := func(owner, unit string) crmguard.Resource {
		return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: owner, Unit: unit}
	}
	for name, test := range map[string]struct {
		on           crmguard.Resource
		phone, email FieldRights
	}{
		"own":         {record("vera", ""), FieldRights{Read: true, Write: true, Unmask: true}, FieldRights{}},
		"dept":        {record("anna", "north"), FieldRights{Read: true, Unmask: true}, FieldRights{}},
		"tree":        {record("anna", "north-1"), FieldRights{Read: true}, FieldRights{}},
		"foreign":     {record("anna", "sales"), FieldRights{}, FieldRights{}},
		"every one":   {crmguard.Resource{Tenant: "acme", Kind: "contacts"}, FieldRights{}, FieldRights{}},
		"of another":  {crmguard.Resource{Tenant: "acme", Kind: "deals", ID: "1", Owner: "vera"}, FieldRights{}, FieldRights{}},
		"field given": {crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "vera", Field: "email"}, FieldRights{Read: true, Write: true, Unmask: true}, FieldRights{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := e.Fields(t.Context(), person("vera"), test.on, "phone", "email", "note")
			require.NoError(t, err)
			require.Equal(t, map[string]FieldRights{"phone": test.phone, "email": test.email, "note": {}}, got)
		})
	}
	vera := person("vera")
	vera.Scopes = []string{"contacts:view"}
	got, err := e.Fields(t.Context(), vera, record("vera", ""), "phone")
	require.NoError(t, err)
	require.Equal(t, FieldRights{Read: true}, got["phone"])
	_, err = e.Fields(t.Context(), vera, record("vera", ""), "phone", "")
	require.Error(t, err)
}
