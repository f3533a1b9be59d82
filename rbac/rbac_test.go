package rbac_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

func TestSmoke(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.csv")
	require.NoError(t, os.WriteFile(path, []byte(rbac.StarterPolicy+"g, u:anna, role:seller, default\ng, u:vera, role:head, default\n"), 0o600))
	org := &rbac.StaticOrg{}
	org.Set("default", rbac.Units{Parent: map[string]string{"north": "sales"}, Members: map[string][]string{"vera": {"sales"}, "anna": {"north"}}})
	e, err := rbac.FromCSV(t.Context(), path, &rbac.Options{Org: org})
	require.NoError(t, err)
	anna := crmguard.Subject{Tenant: "default", ID: "anna", Kind: crmguard.KindEmployee}
	vera := crmguard.Subject{Tenant: "default", ID: "vera", Kind: crmguard.KindEmployee}
	r := crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "1", Owner: "anna", Unit: "north"}
	require.NoError(t, e.Check(t.Context(), anna, crmguard.View, r))
	require.NoError(t, e.Check(t.Context(), vera, crmguard.View, r))
	r.Owner = "oleg"
	require.Error(t, e.Check(t.Context(), anna, crmguard.View, r))
	require.NoError(t, e.Check(t.Context(), vera, crmguard.View, r))
	f, err := e.Filter(t.Context(), vera, crmguard.List, "contacts")
	require.NoError(t, err)
	where, args, err := f.SQL(rbac.Columns{Tenant: "tenant", Owner: "owner", Unit: "unit"}, 1)
	require.NoError(t, err)
	t.Log(where, args)
	t.Log(e.Resolve(t.Context(), "default", "vera"))
	t.Log(e.Revoke(t.Context(), "default", "vera"))
	require.Error(t, e.Check(t.Context(), vera, crmguard.View, r))
}
