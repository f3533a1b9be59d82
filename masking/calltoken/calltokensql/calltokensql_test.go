package calltokensql_test

import (
	"database/sql"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/masking/calltoken"
	"github.com/crmguard/crmguard/masking/calltoken/calltokensql"
	"github.com/crmguard/crmguard/masking/calltoken/calltokentest"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func open(t testing.TB, db *sql.DB, o *calltokensql.Options) *calltokensql.Store {
	t.Helper()
	s, err := calltokensql.New(t.Context(), db, o)
	require.NoError(t, err)
	return s
}

func call(id string) calltoken.Call {
	return calltoken.Call{Tenant: "acme", ID: id, Person: "anna", State: calltoken.Ringing, Begun: noon}
}

func TestStore(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		calltokentest.Run(t, func(t *testing.T) calltoken.Store { return open(t, sqldbtest.SQLite(t), nil) })
	})
	t.Run("postgres", func(t *testing.T) {
		calltokentest.Run(t, func(t *testing.T) calltoken.Store { return open(t, sqldbtest.Postgres(t), nil) })
	})
}

// What docs/formats/calltoken.md specifies, and that calls of a day ago go.
func TestRows(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		s := open(t, db, nil)
		_, _, err := s.Begin(t.Context(), call("old"), noon.Add(-time.Hour))
		require.NoError(t, err)
		next := call("a")
		next.Begun = noon.Add(25 * time.Hour)
		_, _, err = s.Begin(t.Context(), next, noon.Add(time.Hour))
		require.NoError(t, err)
		_, err = s.Settle(t.Context(), "acme", "a", calltoken.Failed)
		require.NoError(t, err)
		var tenant, id, person string
		var state, begun, rows int64
		require.NoError(t, db.QueryRow(`SELECT tenant, id, person, state, begun_at, (SELECT COUNT(*) FROM crmguard_calls) FROM crmguard_calls`).
			Scan(&tenant, &id, &person, &state, &begun, &rows))
		require.Equal(t, []any{"acme", "a", "anna", int64(3), next.Begun.UnixMicro(), int64(1)}, []any{tenant, id, person, state, begun, rows})
	})
}

func TestTwoStoresInOneDatabase(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		crm := open(t, db, nil)
		exchange := open(t, db, &calltokensql.Options{TablePrefix: "pbx_"})
		open(t, db, nil) // migrated already
		for _, s := range []*calltokensql.Store{crm, exchange} {
			_, first, err := s.Begin(t.Context(), call("a"), noon)
			require.NoError(t, err)
			require.True(t, first)
		}
		_, err := calltokensql.New(t.Context(), db, &calltokensql.Options{TablePrefix: "no;"})
		require.ErrorContains(t, err, "calltokensql: ")
	})
}

// A broken database begins nothing and finds nothing.
func TestBrokenDatabase(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		s := open(t, db, nil)
		_, err := db.Exec(`DROP TABLE crmguard_calls`)
		require.NoError(t, err)
		_, first, err := s.Begin(t.Context(), call("a"), noon)
		require.Error(t, err)
		require.False(t, first)
		_, err = s.Settle(t.Context(), "acme", "a", calltoken.Ended)
		require.Error(t, err)
		_, err = s.Find(t.Context(), "acme", "a")
		require.Error(t, err)
		require.NotErrorIs(t, err, calltoken.ErrNotFound)
	})
}

// The call has begun, whether or not old ones can be removed.
func TestBeginWithoutTheRightToDelete(t *testing.T) {
	db := sqldbtest.SQLite(t)
	s := open(t, db, nil)
	_, err := db.Exec(`CREATE TRIGGER keep BEFORE DELETE ON crmguard_calls BEGIN SELECT RAISE(ABORT, 'no'); END`)
	require.NoError(t, err)
	for _, id := range []string{"a", "b"} {
		_, first, err := s.Begin(t.Context(), call(id), noon.Add(time.Hour))
		require.NoError(t, err)
		require.True(t, first)
	}
}

// The files run as they are, up and down, with another tool, and leave New with
// nothing to do.
func TestMigrationsOfAnotherTool(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		text, err := fs.ReadFile(calltokensql.Migrations, "migrations/00001_calls.sql")
		require.NoError(t, err)
		up, down, ok := strings.Cut(string(text), "-- +goose Down\n")
		require.True(t, ok)
		for range 2 {
			for _, part := range []string{strings.TrimPrefix(up, "-- +goose Up\n"), down} {
				for statement := range strings.SplitSeq(part, ";\n") {
					if strings.TrimSpace(statement) != "" {
						_, err := db.Exec(statement)
						require.NoError(t, err, statement)
					}
				}
				if part != down {
					open(t, db, nil)
				}
			}
		}
		open(t, db, nil)
	})
}
