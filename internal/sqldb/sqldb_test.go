package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

var twoMigrations = fstest.MapFS{
	"migrations/00001_init.sql": file("-- +goose Up\nCREATE TABLE crmguard_things (id TEXT PRIMARY KEY, n BIGINT NOT NULL);\n-- +goose Down\nDROP TABLE crmguard_things;\n"),
	"migrations/00002_more.sql": file("-- +goose Up\nALTER TABLE crmguard_things ADD COLUMN blob BYTEA;\nINSERT INTO crmguard_things (id, n) VALUES ('a', 0);\n"),
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

// Every increment reads and then writes, so concurrent ones conflict; with
// retries none is lost and none fails.
func TestTxRetriesConflicts(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, pool *sql.DB) {
		ctx := context.Background()
		db, err := sqldb.New(ctx, pool, "")
		require.NoError(t, err)
		require.NoError(t, db.Migrate(ctx, "things", twoMigrations))
		var wg sync.WaitGroup
		errs := make([]error, 20)
		for i := range errs {
			wg.Go(func() {
				errs[i] = db.Tx(ctx, func(tx *sql.Tx) error {
					if db.Dialect == sqldb.Postgres {
						if _, err := tx.Exec(`SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`); err != nil {
							return err
						}
					}
					var n int
					if err := tx.QueryRow(db.Q(`SELECT n FROM crmguard_things WHERE id = $1`), "a").Scan(&n); err != nil {
						return err
					}
					_, err := tx.Exec(db.Q(`UPDATE crmguard_things SET n = $1 WHERE id = $2`), n+1, "a")
					return err
				})
			})
		}
		wg.Wait()
		failed := 0
		for _, err := range errs {
			if err != nil {
				require.True(t, sqldb.Retryable(err), "%v", err)
				failed++
			}
		}
		var n int
		require.NoError(t, pool.QueryRow(`SELECT n FROM crmguard_things`).Scan(&n))
		require.Equal(t, len(errs)-failed, n, "an acknowledged increment counts exactly once")
		require.Less(t, failed, len(errs)/2)
	})
}

func TestUniqueViolation(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, pool *sql.DB) {
		db, err := sqldb.New(context.Background(), pool, "")
		require.NoError(t, err)
		require.NoError(t, db.Migrate(context.Background(), "things", twoMigrations))
		_, err = pool.Exec(`INSERT INTO crmguard_things (id, n) VALUES ('a', 1)`)
		require.True(t, sqldb.UniqueViolation(err), "%v", err)
		require.False(t, sqldb.Retryable(err))
	})
}

// secure_delete works per connection: one connection without it leaves what it
// deletes readable in the file.
func TestSQLitePragmasOnEveryConnection(t *testing.T) {
	pool := sqldbtest.SQLite(t)
	ctx := context.Background()
	for i := range 5 {
		conn, err := pool.Conn(ctx) // held, so the next one is new
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		var secure, vacuum int
		require.NoError(t, conn.QueryRowContext(ctx, `PRAGMA secure_delete`).Scan(&secure))
		require.NoError(t, conn.QueryRowContext(ctx, `PRAGMA auto_vacuum`).Scan(&vacuum))
		require.Equal(t, [2]int{1, 1}, [2]int{secure, vacuum}, "connection %d", i)
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := sqldb.New(context.Background(), nil, "")
	require.Error(t, err)
	_, err = sqldb.New(context.Background(), sqldbtest.SQLite(t), `x"; DROP TABLE y`)
	require.ErrorContains(t, err, "prefix")
}

func TestParamsAndTimes(t *testing.T) {
	require.Equal(t, "$3, $4, $5", sqldb.Params(3, 3))
	require.Equal(t, "", sqldb.Params(1, 0))
	require.True(t, sqldb.Time(sqldb.Micros(time.Time{})).IsZero())
	now := time.Now()
	require.Equal(t, now.UnixMicro(), sqldb.Time(sqldb.Micros(now)).UnixMicro())
	require.Equal(t, "postgres", fmt.Sprint(sqldb.Postgres))
}
