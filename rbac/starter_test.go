package rbac_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// The owner can give every role, and the administrator none that shows clients in
// the clear.
func TestWhoGrantsInTheStarterPolicy(t *testing.T) {
	text := rbac.StarterPolicy() + "g, u:owner, role:owner, default\ng, u:admin, role:admin, default\n"
	path := filepath.Join(t.TempDir(), "policy.csv")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	e, err := rbac.FromCSV(t.Context(), path, &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	for _, role := range []string{"owner", "admin", "head", "seller", "accountant", "integration"} {
		for _, granter := range []string{"owner", "admin"} {
			ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "default", ID: granter, Kind: crmguard.KindEmployee})
			require.Equal(t, granter == "owner" || role == "admin", e.GrantRole(ctx, "default", "new", role) == nil, "%s gives %s", granter, role)
		}
	}
}

// What the starter policy gives each role, as one would read it in a manual.
func TestStarterPolicy(t *testing.T) {
	org := &rbac.StaticOrg{}
	org.Set("default", rbac.Units{Parent: map[string]string{"north": "sales"}, Members: map[string][]string{"head": {"sales"}, "seller": {"north"}}})
	text := rbac.StarterPolicy()
	roles := []string{"owner", "admin", "head", "seller", "accountant", "integration"}
	for _, role := range roles {
		text += "g, u:" + role + ", role:" + role + ", default\n"
	}
	e, err := rbac.New(t.Context(), stringadapter.NewAdapter(text), &rbac.Options{Org: org, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)

	own := crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "1", Owner: "seller", Unit: "north"}
	foreign := crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "2", Owner: "boris", Unit: "south"}
	shared := foreign
	shared.Shared = true
	kind := crmguard.Resource{Tenant: "default", Kind: "contacts"}
	field := func(r crmguard.Resource, name string) crmguard.Resource { r.Field = name; return r }
	section := func(name string) crmguard.Resource {
		return crmguard.Resource{Tenant: "default", Kind: "section:" + name}
	}
	for _, test := range []struct {
		action crmguard.Action
		on     crmguard.Resource
		who    string
	}{
		{crmguard.View, own, "owner admin head seller accountant"},
		{crmguard.View, foreign, "owner admin accountant"},
		{crmguard.View, shared, "owner admin head seller accountant"},
		{crmguard.List, kind, "owner admin head seller accountant"},
		{crmguard.Update, own, "owner head seller"},
		{crmguard.Delete, own, "owner"},
		{crmguard.Export, kind, "owner"},
		{crmguard.Search, kind, "owner head seller"},
		{crmguard.Import, kind, "owner integration"},
		{crmguard.Erase, own, "owner"},
		{crmguard.Create, crmguard.Resource{Tenant: "default", Kind: "contacts", Owner: "integration"}, "owner integration"},
		{crmguard.Reveal, field(own, "phone"), "owner head seller"},
		{crmguard.Reveal, field(foreign, "phone"), "owner"},
		{crmguard.Unmask, field(own, "phone"), "owner"},
		{crmguard.Call, field(shared, "phone"), "owner head seller"},
		{crmguard.Reveal, field(own, "card"), "owner accountant"},
		{crmguard.Access, section("journal"), "owner admin"},
		{crmguard.Grant, section("staff"), "owner admin"},
		{crmguard.Configure, section("settings"), "owner admin"},
	} {
		var may []string
		for _, role := range roles {
			s := crmguard.Subject{Tenant: "default", ID: role, Kind: crmguard.KindEmployee}
			if e.Check(context.Background(), s, test.action, test.on) == nil {
				may = append(may, role)
			}
		}
		require.Equal(t, test.who, strings.Join(may, " "), "%s %+v", test.action, test.on)
	}
}
