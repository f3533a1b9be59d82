package sessionsql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/session"
	"github.com/crmguard/crmguard/session/sessionsql"
	"github.com/crmguard/crmguard/session/sessiontest"
)

func open(t *testing.T, db *sql.DB, o *sessionsql.Options) *sessionsql.Store {
	t.Helper()
	s, err := sessionsql.New(t.Context(), db, o)
	require.NoError(t, err)
	return s
}

func TestStore(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		sessiontest.Run(t, func(t *testing.T) session.Store { return open(t, sqldbtest.SQLite(t), nil) })
	})
	t.Run("postgres", func(t *testing.T) {
		sessiontest.Run(t, func(t *testing.T) session.Store { return open(t, sqldbtest.Postgres(t), nil) })
	})
}
