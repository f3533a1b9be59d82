package rbacsql_test

import (
	"database/sql"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

const separated = `p, role:buyer, acme, orders, create, all, allow
p, role:payer, acme, orders, update, all, allow
p4, acme, role:buyer, role:payer
`

// Of many who give one person either role at once, through three processes, only those who
// give the same one succeed.
func TestNobodyGetsExcludedRolesInARace(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, separated)
		engines := make([]*rbac.Engine, 3)
		for i := range engines {
			var err error
			engines[i], err = rbac.New(t.Context(), open(t, db, nil, ""), quiet())
			require.NoError(t, err)
		}
		job := crmguard.System(t.Context(), "acme", "test")
		given := racetest.Run(t, func(n int) (string, error) {
			role := []string{"buyer", "payer"}[n%2]
			err := engines[n%3].GrantRole(job, "acme", "anna", role)
			if denial, ok := errors.AsType[*crmguard.Denial](err); ok && denial.Code == "separation-of-duties" {
				return "", nil
			}
			return role, err
		})
		roles := map[string]bool{}
		for _, role := range given {
			if role != "" {
				roles[role] = true
			}
		}
		require.Len(t, roles, 1)
		_, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err, "what is stored is sound")
	})
}

// What reaches the store past the engine is refused when it is read, and what an engine had
// before stays; so does what would take the exclusion out of the way in the same breath.
func TestExcludedRolesPastTheEngine(t *testing.T) {
	a := open(t, sqldbtest.SQLite(t), nil, separated+"g, u:anna, role:buyer, acme\n")
	e, err := rbac.New(t.Context(), a, quiet())
	require.NoError(t, err)
	require.NoError(t, a.AddPolicies("g", "g", [][]string{{"u:anna", "role:payer", "acme"}}))
	var refused *rbac.PolicyError
	require.ErrorAs(t, e.Reload(t.Context()), &refused)
	require.Equal(t, "row 5", refused.Findings[0].Where)
	pay := crmguard.Resource{Tenant: "acme", Kind: "orders", ID: "1"}
	require.Error(t, e.Check(t.Context(), employee("acme", "anna"), crmguard.Update, pay))

	job := crmguard.System(t.Context(), "acme", "test")
	_, err = e.Replace(job, "acme", e.Status().Stored.Number, append(ruleList(t, separated), []string{"g", "unit:desk", "role:payer", "acme"},
		[]string{"g", "u:anna", "unit:desk", "acme"}, []string{"g", "u:anna", "role:buyer", "acme"}), "test")
	require.ErrorAs(t, err, &refused)
	require.Contains(t, refused.Error(), "u:anna would have role:buyer and unit:desk → role:payer at once")
	_, err = e.Replace(job, "acme", e.Status().Stored.Number, append(ruleList(t, separated), []string{"g", "u:anna", "role:payer", "acme"}), "anna pays now")
	require.NoError(t, err, "one for the other, at once")
	require.NoError(t, e.Check(t.Context(), employee("acme", "anna"), crmguard.Update, pay))
}
