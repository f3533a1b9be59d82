package rbacsql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

// Two processes share a table. Each hears of the other's changes when it reloads,
// and what it believes until then must not keep a change from the table.
func TestTwoEnginesOnOneTable(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, rbac.StarterPolicy()+people2)
		one, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		two, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		job := crmguard.System(t.Context(), "default", "test")
		seller := func(e *rbac.Engine, id string) bool {
			return e.Check(t.Context(), crmguard.Subject{Tenant: "default", ID: id, Kind: crmguard.KindEmployee}, crmguard.List,
				crmguard.Resource{Tenant: "default", Kind: "contacts"}) == nil
		}

		// One takes a role away; two does not know until it reloads.
		got, err := one.Revoke(job, "default", "anna")
		require.NoError(t, err)
		require.Equal(t, 1, got.Count)
		require.False(t, seller(one, "anna"))
		require.True(t, seller(two, "anna"))
		require.NoError(t, two.Reload(job))
		require.False(t, seller(two, "anna"))

		// Two grants what one believes to be granted already, and one what two took away.
		require.NoError(t, one.GrantRole(job, "default", "boris", "seller"))
		require.NoError(t, two.RevokeRole(job, "default", "boris", "seller"))
		require.NoError(t, one.GrantRole(job, "default", "boris", "seller"))
		require.NoError(t, two.Reload(job))
		require.True(t, seller(two, "boris"))

		// What is counted is what the table lost.
		require.NoError(t, two.GrantRole(job, "default", "boris", "accountant"))
		got, err = one.Revoke(job, "default", "boris")
		require.NoError(t, err)
		require.Equal(t, 2, got.Count)
		got, err = two.Revoke(job, "default", "boris")
		require.NoError(t, err)
		require.Zero(t, got.Count)
		require.False(t, seller(two, "boris"))

		// A bad row elsewhere does not keep a person in who was revoked.
		_, err = one.Revoke(job, "default", "vera")
		require.NoError(t, err)
		require.NoError(t, a.AddPolicy("p", "p", []string{"role:x", "default", "contacts", "view", "own", "Allow"}))
		require.True(t, seller(two, "vera"))
		var refused *rbac.PolicyError
		require.ErrorAs(t, two.Reload(job), &refused)
		require.False(t, seller(two, "vera"))
		require.True(t, seller(two, "oleg"))
	})
}

const people2 = `g, u:anna, role:seller, default
g, u:vera, role:seller, default
g, u:oleg, role:owner, default
`
