package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const createMigrations = `CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
)`

// lockID serialises migrations of all stores in one PostgreSQL database.
const lockID = 0x63726d67

var migrationName = regexp.MustCompile(`^(\d{5})_[a-z0-9_]+\.sql$`)

// migration is one file: everything between "-- +goose Up" and "-- +goose Down".
type migration struct {
	version    int64
	statements []string
}

// Migrate brings the tables of a store up to date, once for all processes that
// try at the same time. Files are NNNNN_name.sql in migrations/ of the store's
// file system, in goose's format; a statement ends with ";" at the end of a line.
func (db *DB) Migrate(ctx context.Context, store string, files fs.FS) error {
	migrations, err := readMigrations(files)
	if err != nil {
		return fmt.Errorf("sqldb: migrations of %s: %w", store, err)
	}
	return db.Tx(ctx, func(tx *sql.Tx) error {
		if db.Dialect == Postgres {
			if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(lockID)); err != nil {
				return fmt.Errorf("sqldb: lock for migrations: %w", err)
			}
		}
		if _, err := tx.ExecContext(ctx, db.Q(createMigrations)); err != nil {
			return fmt.Errorf("sqldb: create the table of migrations: %w", err)
		}
		var applied int64
		row := tx.QueryRowContext(ctx, db.Q(`SELECT COALESCE(MAX(version), 0) FROM crmguard_migrations WHERE store = $1`), store)
		if err := row.Scan(&applied); err != nil {
			return fmt.Errorf("sqldb: read the version of %s: %w", store, err)
		}
		if newest := migrations[len(migrations)-1].version; applied > newest {
			return fmt.Errorf("sqldb: the tables of %s have version %d, this program knows %d: use a newer program", store, applied, newest)
		}
		for _, m := range migrations {
			if m.version <= applied {
				continue
			}
			for _, statement := range m.statements {
				if _, err := tx.ExecContext(ctx, db.Q(statement)); err != nil {
					return fmt.Errorf("sqldb: migration %d of %s: %w", m.version, store, err)
				}
			}
			if _, err := tx.ExecContext(ctx, db.Q(`INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ($1, $2, $3)`),
				store, m.version, Micros(time.Now())); err != nil {
				return fmt.Errorf("sqldb: migration %d of %s: %w", m.version, store, err)
			}
		}
		return nil
	})
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
		text, err := fs.ReadFile(files, path.Join("migrations", entry.Name()))
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
		migrations = append(migrations, migration{version, statements})
	}
	if len(migrations) == 0 {
		return nil, fmt.Errorf("no files")
	}
	slices.SortFunc(migrations, func(a, b migration) int { return int(a.version - b.version) })
	for i, m := range migrations {
		if m.version != int64(i+1) {
			return nil, fmt.Errorf("version %d is missing", i+1)
		}
	}
	return migrations, nil
}
