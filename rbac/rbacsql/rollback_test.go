package rbacsql_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

// A slip in a rule is undone, and whoever was dismissed since stays dismissed, by whatever
// row they had something.
func TestRollbackLeavesPersonsAsTheyAre(t *testing.T) {
	const before = `p, role:seller, acme, contacts, view, all, allow
p, role:buyer, acme, orders, view, all, allow
p4, acme, role:buyer, role:payer
g, role:head, role:seller, acme
g, u:boss, role:head, acme
`
	end := time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339)
	for name, row := range map[string]string{
		"a role":              "g, u:anna, role:seller, acme\n",
		"a role that ends":    "p2, u:anna, role:seller, acme, " + end + "\n",
		"a rule of their own": "p, u:anna, acme, contacts, view, all, allow\n",
		"a deputy":            "p3, u:anna, u:boss, acme, 2026-01-01T00:00:00Z, " + end + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
				e, err := rbac.New(t.Context(), open(t, db, nil, before+row), quiet())
				require.NoError(t, err)
				card := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1"}
				may := func(id string) error { return e.Check(t.Context(), employee("acme", id), crmguard.View, card) }
				require.NoError(t, may("anna"))
				job := crmguard.System(t.Context(), "acme", "dismiss")
				first := e.Status().Stored.Number
				slip, err := e.Replace(job, "acme", first, ruleList(t, "p, role:buyer, acme, orders, view, all, allow\ng, u:boss, role:head, acme\n"+row), "a slip")
				require.NoError(t, err)
				require.Error(t, may("boss"))
				_, err = e.Revoke(job, "acme", "anna")
				require.NoError(t, err)
				require.NoError(t, e.GrantRole(job, "acme", "new", "buyer"))

				boss := crmguard.WithSubject(t.Context(), employee("acme", "boss"))
				foreseen, err := e.RolledBack(boss, "acme", first)
				require.NoError(t, err)
				require.ElementsMatch(t, ruleList(t, before+"g, u:new, role:buyer, acme\n"), foreseen)
				_, err = e.Rollback(job, "acme", slip.Number+2, first, "back")
				require.NoError(t, err)
				require.NoError(t, may("boss"), "the rules are back")
				require.Error(t, may("anna"), "who was dismissed is not")
				rules, err := e.RolledBack(boss, "acme", slip.Number+3)
				require.NoError(t, err)
				require.ElementsMatch(t, foreseen, rules)

				_, err = e.RolledBack(boss, "globex", first)
				require.Error(t, err)
				_, err = e.RolledBack(boss, "acme", 99)
				require.Error(t, err)
			})
		})
	}
}
