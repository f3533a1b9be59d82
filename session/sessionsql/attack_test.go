package sessionsql_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/session"
	"github.com/crmguard/crmguard/session/sessionsql"
)

func exec(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
}

func manager(t *testing.T, db *sql.DB, keys *crmguardtest.Keys) *session.Manager {
	t.Helper()
	m, err := session.New(open(t, db, nil), keys, nil)
	require.NoError(t, err)
	for _, name := range []string{"anna", "boris"} {
		require.NoError(t, m.OpenPerson(t.Context(), "acme", name))
	}
	return m
}

var anna = crmguard.Subject{
	Tenant: "acme", ID: "anna", Kind: crmguard.KindIntegration, Assurance: crmguard.AssurancePassword,
	Device: "laptop", Scopes: []string{"contacts:view"},
}

func requireDenied(t *testing.T, err error, what string) {
	t.Helper()
	_, denied := errors.AsType[*crmguard.Denial](err)
	require.True(t, denied, "%s: %v", what, err)
}

// Whoever has the database changes rows with the statements that come to mind.
func TestWriterOfTheDatabase(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		m := manager(t, db, crmguardtest.NewKeys())
		for _, statement := range []string{
			`UPDATE crmguard_sessions SET person = 'boris'`,
			`UPDATE crmguard_sessions SET kind = 1`,
			`UPDATE crmguard_sessions SET assurance = 40`,
			`UPDATE crmguard_sessions SET assurance = 400`,
			`UPDATE crmguard_sessions SET authenticated_at = authenticated_at + 1`,
			`UPDATE crmguard_sessions SET device = 'phone'`,
			`UPDATE crmguard_sessions SET addr = '10.0.0.1'`,
			`UPDATE crmguard_sessions SET addr = 'nonsense'`,
			`UPDATE crmguard_sessions SET scopes = NULL`,
			`UPDATE crmguard_sessions SET scopes = '["contacts:export"]'`,
			`UPDATE crmguard_sessions SET scopes = 'null'`,
			`UPDATE crmguard_sessions SET scopes = '{'`,
			`UPDATE crmguard_sessions SET on_behalf_of = 'owner'`,
			`UPDATE crmguard_sessions SET end_at = end_at + 1000000`,
			`UPDATE crmguard_sessions SET used_at = used_at + 1`,
			`UPDATE crmguard_sessions SET epoch = epoch + 1`,
			`UPDATE crmguard_sessions SET tenant = ''`,
			`UPDATE crmguard_session_persons SET closed = 1`,
			`UPDATE crmguard_session_persons SET closed = 2`,
			`UPDATE crmguard_session_persons SET epoch = epoch - 1`,
			`UPDATE crmguard_session_persons SET epoch = 0`,
			`UPDATE crmguard_session_persons SET epoch = 0, closed = 0, mac = substr(mac, 1, 0)`,
			`DELETE FROM crmguard_session_persons`,
		} {
			token, err := m.Start(t.Context(), anna)
			require.NoError(t, err, statement)
			_, err = m.Authenticate(t.Context(), token)
			require.NoError(t, err, statement)

			exec(t, db, statement)
			_, err = m.Authenticate(t.Context(), token)
			requireDenied(t, err, statement)
			_, err = m.List(t.Context(), "acme", "anna")
			require.NoError(t, err, statement)

			// Whatever was written, a person can be closed and opened.
			require.NoError(t, m.ClosePerson(t.Context(), "acme", "anna"), statement)
			_, err = m.Authenticate(t.Context(), token)
			requireDenied(t, err, statement)
			require.NoError(t, m.OpenPerson(t.Context(), "acme", "anna"), statement)
			exec(t, db, `DELETE FROM crmguard_sessions`)
			require.NoError(t, m.ClosePerson(t.Context(), "acme", "boris"), statement)
			require.NoError(t, m.OpenPerson(t.Context(), "acme", "boris"), statement)
		}
	})
}

// Nor does whoever has the database end a lockdown, whatever they have seen of it
// before, as long as one process looks on; nor keep anybody from locking down.
func TestWriterOfTheDatabaseAndTheLockDown(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		keys := crmguardtest.NewKeys()
		m, other := manager(t, db, keys), manager(t, db, keys)
		var statements []string
		for _, c := range columns[:5] {
			for _, value := range values[c.values] {
				statements = append(statements, `UPDATE crmguard_session_persons SET `+c.column+` = `+strings.ReplaceAll(value, "%s", c.column)+` WHERE person = ''`)
			}
		}
		statements = append(statements,
			`UPDATE crmguard_session_persons SET closed = 0, epoch = epoch - 1 WHERE person = ''`,
			`UPDATE crmguard_session_persons SET closed = 0, mac = (SELECT p.mac FROM crmguard_session_persons p WHERE p.tenant = 'acme' AND p.person = 'anna') WHERE person = ''`,
			`UPDATE crmguard_session_persons SET (closed, epoch, mac) =
				(SELECT p.closed, p.epoch, p.mac FROM crmguard_session_persons p WHERE p.tenant = 'acme' AND p.person = 'anna') WHERE person = ''`,
			`UPDATE crmguard_session_persons SET (closed, epoch, mac) = (SELECT closed, epoch, mac FROM before) WHERE person = ''`,
			`DELETE FROM crmguard_session_persons WHERE person = ''`,
		)
		locked := func(m *session.Manager, statement string) bool {
			locked, err := m.LockedDown(t.Context(), "acme")
			require.NoError(t, err, statement)
			return locked
		}
		require.NoError(t, m.Reopen(t.Context(), "acme"))
		require.False(t, locked(m, ""))
		exec(t, db, `CREATE TABLE before AS SELECT closed, epoch, mac FROM crmguard_session_persons WHERE person = ''`)
		planted := 0
		for _, statement := range statements {
			require.NoError(t, m.LockDown(t.Context(), "acme"), statement)
			require.True(t, locked(other, statement), statement)
			if _, err := db.ExecContext(t.Context(), statement); err == nil {
				planted++
			}
			require.True(t, locked(m, statement), statement)
			require.True(t, locked(other, statement), statement)
			require.NoError(t, other.LockDown(t.Context(), "acme"), statement)
			require.True(t, locked(m, statement), statement)
			require.NoError(t, m.Reopen(t.Context(), "acme"), statement)
			require.False(t, locked(other, statement), statement)
			exec(t, db, `DELETE FROM crmguard_session_persons WHERE person NOT IN ('', 'anna', 'boris') OR tenant <> 'acme'`)
		}
		require.Greater(t, planted, 25, "most of it can be written")
	})
}

// values are what a writer can put in a column. PostgreSQL refuses those that its
// type does not have; SQLite keeps anything in any column.
var values = map[string][]string{
	"integers": {`-1`, `0`, `1`, `2`, `7`, `300`, `9223372036854775807`, `(-9223372036854775807)`, `'x'`, `''`, `'7'`, `1.5`, `9e99`, `x'00ff'`},
	"text":     {`''`, `'x'`, `'nonsense%eth0'`, `'null'`, `'["x"]'`, `x'00ff'`, `x'616e6e61'`, `7`, `1.5`, `NULL`},
	"bytes":    {`'x'`, `''`, `7`, `1.5`, `x''`, `x'00ff'`, `'\x00ff'`, `substr(%s, 2)`, `CAST(%s AS TEXT)`},
}

var columns = []struct{ table, column, values string }{
	{"crmguard_session_persons", "closed", "integers"},
	{"crmguard_session_persons", "epoch", "integers"},
	{"crmguard_session_persons", "mac", "bytes"},
	{"crmguard_session_persons", "tenant", "text"},
	{"crmguard_session_persons", "person", "text"},
	{"crmguard_sessions", "id", "text"},
	{"crmguard_sessions", "tenant", "text"},
	{"crmguard_sessions", "person", "text"},
	{"crmguard_sessions", "on_behalf_of", "text"},
	{"crmguard_sessions", "kind", "integers"},
	{"crmguard_sessions", "assurance", "integers"},
	{"crmguard_sessions", "authenticated_at", "integers"},
	{"crmguard_sessions", "device", "text"},
	{"crmguard_sessions", "addr", "text"},
	{"crmguard_sessions", "scopes", "text"},
	{"crmguard_sessions", "started_at", "integers"},
	{"crmguard_sessions", "used_at", "integers"},
	{"crmguard_sessions", "end_at", "integers"},
	{"crmguard_sessions", "epoch", "integers"},
	{"crmguard_sessions", "verifier", "bytes"},
}

// Whatever is planted in whichever column: the session that it was done to is
// refused or as it was, each listed session can be ended, and the person can be
// closed and opened.
func TestPlantedValues(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		m := manager(t, db, crmguardtest.NewKeys())
		planted := 0
		for _, c := range columns {
			for _, value := range values[c.values] {
				what := c.table + "." + c.column + " = " + value
				token, err := m.Start(t.Context(), anna)
				require.NoError(t, err, what)
				before, err := m.Authenticate(t.Context(), token)
				require.NoError(t, err, what)
				value = strings.ReplaceAll(value, "%s", c.column)
				if _, err := db.ExecContext(t.Context(), `UPDATE `+c.table+` SET `+c.column+` = `+value); err == nil {
					planted++
				}

				after, err := m.Authenticate(t.Context(), token)
				if err == nil {
					require.Equal(t, before, after, what)
				} else {
					requireDenied(t, err, what)
				}
				list, err := m.List(t.Context(), "acme", "anna")
				require.NoError(t, err, what)
				for _, s := range list {
					require.NoError(t, m.EndByID(t.Context(), "acme", "anna", s.ID), what)
					var left int
					require.NoError(t, db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM crmguard_sessions WHERE id = $1`, s.ID).Scan(&left))
					require.Zero(t, left, what)
				}
				for _, person := range []string{"anna", "boris"} {
					require.NoError(t, m.ClosePerson(t.Context(), "acme", person), what)
					state, err := m.State(t.Context(), "acme", person)
					require.NoError(t, err, what)
					require.True(t, state.Closed, what)
					_, err = m.Authenticate(t.Context(), token)
					requireDenied(t, err, what)
					require.NoError(t, m.OpenPerson(t.Context(), "acme", person), what)
				}
				_, err = m.Authenticate(t.Context(), token)
				requireDenied(t, err, what)
				exec(t, db, `DELETE FROM crmguard_sessions`)
			}
		}
		require.Greater(t, planted, 80, "most of it can be written")
	})
}

// comparesInSQL finds the row to change by its values, which cannot find values
// of a wrong type.
type comparesInSQL struct {
	*sessionsql.Store
	db *sql.DB
}

func (s comparesInSQL) Change(ctx context.Context, old, next session.Person) (int, bool, error) {
	var n int
	err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM crmguard_session_persons WHERE tenant = $1 AND person = $2 AND epoch = $3 AND mac = $4`,
		old.Tenant, old.ID, old.Epoch, []byte(old.MAC)).Scan(&n)
	if err != nil || n == 0 {
		return 0, false, err
	}
	return s.Store.Change(ctx, old, next)
}

// The planted fault: such a store leaves a person whom nobody can close.
func TestComparingInSQLIsNotEnough(t *testing.T) {
	db := sqldbtest.SQLite(t)
	keys := crmguardtest.NewKeys()
	m := manager(t, db, keys)
	faulty, err := session.New(comparesInSQL{open(t, db, nil), db}, keys, nil)
	require.NoError(t, err)
	require.NoError(t, faulty.ClosePerson(t.Context(), "acme", "anna"))
	exec(t, db, `UPDATE crmguard_session_persons SET epoch = 'x'`)
	require.ErrorContains(t, faulty.ClosePerson(t.Context(), "acme", "anna"), "keeps changing")
	require.NoError(t, m.ClosePerson(t.Context(), "acme", "anna"))
}

// All columns at once, many at a time: what is planted does not keep genuine
// changes from happening one after the other.
func TestManyRepairAtOnce(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		m := manager(t, db, crmguardtest.NewKeys())
		exec(t, db, `UPDATE crmguard_session_persons SET epoch = 1, mac = substr(mac, 2)`)
		if strings.HasSuffix(t.Name(), "sqlite") {
			exec(t, db, `UPDATE crmguard_session_persons SET epoch = 'x', mac = 7, closed = 1.5`)
		}
		racetest.Run(t, func(int) (any, error) {
			if err := m.ClosePerson(t.Context(), "acme", "anna"); err != nil {
				return nil, err
			}
			return nil, m.OpenPerson(t.Context(), "acme", "anna")
		})
		state, err := m.State(t.Context(), "acme", "anna")
		require.NoError(t, err)
		require.False(t, state.Closed, "the last one opened")
	})
}

// The tables hold nothing with which somebody could sign in: neither the token's
// secret in any spelling, nor its digest, which would let anybody who has it look
// for the secret.
func TestTablesHoldNoToken(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		m := manager(t, db, crmguardtest.NewKeys())
		token, err := m.Start(t.Context(), anna)
		require.NoError(t, err)
		id, secret := token[len("crmguard_s1_"):][:20], token[len("crmguard_s1_"):][20:]
		raw, err := base64.RawURLEncoding.DecodeString(secret)
		require.NoError(t, err)
		digest := sha256.Sum256(raw)
		holds := func(want string) bool { return strings.Contains(dump(t, db), want) }
		require.True(t, holds(id), "the dump sees what is there")
		require.False(t, holds(secret))
		require.False(t, holds(string(raw)))
		require.False(t, holds(string(digest[:])))
		_, err = m.Authenticate(t.Context(), "crmguard_s1_"+id)
		requireDenied(t, err, "an id is no token")

		// The planted fault: a store that keeps tokens would be seen.
		exec(t, db, `UPDATE crmguard_sessions SET verifier = $1`, raw)
		require.True(t, holds(string(raw)))
	})
}

// dump is every value of every row.
func dump(t *testing.T, db *sql.DB) string {
	t.Helper()
	var all strings.Builder
	for _, table := range []string{"crmguard_sessions", "crmguard_session_persons"} {
		rows, err := db.QueryContext(t.Context(), `SELECT * FROM `+table)
		require.NoError(t, err)
		names, err := rows.Columns()
		require.NoError(t, err)
		for rows.Next() {
			values := make([]sql.NullString, len(names))
			targets := make([]any, len(names))
			for i := range values {
				targets[i] = &values[i]
			}
			require.NoError(t, rows.Scan(targets...))
			for _, v := range values {
				all.WriteString(v.String + "\n")
			}
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
	}
	return all.String()
}

// Another key, as after a theft of the database alone, accepts nothing.
func TestAnotherKey(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		m := manager(t, db, crmguardtest.NewKeys())
		token, err := m.Start(t.Context(), anna)
		require.NoError(t, err)
		thief, err := session.New(open(t, db, nil), crmguardtest.NewKeys(), nil)
		require.NoError(t, err)
		_, err = thief.Authenticate(t.Context(), token)
		requireDenied(t, err, "made with another key")
		require.ErrorIs(t, thief.OpenPerson(t.Context(), "acme", "anna"), session.ErrState)
	})
}

func TestTwoStoresInOneDatabase(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		first := open(t, db, nil)
		second := open(t, db, &sessionsql.Options{TablePrefix: "my_"})
		open(t, db, nil) // migrated already
		p := session.Person{Tenant: "acme", ID: "anna", Epoch: 1, MAC: session.MAC("x")}
		_, changed, err := first.Change(t.Context(), session.Person{Tenant: "acme", ID: "anna"}, p)
		require.NoError(t, err)
		require.True(t, changed)
		got, _, err := second.Person(t.Context(), "acme", "anna")
		require.NoError(t, err)
		require.Zero(t, got.Epoch)
	})
}

func TestClosedDatabase(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		m := manager(t, db, crmguardtest.NewKeys())
		token, err := m.Start(t.Context(), anna)
		require.NoError(t, err)
		exec(t, db, `DROP TABLE crmguard_session_persons`)
		_, err = m.Authenticate(t.Context(), token)
		require.Error(t, err)
		_, denied := errors.AsType[*crmguard.Denial](err)
		require.False(t, denied, "a broken database decides nothing: %v", err)
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	for name, db := range map[string]func(testing.TB) *sql.DB{"sqlite": sqldbtest.SQLite, "postgres": sqldbtest.Postgres} {
		b.Run(name, func(b *testing.B) {
			store, err := sessionsql.New(b.Context(), db(b), nil)
			require.NoError(b, err)
			m, err := session.New(store, crmguardtest.NewKeys(), nil)
			require.NoError(b, err)
			require.NoError(b, m.OpenPerson(b.Context(), "acme", "anna"))
			token, err := m.Start(b.Context(), anna)
			require.NoError(b, err)
			for b.Loop() {
				if _, err := m.Authenticate(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
