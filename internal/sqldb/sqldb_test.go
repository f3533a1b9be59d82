package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

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
				require.True(t, db.Retryable(err), "%v", err)
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
		require.False(t, db.Retryable(err))
	})
}

// coded is an error of some other library, whose codes mean something else.
type coded int

func (c coded) Error() string { return "no such account" }
func (c coded) Code() int     { return int(c) }

type state string

func (s state) Error() string    { return "refused" }
func (s state) SQLState() string { return string(s) }

func TestDataException(t *testing.T) {
	require.True(t, sqldb.DataException(fmt.Errorf("get: %w", state("22P02"))))
	for _, err := range []error{nil, sql.ErrNoRows, state("42601"), coded(22)} {
		require.False(t, sqldb.DataException(err), "%v", err)
	}
	_, err := sqldbtest.Postgres(t).ExecContext(t.Context(), `SELECT CAST($1 AS BIGINT)`, "x")
	require.True(t, sqldb.DataException(err), "%v", err)
}

func TestRetryable(t *testing.T) {
	lite, pg := &sqldb.DB{Dialect: sqldb.SQLite}, &sqldb.DB{Dialect: sqldb.Postgres}
	for _, tc := range []struct {
		err      error
		lite, pg bool
	}{
		{nil, false, false},
		{sql.ErrNoRows, false, false},
		{coded(5), false, false},
		{fmt.Errorf("seal: %w", coded(0x206)), false, false},
		{errors.New("database is locked"), true, false}, // mattn
		{errors.New("database table is locked: things"), true, false},
		{state("40001"), false, true},
		{fmt.Errorf("seal: %w", state("40P01")), false, true},
		{state("23505"), false, false},
	} {
		require.Equal(t, tc.lite, lite.Retryable(tc.err), "%v", tc.err)
		require.Equal(t, tc.pg, pg.Retryable(tc.err), "%v", tc.err)
	}

	// And what the driver says in fact.
	pool := sqldbtest.SQLite(t)
	conns := make([]*sql.Conn, 2)
	for i := range conns {
		var err error
		conns[i], err = pool.Conn(t.Context())
		require.NoError(t, err)
		defer conns[i].Close() //nolint:errcheck // goes back to the pool
	}
	_, err := conns[0].ExecContext(t.Context(), `BEGIN IMMEDIATE`)
	require.NoError(t, err)
	_, err = conns[1].ExecContext(t.Context(), `PRAGMA busy_timeout = 0`)
	require.NoError(t, err)
	_, err = conns[1].ExecContext(t.Context(), `BEGIN IMMEDIATE`)
	require.Error(t, err)
	require.True(t, lite.Retryable(err), "%v", err)
	_, err = conns[0].ExecContext(t.Context(), `ROLLBACK`)
	require.NoError(t, err)
}

func TestRetryGivesUpAtOnceWhenItIsOfNoUse(t *testing.T) {
	db, err := sqldb.New(t.Context(), sqldbtest.SQLite(t), "")
	require.NoError(t, err)
	runs := 0
	require.ErrorIs(t, db.Retry(t.Context(), func() error { runs++; return coded(5) }), coded(5))
	require.Equal(t, 1, runs)
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

// However a query numbers its parameters, each gets the argument that it names.
func TestParameters(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, pool *sql.DB) {
		db, err := sqldb.New(t.Context(), pool, "")
		require.NoError(t, err)
		for query, want := range map[string]string{
			`SELECT CAST($1 AS TEXT) || CAST($2 AS TEXT) || CAST($3 AS TEXT)`:                     "abc",
			`SELECT CAST($3 AS TEXT) || CAST($2 AS TEXT) || CAST($1 AS TEXT)`:                     "cba",
			`SELECT CAST($1 AS TEXT) || CAST($2 AS TEXT) || CAST($1 AS TEXT) || CAST($3 AS TEXT)`: "abac",
		} {
			var got string
			require.NoError(t, pool.QueryRowContext(t.Context(), db.Q(query), "a", "b", "c").Scan(&got), query)
			require.Equal(t, want, got)
		}
	})
}

// A page of keys is a statement of six thousand parameters.
func BenchmarkManyParameters(b *testing.B) {
	pool := sqldbtest.SQLite(b)
	db, err := sqldb.New(b.Context(), pool, "")
	require.NoError(b, err)
	args := make([]any, 6000)
	query := `SELECT COUNT(*) FROM (VALUES (` + strings.ReplaceAll(sqldb.Params(1, len(args)), ", ", "), (") + `))`
	for b.Loop() {
		var n int
		require.NoError(b, pool.QueryRowContext(b.Context(), db.Q(query), args...).Scan(&n))
		require.Equal(b, len(args), n)
	}
}

// A connection that is opened to read does not wait for somebody who writes.
func TestOpeningAConnectionWaitsForNobody(t *testing.T) {
	db := sqldbtest.SQLite(t)
	_, err := db.Exec(`CREATE TABLE clients (id INTEGER PRIMARY KEY)`)
	require.NoError(t, err)
	writer, err := db.Begin()
	require.NoError(t, err)
	defer writer.Rollback() //nolint:errcheck // nothing is to be kept
	_, err = writer.Exec(`INSERT INTO clients VALUES (1)`)
	require.NoError(t, err)
	var n int
	require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM clients`).Scan(&n), "the writer never ends")
	require.Zero(t, n)
}
