package rbacsql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

// A move is one version, so roles that exclude each other can take each other's place, and
// it gives nothing that its author lacks.
func TestMove(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, separated+`g, u:anna, role:buyer, acme
p2, u:anna, role:buyer, acme, 2999-01-01T00:00:00Z
g, u:pia, role:payer, acme
g, u:bea, role:buyer, acme
`)
		e, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		job := crmguard.System(t.Context(), "acme", "test")
		pia, bea := crmguard.WithSubject(t.Context(), employee("acme", "pia")), crmguard.WithSubject(t.Context(), employee("acme", "bea"))
		buyer, payer := []string{"role:buyer"}, []string{"role:payer"}

		var denial *crmguard.Denial
		require.ErrorAs(t, e.GrantRole(job, "acme", "anna", "payer"), &denial)
		require.Equal(t, "separation-of-duties", denial.Code, "a grant alone is no move")
		denial = nil
		require.ErrorAs(t, e.Move(job, "acme", "anna", nil, payer, "test"), &denial)
		require.Equal(t, "separation-of-duties", denial.Code)
		requireLacks(t, e.Move(bea, "acme", "anna", buyer, payer, "test"))
		require.ErrorAs(t, e.Move(bea, "acme", "bea", buyer, payer, "test"), &denial)
		require.Equal(t, "self-grant", denial.Code)
		require.ErrorAs(t, e.Move(bea, "acme", "bea", buyer, buyer, "test"), &denial)
		require.Equal(t, "self-grant", denial.Code, "be it to where they are")
		require.ErrorAs(t, e.Move(job, "acme", "system:nightly", nil, payer, "test"), &denial)
		require.ErrorContains(t, e.Move(job, "acme", "anna", buyer, []string{"role:pyaer"}, "test"), "knows")
		require.ErrorContains(t, e.Move(job, "acme", "anna", buyer, payer, ""), "reason")
		require.ErrorContains(t, e.Move(t.Context(), "acme", "anna", buyer, payer, "test"), "nobody acts")
		require.Error(t, e.Move(crmguard.System(t.Context(), "globex", "test"), "acme", "anna", buyer, payer, "test"))

		before := e.Status().Stored.Number
		require.NoError(t, e.Move(pia, "acme", "anna", buyer, payer, "anna pays now"))
		versions, err := e.History(job, "acme", 0, 1)
		require.NoError(t, err)
		require.Equal(t, before+1, versions[0].Number)
		require.Equal(t, "anna pays now", versions[0].Reason)
		require.Equal(t, [][]string{{"g", "u:anna", "role:payer", "acme"}}, versions[0].Added)
		require.Len(t, versions[0].Removed, 2, "the grant that ends, too")
		order := crmguard.Resource{Tenant: "acme", Kind: "orders", ID: "1"}
		require.NoError(t, e.Check(t.Context(), employee("acme", "anna"), crmguard.Update, order))
		require.Error(t, e.Check(t.Context(), employee("acme", "anna"), crmguard.Create, order))
		require.NoError(t, e.Move(pia, "acme", "anna", buyer, payer, "again"))
		require.Equal(t, before+1, e.Status().Stored.Number)
	})
	e, err := rbac.FromPolicy(t.Context(), rbac.Policy{Rules: []rbac.Rule{{Subject: "role:a", Tenant: "acme", Object: "contacts", Action: crmguard.View, Scope: rbac.All}}}, quiet())
	require.NoError(t, err)
	require.ErrorIs(t, e.Move(crmguard.System(t.Context(), "acme", "test"), "acme", "anna", nil, []string{"role:a"}, "test"), rbac.ErrNoVersions)
}
