package rbacsql_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

// A deputy is a version like others: with author and history, for all processes, and by
// no way of changing the policy without what the person has.
func TestDeputiesAreVersions(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		const policy = `p, role:seller, acme, contacts, view, own, allow
g, u:anna, role:seller, acme
g, u:boris, role:seller, acme
`
		a := open(t, db, nil, policy)
		e, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		other, err := rbac.New(t.Context(), open(t, db, nil, ""), quiet())
		require.NoError(t, err)
		anna, boris := crmguard.WithSubject(t.Context(), employee("acme", "anna")), crmguard.WithSubject(t.Context(), employee("acme", "boris"))
		views := func(e *rbac.Engine, owner string) bool {
			return e.Check(t.Context(), employee("acme", "dora"), crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: owner}) == nil
		}
		from, end := time.Now(), time.Now().Add(time.Hour)
		require.NoError(t, e.Deputize(rbac.WithReason(anna, "holidays"), "acme", "dora", "anna", from, end))
		require.NoError(t, other.Reload(t.Context()))
		for _, e := range []*rbac.Engine{e, other} {
			require.True(t, views(e, "anna"))
			require.False(t, views(e, "boris"))
		}
		page, err := e.History(anna, "acme", 0, 1)
		require.NoError(t, err)
		require.Equal(t, []string{"anna", "holidays"}, []string{page[0].Author, page[0].Reason})
		added := page[0].Added
		require.Equal(t, []string{"p3", "u:dora", "u:anna", "acme"}, added[0][:4])

		number := e.Status().Stored.Number
		require.NoError(t, other.EndDeputy(boris, "acme", "dora", "anna"))
		require.NoError(t, e.Reload(t.Context()))
		require.False(t, views(e, "anna"))
		again := append(ruleList(t, policy), added...)
		_, err = e.Replace(boris, "acme", number+1, again, "boris brings it back")
		requireLacks(t, err)
		_, err = e.Replace(crmguard.WithSubject(t.Context(), employee("acme", "dora")), "acme", number+1, again, "for herself")
		var denial *crmguard.Denial
		require.True(t, errors.As(err, &denial))
		require.Equal(t, "self-grant", denial.Code)
		_, err = e.Replace(anna, "acme", number+1, again, "her own again")
		require.NoError(t, err)
		require.True(t, views(e, "anna"))
		_, err = other.Revoke(t.Context(), "acme", "anna")
		require.NoError(t, err)
		require.NoError(t, e.Reload(t.Context()))
		require.False(t, views(e, "anna"))
		deputies, err := e.Deputies(t.Context(), "acme")
		require.NoError(t, err)
		require.Empty(t, deputies)
	})
}
