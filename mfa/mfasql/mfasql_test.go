package mfasql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/mfa/mfasql"
	"github.com/crmguard/crmguard/mfa/mfatest"
)

func open(t testing.TB, db *sql.DB, o *mfasql.Options) *mfasql.Store {
	t.Helper()
	s, err := mfasql.New(t.Context(), db, o)
	require.NoError(t, err)
	return s
}

func TestStore(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		mfatest.Run(t, func(t *testing.T) mfa.Store { return open(t, sqldbtest.SQLite(t), nil) })
	})
	t.Run("postgres", func(t *testing.T) {
		mfatest.Run(t, func(t *testing.T) mfa.Store { return open(t, sqldbtest.Postgres(t), nil) })
	})
}
