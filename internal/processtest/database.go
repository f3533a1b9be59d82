package processtest

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// EachDatabase runs test on an empty database of every dialect, which [Open] opens,
// here and in other processes.
func EachDatabase(t *testing.T, test func(t *testing.T, database string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(sqldbtest.Dir(t), "test.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, sqldbtest.PostgresURL(t)) })
}

// Open opens a database of [EachDatabase].
func Open(ctx context.Context, database string) (*sql.DB, error) {
	if !strings.HasPrefix(database, "postgres") {
		return sqldb.OpenSQLite(ctx, database)
	}
	db, err := sql.Open("pgx", database)
	if err == nil {
		db.SetMaxOpenConns(4) // of each process: servers allow a hundred in all
	}
	return db, err
}
