package rbacsql_test

import (
	"database/sql"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

// Anna may change the policy of acme, and lacks what owners have.
const lacking = companies + `p, role:admin, acme, contacts, view, own, allow
p, role:admin, acme, section:rights, configure, all, allow
g, u:vera, role:admin, acme
`

func requireLacks(t *testing.T, err error) {
	t.Helper()
	var denial *crmguard.Denial
	require.ErrorAs(t, err, &denial)
	require.Equal(t, "lacks-right", denial.Code)
}

// What was stored past the engine and refused gives nobody anything yet, so to keep it
// while the rest is mended is to grant it.
func TestReplaceGrantsWhatWasStoredAndRefused(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, lacking)
		e, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		require.NoError(t, a.AddPolicies("g", "g", [][]string{{"u:mallory", "role:owner", "acme"}, {"u:mallory", "owner", "acme"}}))
		var refused *rbac.PolicyError
		require.ErrorAs(t, e.Reload(t.Context()), &refused)

		rules := slices.DeleteFunc(ruleList(t, lacking), func(rule []string) bool { return slices.Contains(rule, "globex") })
		vera := crmguard.WithSubject(t.Context(), employee("acme", "vera"))
		n := e.Status().Stored.Number
		_, err = e.Replace(vera, "acme", n, append(slices.Clone(rules), []string{"g", "u:mallory", "role:owner", "acme"}), "mended")
		requireLacks(t, err)
		_, err = e.Replace(vera, "acme", n, rules, "mended")
		require.NoError(t, err)
		require.Error(t, e.Check(t.Context(), employee("acme", "mallory"), crmguard.Export, crmguard.Resource{Tenant: "acme", Kind: "contacts"}))
	})
}

func TestRollbackGrantsWhatItBringsBack(t *testing.T) {
	a := open(t, sqldbtest.SQLite(t), nil, lacking)
	e, err := rbac.New(t.Context(), a, quiet())
	require.NoError(t, err)
	before := e.Status().Stored.Number
	vera := crmguard.WithSubject(t.Context(), employee("acme", "vera"))
	fewer := slices.DeleteFunc(ruleList(t, lacking), func(rule []string) bool {
		return slices.Contains(rule, "globex") || rule[0] == "p" && rule[1] == "role:owner"
	})
	_, err = e.Replace(vera, "acme", before, fewer, "a mistake")
	require.NoError(t, err, "to take is not to give")
	_, err = e.Rollback(vera, "acme", e.Status().Stored.Number, before, "it was")
	requireLacks(t, err)

	draft, err := e.Draft(vera, "acme", [][]string{{"p", "u:vera", "acme", "contacts", "export", "all", "allow"}})
	require.NoError(t, err, "to look is free")
	_, err = draft.Replace(vera, "acme", 0, nil, "test")
	require.ErrorIs(t, err, rbac.ErrNoVersions, "and a draft is stored nowhere")
	require.Error(t, e.Check(t.Context(), employee("acme", "vera"), crmguard.Export, crmguard.Resource{Tenant: "acme", Kind: "contacts"}))
}
