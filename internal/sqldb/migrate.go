package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lockID serialises migrations of all stores in one PostgreSQL database.
const lockID = 0x63726d67

var migrationName = regexp.MustCompile(`^(\d{5})_[a-z0-9_]+\.sql$`)

// versions is the table that says which migrations of which stores were applied.
const versions = "crmguard_migrations"

// migration is one file: everything between "-- +goose Up" and "-- +goose Down".
type migration struct {
	file       string
	version    int64
	statements []string
}

// Migrate brings the tables of a store up to date, once for all processes that
// try at the same time. Files are NNNNN_name.sql in migrations/ of the store's
// file system, in goose's format; a statement ends with ";" at the end of a line.
// The last statement of each inserts its version into crmguard_migrations, which
// the first file makes, so that Migrate knows what another tool has run.
//
// Tables that are current are neither written nor locked.
func (db *DB) Migrate(ctx context.Context, store string, files fs.FS) error {
	migrations, err := readMigrations(files)
	if err != nil {
		return fmt.Errorf("sqldb: migrations of %s: %w", store, err)
	}
	if pending, err := db.pending(ctx, db.DB, store, migrations); err != nil || len(pending) == 0 {
		return err
	}
	return db.Tx(ctx, func(tx *sql.Tx) error {
		if db.Dialect == Postgres {
			if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(lockID)); err != nil {
				return fmt.Errorf("sqldb: lock for migrations: %w", err)
			}
		}
		pending, err := db.pending(ctx, tx, store, migrations) // another process may have been first
		if err != nil {
			return err
		}
		for _, m := range pending {
			if err := db.apply(ctx, tx, store, m); err != nil {
				return fmt.Errorf("sqldb: migration %d of %s: %w", m.version, store, err)
			}
		}
		return nil
	})
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// pending returns the migrations that were not yet applied.
func (db *DB) pending(ctx context.Context, from querier, store string, migrations []migration) ([]migration, error) {
	query := `SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1`
	if db.Dialect == Postgres {
		// Where CREATE TABLE would put it; to_regclass does not see what another
		// session has made a moment ago.
		query = `SELECT COUNT(*) FROM pg_catalog.pg_tables WHERE schemaname = current_schema() AND tablename = CAST($1 AS TEXT)`
	}
	var made int
	if err := from.QueryRowContext(ctx, query, db.Q(versions)).Scan(&made); err != nil {
		return nil, fmt.Errorf("sqldb: look for the table of migrations: %w", err)
	}
	if made == 0 {
		return migrations, nil
	}
	var applied int64
	row := from.QueryRowContext(ctx, db.Q(`SELECT COALESCE(MAX(version), 0) FROM crmguard_migrations WHERE store = $1`), store)
	if err := row.Scan(&applied); err != nil {
		return nil, fmt.Errorf("sqldb: read the version of %s, which needs SELECT on %s: %w", store, db.Q(versions), err)
	}
	newest := int64(len(migrations))
	if applied > newest {
		return nil, fmt.Errorf("sqldb: the tables of %s have version %d, this program knows %d: use a newer program", store, applied, newest)
	}
	return migrations[max(applied, 0):], nil
}

func (db *DB) apply(ctx context.Context, tx *sql.Tx, store string, m migration) error {
	for _, statement := range m.statements {
		if _, err := tx.ExecContext(ctx, db.Q(statement)); err != nil {
			if exists(err) {
				return fmt.Errorf("%w (if another tool made the tables of this migration, run the statements of %s that name %s, with that name)",
					err, m.file, db.Q(versions))
			}
			return err
		}
	}
	result, err := tx.ExecContext(ctx, db.Q(`UPDATE crmguard_migrations SET applied_at = $1 WHERE store = $2 AND version = $3`),
		Micros(time.Now()), store, m.version)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n != 1 {
		err = fmt.Errorf("%s must end with INSERT INTO %s (store, version, applied_at) VALUES ('%s', %d, 0);", m.file, versions, store, m.version)
	}
	return err
}

// exists reports whether err says that a table or index is there already.
func exists(err error) bool {
	if e, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return e.SQLState() == "42P07"
	}
	return strings.Contains(err.Error(), "already exists")
}

func readMigrations(files fs.FS) ([]migration, error) {
	entries, err := fs.ReadDir(files, "migrations")
	if err != nil {
		return nil, err
	}
	var migrations []migration
	for _, entry := range entries {
		match := migrationName.FindStringSubmatch(entry.Name())
		if match == nil {
			return nil, fmt.Errorf("%s: want NNNNN_name.sql", entry.Name())
		}
		version, err := strconv.ParseInt(match[1], 10, 64)
		if err != nil {
			return nil, err
		}
		name := path.Join("migrations", entry.Name())
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		up, ok := strings.CutPrefix(string(text), "-- +goose Up\n")
		if !ok {
			return nil, fmt.Errorf("%s: want \"-- +goose Up\" as its first line", entry.Name())
		}
		up, _, _ = strings.Cut(up, "-- +goose Down")
		var statements []string
		for statement := range strings.SplitSeq(up, ";\n") {
			if statement = strings.TrimSpace(statement); statement != "" {
				statements = append(statements, statement)
			}
		}
		migrations = append(migrations, migration{name, version, statements})
	}
	if len(migrations) == 0 {
		return nil, errors.New("no files")
	}
	slices.SortFunc(migrations, func(a, b migration) int { return int(a.version - b.version) })
	for i, m := range migrations {
		if m.version != int64(i+1) {
			return nil, fmt.Errorf("version %d is missing", i+1)
		}
	}
	return migrations, nil
}
