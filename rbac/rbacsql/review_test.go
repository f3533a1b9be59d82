package rbacsql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

// A review names who gave what: by the last version that added a row, of this tenant.
func TestAReviewNamesWhoGaveWhat(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, companies)
		e, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		oleg := crmguard.WithSubject(t.Context(), employee("acme", "oleg"))
		grant := func(person, reason string) {
			require.NoError(t, e.GrantRole(rbac.WithReason(oleg, reason), "acme", person, "seller"))
		}
		grant("boris", "a mistake")
		require.NoError(t, e.RevokeRole(oleg, "acme", "boris", "seller"))
		grant("boris", "trial")
		grant("vera", "for good")
		require.NoError(t, e.RevokeRole(oleg, "acme", "vera", "seller"))
		namesake := crmguard.WithSubject(t.Context(), employee("globex", "oleg"))
		_, err = e.Replace(namesake, "globex", e.Status().Stored.Number, [][]string{{"p", "role:owner", "globex", "contacts", "view", "all", "allow"}}, "olga has left")
		require.NoError(t, err)

		l, err := e.ReviewLeaver(t.Context(), "acme", "boris")
		require.NoError(t, err)
		require.Len(t, l.Rows, 1)
		require.Equal(t, []string{"g", "u:boris", "role:seller", "acme"}, l.Rows[0].Rule)
		require.Equal(t, "oleg", l.Rows[0].By.Author)
		require.Equal(t, "trial", l.Rows[0].By.Reason, "the grant that stands")
		require.Empty(t, l.Rows[0].By.Added)
		require.Empty(t, l.Granted)
		require.Contains(t, l.String(), "by u:oleg on ")

		l, err = e.ReviewLeaver(t.Context(), "acme", "oleg")
		require.NoError(t, err)
		require.Len(t, l.Granted, 1, "what is still in force, here")
		require.Equal(t, []string{"g", "u:boris", "role:seller", "acme"}, l.Granted[0].Rule)
		require.Len(t, l.Rows, 1)
		require.NotZero(t, l.Rows[0].By.Number)
		require.Empty(t, l.Rows[0].By.Author, "nobody acted when the policy was filled")

		table{t, db}.exec(`UPDATE casbin_version SET author = 'boris' WHERE author = 'oleg'`)
		_, err = e.ReviewLeaver(t.Context(), "acme", "oleg")
		require.ErrorContains(t, err, "who gave what", "a history that was tampered with names nobody")
	})
}
