package app

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// server returns a connection to the server, past the CRM, in the schema of a URL.
func server(t *testing.T, url PostgresURL) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", string(url))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// ours finds the connections of the CRM by the lock that each of them holds.
const ours = `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())`

// lose ends all connections of the CRM, as a restart of the server does.
func lose(t *testing.T, db *sql.DB) {
	t.Helper()
	var n int
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT COUNT(pg_terminate_backend(pid, 10000)) FROM (`+ours+`) AS connections`, lockClass).Scan(&n))
	require.Positive(t, n)
}

// TestOneProcess: while a CRM runs on a database no second one opens it, with
// whatever keys; the next one opens it at once when the first has ended.
func TestOneProcess(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onPostgres, nil)
	second := unstarted(t, onPostgres).cfg
	second.DB = in.cfg.DB
	in.refused(second, "is in use by another process")
	in.stop()
	for range 5 {
		db, err := openStore(t.Context(), in.cfg)
		require.NoError(t, err)
		require.NoError(t, db.PingContext(t.Context()))
		require.NoError(t, db.close())
	}

	// The planted fault: a connection without the lock keeps nobody out.
	plain, err := server(t, in.cfg.DB).Conn(t.Context())
	require.NoError(t, err)
	defer plain.Close() //nolint:errcheck // goes back to the pool
	db, err := openStore(t.Context(), in.cfg)
	require.NoError(t, err)
	require.NoError(t, db.close())
}

// TestServerGone: a CRM that loses its connections goes on when the server is
// back, unless another process has opened the database meanwhile: then what it
// remembers is out of date, and it reads and writes nothing any more.
func TestServerGone(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onPostgres, sample(3))
	direct := server(t, in.cfg.DB)
	owner := in.signedIn("owner")
	lose(t, direct)
	require.Eventually(t, func() bool { // each connection is found dead once
		status, page := owner.get("/contacts")
		return status == http.StatusOK && strings.Contains(page, phoneOf(2))
	}, 10*time.Second, 100*time.Millisecond)

	lose(t, direct)
	other, err := openStore(t.Context(), in.cfg)
	require.NoError(t, err)
	refused := func() {
		t.Helper()
		require.Eventually(t, func() bool {
			_, err := in.app.db.ExecContext(t.Context(), `DELETE FROM contacts`)
			return errors.Is(err, errTakenOver)
		}, 10*time.Second, 100*time.Millisecond)
		status, page := owner.get("/contacts")
		require.GreaterOrEqual(t, status, 500)
		hasNot(t, page, "Quillfeather")
	}
	refused()
	require.NoError(t, other.close())
	refused() // for good
	var left int
	require.NoError(t, direct.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM contacts`).Scan(&left))
	require.Equal(t, 3, left)
	require.Eventually(t, func() bool { return connections(t, direct) == 0 }, 10*time.Second, 10*time.Millisecond, "what was refused is closed; the server hears of it a moment later")
	_ = in.app.Close() // what it had to write is lost, as it would be in a crash
	in.web.Close()
	in.app = nil
	in.start()
	in.signedIn("owner")
}

func connections(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM (`+ours+`) AS connections`, lockClass).Scan(&n))
	return n
}

// TestRefusedDatabases: what is wrong with a database is said in words, without
// its password, and nothing is made in it.
func TestRefusedDatabases(t *testing.T) {
	t.Parallel()
	const password = "Zq7xKsecret"
	good := sqldbtest.PostgresURL(t)
	admin := server(t, PostgresURL(good))
	exec := func(query string) {
		t.Helper()
		_, err := admin.ExecContext(t.Context(), query)
		require.NoError(t, err)
	}
	name := "crm_test_" + strings.ToLower(rand.Text())
	exec(`CREATE ROLE ` + name + ` PASSWORD '` + password + `' LOGIN`)
	exec(`CREATE ROLE ` + name + `_out PASSWORD '` + password + `' NOLOGIN`)
	exec(`CREATE DATABASE ` + name + ` ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'`)
	t.Cleanup(func() {
		for _, drop := range []string{`DATABASE ` + name, `OWNED BY ` + name, `ROLE ` + name, `ROLE ` + name + `_out`} {
			_, err := admin.Exec(`DROP ` + drop)
			require.NoError(t, err)
		}
	})
	with := func(change func(u *url.URL, q url.Values)) PostgresURL {
		u, err := url.Parse(good)
		require.NoError(t, err)
		q := u.Query()
		change(u, q)
		u.RawQuery = q.Encode()
		return PostgresURL(u.String())
	}
	as := func(user string) func(u *url.URL, q url.Values) {
		return func(u *url.URL, _ url.Values) { u.User = url.UserPassword(user, password) }
	}
	exec(`GRANT USAGE ON SCHEMA ` + schemaOf(PostgresURL(good)) + ` TO ` + name)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := free.Addr().String()
	require.NoError(t, free.Close())

	for what, test := range map[string]struct {
		url  PostgresURL
		says string
	}{
		"a user who may not sign in": {with(as(name + "_out")), "check the user and the password"},
		"no database": {with(func(u *url.URL, _ url.Values) {
			u.Path = "/" + name + "_missing"
		}), "there is no database " + name + "_missing"},
		"no right to make tables": {with(as(name)), "GRANT CREATE ON SCHEMA"},
		"no schema":               {with(func(_ *url.URL, q url.Values) { q.Set("search_path", name) }), "no schema"},
		"not UTF-8": {with(func(u *url.URL, q url.Values) {
			u.Path = "/" + name
			q.Del("search_path")
		}), "SQL_ASCII"},
		"nobody answers": {with(func(u *url.URL, _ url.Values) {
			u.Host, u.User = port, url.UserPassword(name, password)
		}), "start PostgreSQL"},
		"no URL": {PostgresURL("host=127.0.0.1 password=" + password), "postgres://user:password@host/name"},
	} {
		t.Run(what, func(t *testing.T) {
			in := unstarted(t, onSQLite)
			in.cfg.DB = test.url
			_, err := New(t.Context(), in.cfg)
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), password)
			require.NotContains(t, fmt.Sprintf("%+v", err), password)
			require.NoDirExists(t, in.cfg.Keys)
			require.NoDirExists(t, in.cfg.Data)
		})
	}
	var made int
	require.NoError(t, admin.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace`).Scan(&made))
	require.Zero(t, made)

	t.Run("another program's tables", func(t *testing.T) {
		for _, theirs := range []string{`TABLE contacts (seq BIGINT, phone TEXT)`, `VIEW settings AS SELECT 1`, `SEQUENCE orders`} {
			in := unstarted(t, onPostgres)
			db := server(t, in.cfg.DB)
			_, err := db.ExecContext(t.Context(), `CREATE `+theirs)
			require.NoError(t, err)
			_, err = New(t.Context(), in.cfg)
			require.ErrorContains(t, err, "holds tables of another program, such as "+strings.Fields(theirs)[1])
			require.Len(t, column(t, db, `SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace`), 1)
		}
	})
	t.Run("a wrong password", func(t *testing.T) {
		var host string
		require.NoError(t, admin.QueryRowContext(t.Context(), `SELECT COALESCE(MIN(auth_method) FILTER (WHERE type = 'host'), '') FROM pg_hba_file_rules`).Scan(&host))
		if host == "trust" {
			return // this server asks nobody for one
		}
		in := unstarted(t, onSQLite)
		in.cfg.DB = with(func(u *url.URL, _ url.Values) { u.User = url.UserPassword(name, password+"x") })
		_, err := New(t.Context(), in.cfg)
		require.ErrorContains(t, err, "check the user and the password")
		require.NotContains(t, err.Error(), password)
	})
}
