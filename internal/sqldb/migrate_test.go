package sqldb_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

var oneMigration = fstest.MapFS{
	"migrations/00001_init.sql": file(`-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (store TEXT NOT NULL, version BIGINT NOT NULL, applied_at BIGINT NOT NULL, PRIMARY KEY (store, version));
CREATE TABLE crmguard_things (id TEXT PRIMARY KEY, n BIGINT NOT NULL);
INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('things', 1, 0);
-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'things' AND version = 1;
DROP TABLE crmguard_things;
`),
}

var twoMigrations = fstest.MapFS{
	"migrations/00001_init.sql": oneMigration["migrations/00001_init.sql"],
	"migrations/00002_more.sql": file(`-- +goose Up
ALTER TABLE crmguard_things ADD COLUMN blob BYTEA;
INSERT INTO crmguard_things (id, n) VALUES ('a', 0);
INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('things', 2, 0);
-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'things' AND version = 2;
`),
}

func TestMigrateOnceForAllProcesses(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, pool *sql.DB) {
		ctx := context.Background()
		db, err := sqldb.New(ctx, pool, "acme_")
		require.NoError(t, err)
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { errs[i] = db.Migrate(ctx, "things", twoMigrations) })
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))

		var id string
		require.NoError(t, pool.QueryRow(`SELECT id FROM acme_things`).Scan(&id), "the prefix is used, and the row is there once")
		require.Equal(t, "a", id)

		older := fstest.MapFS{"migrations/00001_init.sql": twoMigrations["migrations/00001_init.sql"]}
		require.ErrorContains(t, db.Migrate(ctx, "things", older), "use a newer program")
	})
}

func TestMigrateRefusesBadFiles(t *testing.T) {
	pool := sqldbtest.SQLite(t)
	db, err := sqldb.New(context.Background(), pool, "")
	require.NoError(t, err)
	for name, files := range map[string]fstest.MapFS{
		"no files":  {"migrations": &fstest.MapFile{Mode: 0o555 | 1<<31}},
		"bad name":  {"migrations/init.sql": file("-- +goose Up\n")},
		"gap":       {"migrations/00002_x.sql": file("-- +goose Up\nSELECT 1;\n")},
		"no marker": {"migrations/00001_x.sql": file("SELECT 1;\n")},
		"bad SQL":   {"migrations/00001_x.sql": file("-- +goose Up\nCREATE TABLE crmguard_left (id TEXT);\nNONSENSE;\n")},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, db.Migrate(context.Background(), "x", files))
		})
	}
	var n int
	require.NoError(t, pool.QueryRow(`SELECT COUNT(*) FROM sqlite_master WHERE name = 'crmguard_left'`).Scan(&n))
	require.Zero(t, n, "a failed migration leaves nothing")
}

// goose runs one direction of a file as that tool does.
func goose(t *testing.T, pool *sql.DB, text, direction string) {
	t.Helper()
	up, down, ok := strings.Cut(text, "-- +goose Down\n")
	require.True(t, ok, "no way down")
	part := strings.TrimPrefix(up, "-- +goose Up\n")
	if direction == "down" {
		part = down
	}
	for _, statement := range regexp.MustCompile(`;[ \t]*(\n|$)`).Split(part, -1) {
		if strings.TrimSpace(statement) != "" {
			_, err := pool.ExecContext(t.Context(), statement)
			require.NoError(t, err, statement)
		}
	}
}

// Every file of the repository, made and taken back by another tool, leaves New
// with nothing to do, and with everything.
func TestFilesOfTheRepositoryRunWithAnotherTool(t *testing.T) {
	var folders []string
	for _, pattern := range []string{"../../*/*sql/migrations", "../../*/*/*sql/migrations", "../../*/*sql/*/migrations"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		folders = append(folders, found...)
	}
	require.Greater(t, len(folders), 5)
	named := regexp.MustCompile(`INSERT INTO crmguard_migrations \(store, version, applied_at\) VALUES \('([a-z-]+)', (\d+), 0\);\s+-- \+goose Down`)
	for _, folder := range folders {
		t.Run(strings.TrimPrefix(folder, "../../"), func(t *testing.T) {
			sqldbtest.Each(t, func(t *testing.T, pool *sql.DB) {
				db, err := sqldb.New(t.Context(), pool, "")
				require.NoError(t, err)
				above := filepath.Base(filepath.Dir(folder))
				if (above == "sqlite" || above == "postgres") && above != db.Dialect.String() {
					return // a file for the other dialect
				}
				names, err := filepath.Glob(folder + "/*.sql")
				require.NoError(t, err)
				var texts []string
				store := ""
				for _, name := range names {
					text, err := os.ReadFile(name) //nolint:gosec // a file of this repository
					require.NoError(t, err)
					match := named.FindStringSubmatch(string(text))
					require.NotNil(t, match, "%s: the last statement is not the INSERT of its version", name)
					store = match[1]
					texts = append(texts, string(text))
					goose(t, pool, string(text), "up")
				}
				files := os.DirFS(filepath.Dir(folder))
				before := schema(t, db)
				require.NoError(t, db.Migrate(t.Context(), store, files))
				require.Equal(t, before, schema(t, db))
				for _, text := range slices.Backward(texts) {
					goose(t, pool, text, "down")
				}
				require.Equal(t, []string{"crmguard_migrations"}, schema(t, db), "nothing is left")
				require.NoError(t, db.Migrate(t.Context(), store, files), "the version was taken back too")
				require.Equal(t, before, schema(t, db))
			})
		})
	}
}

func schema(t *testing.T, db *sqldb.DB) []string {
	t.Helper()
	query := `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name`
	if db.Dialect == sqldb.Postgres {
		query = `SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename`
	}
	rows, err := db.QueryContext(t.Context(), query)
	require.NoError(t, err)
	var names []string
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		names = append(names, name)
	}
	require.NoError(t, rows.Err())
	require.NoError(t, rows.Close())
	return names
}

func TestMigrateSaysWhatToRun(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, pool *sql.DB) {
		db, err := sqldb.New(t.Context(), pool, "")
		require.NoError(t, err)
		require.NoError(t, db.Migrate(t.Context(), "things", oneMigration))
		for _, lost := range []string{`DELETE FROM crmguard_migrations`, `DROP TABLE crmguard_migrations`} {
			_, err = pool.ExecContext(t.Context(), lost)
			require.NoError(t, err)
			require.ErrorContains(t, db.Migrate(t.Context(), "things", oneMigration), "run the statements of migrations/00001_init.sql that name crmguard_migrations")
			text := string(oneMigration["migrations/00001_init.sql"].Data)
			for statement := range strings.SplitSeq(text[:strings.Index(text, "-- +goose Down")], ";\n") {
				if strings.Contains(statement, "crmguard_migrations") {
					_, err = pool.ExecContext(t.Context(), statement)
					require.NoError(t, err)
				}
			}
			require.NoError(t, db.Migrate(t.Context(), "things", oneMigration))
		}
	})
}

func TestMigrateRefusesFilesThatDoNotSayTheirVersion(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, pool *sql.DB) {
		db, err := sqldb.New(t.Context(), pool, "")
		require.NoError(t, err)
		require.ErrorContains(t, db.Migrate(t.Context(), "other", oneMigration), "INSERT INTO crmguard_migrations")
		require.Empty(t, schema(t, db))
	})
}

// What is current is neither written nor locked.
func TestMigrateLocksNothingThatIsCurrent(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, pool *sql.DB) {
		db, err := sqldb.New(t.Context(), pool, "")
		require.NoError(t, err)
		require.NoError(t, db.Migrate(t.Context(), "things", twoMigrations))
		spare, err := pool.Conn(t.Context()) // a new connection to SQLite would write its settings
		require.NoError(t, err)
		conn, err := pool.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close() //nolint:errcheck // goes back to the pool
		require.NoError(t, spare.Close())
		lock, unlock := `BEGIN IMMEDIATE`, `ROLLBACK`
		if db.Dialect == sqldb.Postgres {
			lock, unlock = `SELECT pg_advisory_lock(1668443495)`, `SELECT pg_advisory_unlock(1668443495)`
		}
		_, err = conn.ExecContext(t.Context(), lock)
		require.NoError(t, err)
		require.NoError(t, db.Migrate(t.Context(), "things", twoMigrations))

		// The planted fault: what is not current does wait for that lock.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.Error(t, db.Migrate(ctx, "other", fstest.MapFS{"migrations/00001_x.sql": file(
			"-- +goose Up\nINSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('other', 1, 0);\n")}))
		_, err = conn.ExecContext(t.Context(), unlock)
		require.NoError(t, err)
	})
}

// A role that may read and write rows and nothing else starts on current tables.
func TestMigrateAsARoleThatMayNotCreate(t *testing.T) {
	server := sqldbtest.PostgresURL(t)
	pool, err := sql.Open("pgx", server)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	owner, err := sqldb.New(t.Context(), pool, "")
	require.NoError(t, err)
	require.NoError(t, owner.Migrate(t.Context(), "things", oneMigration))

	u, err := url.Parse(server)
	require.NoError(t, err)
	schema, role, password := u.Query().Get("search_path"), "app_"+strings.ToLower(rand.Text()), rand.Text()
	for _, statement := range []string{
		`CREATE ROLE ` + role + ` LOGIN PASSWORD '` + password + `'`,
		`GRANT USAGE ON SCHEMA ` + schema + ` TO ` + role,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ` + schema + ` TO ` + role,
	} {
		_, err = pool.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	u.User = url.UserPassword(role, password)
	app, err := sql.Open("pgx", u.String())
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, app.Close())
		for _, statement := range []string{`DROP OWNED BY ` + role, `DROP ROLE ` + role} {
			_, err := pool.Exec(statement)
			require.NoError(t, err)
		}
	})

	db, err := sqldb.New(t.Context(), app, "")
	require.NoError(t, err)
	require.NoError(t, db.Migrate(t.Context(), "things", oneMigration))
	_, err = db.ExecContext(t.Context(), `INSERT INTO crmguard_things (id, n) VALUES ('b', 1)`)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `CREATE TABLE IF NOT EXISTS crmguard_migrations (store TEXT)`)
	require.ErrorContains(t, err, "permission denied", "the role is one")
	require.ErrorContains(t, db.Migrate(t.Context(), "things", twoMigrations), "migration 2 of things")
	require.NoError(t, owner.Migrate(t.Context(), "things", twoMigrations))
	require.NoError(t, db.Migrate(t.Context(), "things", twoMigrations))

	_, err = pool.ExecContext(t.Context(), `REVOKE SELECT ON crmguard_migrations FROM `+role)
	require.NoError(t, err)
	require.ErrorContains(t, db.Migrate(t.Context(), "things", twoMigrations), "SELECT on crmguard_migrations")
}
