package rbac

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func TestFromPolicyIsTheFile(t *testing.T) {
	p := Policy{
		Rules: []Rule{
			{Subject: "role:seller", Tenant: "acme", Object: "contacts", Action: crmguard.View, Scope: Own},
			{Subject: "role:seller", Tenant: "acme", Object: "contacts#phone", Action: "read", Scope: Dept},
			{Subject: "role:seller", Tenant: "acme", Object: "contacts", Action: crmguard.List, Scope: Tree},
			{Subject: "role:seller", Tenant: "acme", Object: "contacts", Action: crmguard.Search, Scope: Shared},
			{Subject: "u:oleg", Tenant: "acme", Object: "contacts", Action: crmguard.View, Scope: All, Deny: true},
		},
		Links: []Link{
			{Subject: "u:oleg", Role: "role:seller", Tenant: "acme"},
			{Subject: "u:anna", Role: "role:seller", Tenant: "acme", End: time.Date(2999, 1, 1, 3, 0, 0, 0, time.FixedZone("", 3*3600))},
		},
	}
	e, err := FromPolicy(t.Context(), p, quiet())
	require.NoError(t, err)
	file := engineFromCSV(t, `
p, role:seller, acme, contacts, view, own, allow
p, role:seller, acme, contacts#phone, read, dept, allow
p, role:seller, acme, contacts, list, tree, allow
p, role:seller, acme, contacts, search, shared, allow
p, u:oleg, acme, contacts, view, all, deny
g, u:oleg, role:seller, acme
p2, u:anna, role:seller, acme, 2999-01-01T00:00:00Z
`, nil)
	require.Equal(t, file.Version(), e.Version())
	mine := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "anna"}
	require.NoError(t, e.Check(t.Context(), person("anna"), crmguard.View, mine))

	// What is granted and revoked lasts as long as the engine.
	job := crmguard.System(t.Context(), "acme", "test")
	require.NoError(t, e.GrantRole(job, "acme", "vera", "seller"))
	require.NoError(t, e.GrantRole(job, "acme", "vera", "seller"), "again")
	got, err := e.Revoke(job, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, 1, got.Count)
	require.NoError(t, e.Reload(job))
	requireDenied(t, e.Check(t.Context(), person("anna"), crmguard.View, mine), "no-rule")
	mine.Owner = "vera"
	require.NoError(t, e.Check(t.Context(), person("vera"), crmguard.View, mine))
	another, err := FromPolicy(t.Context(), p, quiet())
	require.NoError(t, err)
	require.Equal(t, file.Version(), another.Version())
}

func TestFromPolicyRefuses(t *testing.T) {
	good := Rule{Subject: "role:seller", Tenant: "acme", Object: "contacts", Action: crmguard.View, Scope: Own}
	fraction := time.Date(2999, 1, 1, 0, 0, 0, 1, time.UTC)
	_, err := FromPolicy(t.Context(), Policy{
		Rules: []Rule{good, {}, {Subject: "seller", Tenant: "acme", Object: "contacts", Action: crmguard.View, Scope: Own}},
		Links: []Link{{}, {Subject: "u:a", Role: "role:seller", Tenant: "acme", End: fraction}},
	}, quiet())
	var refused *PolicyError
	require.ErrorAs(t, err, &refused)
	places := map[string]bool{}
	for _, f := range refused.Findings {
		places[f.Where] = true
	}
	require.Equal(t, map[string]bool{"Rules[1]": true, "Rules[2]": true, "Links[0]": true, "Links[1]": true}, places)
	_, err = FromPolicy(t.Context(), Policy{}, quiet())
	require.ErrorContains(t, err, "no rule")
}
