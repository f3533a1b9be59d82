package sessionsql_test

import (
	"database/sql"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
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

// SQLite keeps text in columns of integers.
func TestValuesOfAnotherType(t *testing.T) {
	db := sqldbtest.SQLite(t)
	m := manager(t, db, crmguardtest.NewKeys())
	for _, column := range []string{"kind", "assurance", "authenticated_at", "started_at", "used_at", "end_at", "epoch", "person", "verifier", "scopes"} {
		token, err := m.Start(t.Context(), anna)
		require.NoError(t, err)
		for _, value := range []string{`'x'`, `x'00ff'`, `1.5`} {
			exec(t, db, `UPDATE crmguard_sessions SET `+column+` = `+value)
			_, err = m.Authenticate(t.Context(), token)
			requireDenied(t, err, column+" = "+value)
		}
		require.NoError(t, m.ClosePerson(t.Context(), "acme", "anna"), column)
		require.NoError(t, m.OpenPerson(t.Context(), "acme", "anna"), column)
		exec(t, db, `DELETE FROM crmguard_sessions`)
	}
	exec(t, db, `UPDATE crmguard_session_persons SET closed = 'x'`)
	_, err := m.Start(t.Context(), anna)
	requireDenied(t, err, "a state that is neither open nor closed")
}

// The tables hold nothing with which somebody could sign in.
func TestTablesHoldNoToken(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		m := manager(t, db, crmguardtest.NewKeys())
		token, err := m.Start(t.Context(), anna)
		require.NoError(t, err)
		var id string
		var verifier []byte
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT id, verifier FROM crmguard_sessions`).Scan(&id, &verifier))
		require.Contains(t, token, id)
		require.NotContains(t, token, string(verifier))
		require.Len(t, verifier, 32)
		_, err = m.Authenticate(t.Context(), "crmguard_s1_"+id)
		requireDenied(t, err, "an id is no token")
	})
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
