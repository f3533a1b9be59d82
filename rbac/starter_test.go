package rbac_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

var starterRoles = []string{"owner", "admin", "head", "seller", "accountant", "support", "marketer", "integration"}

// starterEngine has a person of each role, called like it. The head leads sales, with the
// seller's department below it, and is a plain member of support.
func starterEngine(t *testing.T) *rbac.Engine {
	t.Helper()
	text := rbac.StarterPolicy()
	for _, role := range starterRoles {
		text += "g, u:" + role + ", role:" + role + ", default\n"
	}
	path := filepath.Join(t.TempDir(), "policy.csv")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	org := &rbac.StaticOrg{}
	org.Set("default", rbac.Units{
		Parent:  map[string]string{"north": "sales"},
		Members: map[string][]string{"seller": {"north"}, "support": {"helpdesk"}, "head": {"helpdesk"}},
		Heads:   map[string][]string{"head": {"sales"}},
	})
	e, err := rbac.FromCSV(t.Context(), path, &rbac.Options{Org: org, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return e
}

// The owner can give every role, and the administrator none that shows clients in
// the clear.
func TestWhoGrantsInTheStarterPolicy(t *testing.T) {
	e := starterEngine(t)
	for _, role := range starterRoles {
		for _, granter := range []string{"owner", "admin"} {
			ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "default", ID: granter, Kind: crmguard.KindEmployee})
			require.Equal(t, granter == "owner" || role == "admin", e.GrantRole(ctx, "default", "new", role) == nil, "%s gives %s", granter, role)
		}
	}
}

// The table of the starter policy, as whoever copies it reads it: a change of the policy
// has to be one of this file.
func TestTableOfTheStarterPolicy(t *testing.T) {
	m, err := starterEngine(t).Matrix(t.Context(), "default")
	require.NoError(t, err)
	columns := make([]int, len(starterRoles))
	var b strings.Builder
	line := func(cells ...string) {
		text := fmt.Sprintf("%-17s %-9s", cells[0], cells[1])
		for _, cell := range cells[2:] {
			text += fmt.Sprintf(" %-13s", cell)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	for i, role := range starterRoles {
		columns[i] = slices.Index(m.Holders, "role:"+role)
		require.GreaterOrEqual(t, columns[i], 0, role)
	}
	require.Len(t, m.Holders, len(starterRoles))
	line(append([]string{"", ""}, starterRoles...)...)
	for _, object := range m.Objects {
		for _, right := range object.Rights {
			cells := []string{object.Object, string(right.Action)}
			for _, column := range columns {
				cell := strings.ReplaceAll(right.Cells[column].String(), ", ", "+")
				if cell == "no" {
					cell = "-"
				}
				cells = append(cells, cell)
			}
			line(cells...)
		}
	}
	want, err := os.ReadFile("testdata/starter.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

// What the starter policy gives each role, as one would read it in a manual.
func TestStarterPolicy(t *testing.T) {
	e := starterEngine(t)
	own := crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "1", Owner: "seller", Unit: "north"}
	foreign := crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "2", Owner: "boris", Unit: "helpdesk"}
	shared := foreign
	shared.Shared = true
	whole := func(kind string) crmguard.Resource { return crmguard.Resource{Tenant: "default", Kind: kind} }
	of := func(kind string, r crmguard.Resource) crmguard.Resource { r.Kind = kind; return r }
	field := func(r crmguard.Resource, name string) crmguard.Resource { r.Field = name; return r }
	for _, test := range []struct {
		action crmguard.Action
		on     crmguard.Resource
		who    string
	}{
		// Nobody but the owner takes the clients out of the CRM or destroys them.
		{crmguard.Export, whole("contacts"), "owner"},
		{crmguard.Export, field(own, "phone"), "owner"},
		{crmguard.Unmask, field(own, "phone"), "owner"},
		{crmguard.Unmask, field(own, "email"), "owner"},
		{crmguard.Delete, own, "owner"},
		{crmguard.Erase, own, "owner"},
		{crmguard.Delete, of("deals", own), "owner"},
		{crmguard.Delete, of("invoices", own), "owner"},
		{crmguard.Export, whole("deals"), "owner"},
		{crmguard.Export, whole("section:analytics"), "owner"},
		{crmguard.Export, whole("invoices"), "owner accountant"},
		{crmguard.Import, whole("contacts"), "owner integration"},

		{crmguard.View, own, "owner admin head seller accountant support"},
		{crmguard.View, foreign, "owner admin accountant support"}, // the head is a plain member there
		{crmguard.View, shared, "owner admin head seller accountant support"},
		{crmguard.List, whole("contacts"), "owner admin head seller accountant marketer"},
		{crmguard.List, foreign, "owner admin accountant marketer"},
		{crmguard.Search, whole("contacts"), "owner head seller"},
		{crmguard.Search, field(foreign, "phone"), "owner support"},
		{crmguard.Update, own, "owner head seller"},
		{crmguard.Create, crmguard.Resource{Tenant: "default", Kind: "contacts", Owner: "integration"}, "owner integration"},
		{crmguard.Reveal, field(own, "phone"), "owner head seller"},
		{crmguard.Reveal, field(foreign, "phone"), "owner"},
		{crmguard.Call, field(shared, "phone"), "owner head seller support"},
		{crmguard.Reveal, field(own, "card"), "owner accountant"},
		{crmguard.View, field(own, "note"), "owner admin head seller"},
		{crmguard.Reveal, field(own, "note"), "owner head seller"},

		{crmguard.View, of("deals", own), "owner admin head seller accountant support"},
		{crmguard.Update, of("deals", own), "owner head seller"},
		{crmguard.View, field(of("deals", own), "margin"), "owner head accountant"},
		{crmguard.View, of("invoices", own), "owner head seller accountant"},
		{crmguard.View, of("invoices", foreign), "owner accountant"},
		{crmguard.Update, of("tasks", own), "owner head seller"},
		{crmguard.Update, of("tasks", foreign), "owner support"},
		{crmguard.Delete, of("tasks", own), "owner head seller"},
		{crmguard.View, of("projects", own), "owner admin head seller"},
		{crmguard.View, of("chats", own), "owner head seller"},
		{crmguard.View, of("chats", foreign), "owner support"},
		{crmguard.View, of("dictionaries", foreign), "owner admin head seller accountant support marketer"},
		{crmguard.Update, of("dictionaries", foreign), "owner admin"},

		{crmguard.Access, whole("section:analytics"), "owner head accountant marketer"},
		{crmguard.Access, whole("section:journal"), "owner admin"},
		{crmguard.Grant, whole("section:staff"), "owner admin"},
		{crmguard.Configure, whole("section:settings"), "owner admin"},
	} {
		var may []string
		for _, role := range starterRoles {
			s := crmguard.Subject{Tenant: "default", ID: role, Kind: crmguard.KindEmployee}
			if e.Check(context.Background(), s, test.action, test.on) == nil {
				may = append(may, role)
			}
		}
		require.Equal(t, test.who, strings.Join(may, " "), "%s %+v", test.action, test.on)
	}
}
