package quotasql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/quota/quotasql"
	"github.com/crmguard/crmguard/quota/quotatest"
)

func open(t *testing.T, db *sql.DB, o *quotasql.Options) *quotasql.Store {
	t.Helper()
	s, err := quotasql.New(t.Context(), db, o)
	require.NoError(t, err)
	return s
}

func TestStore(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		quotatest.Run(t, func(t *testing.T) quota.Store { return open(t, sqldbtest.SQLite(t), nil) })
	})
	t.Run("postgres", func(t *testing.T) {
		quotatest.Run(t, func(t *testing.T) quota.Store { return open(t, sqldbtest.Postgres(t), nil) })
	})
}
