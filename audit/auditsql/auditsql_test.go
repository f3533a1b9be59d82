package auditsql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func newStore(t testing.TB, db *sql.DB) *auditsql.Store {
	t.Helper()
	s, err := auditsql.New(t.Context(), db, nil)
	require.NoError(t, err)
	return s
}

func TestStore(t *testing.T) {
	for name, open := range map[string]func(testing.TB) *sql.DB{"sqlite": sqldbtest.SQLite, "postgres": sqldbtest.Postgres} {
		t.Run(name, func(t *testing.T) {
			audittest.Run(t, func(t *testing.T) audit.Store { return newStore(t, open(t)) })
			audittest.RunInbox(t, func(t *testing.T) (audittest.InboxStore, *sql.DB) {
				db := open(t)
				return newStore(t, db), db
			})
		})
	}
}
