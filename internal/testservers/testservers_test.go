package testservers

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
)

// startPostgres returns nil where PostgreSQL is not installed, having seen that
// StartPostgres says so.
func startPostgres(t *testing.T) *Postgres {
	t.Helper()
	// The server's user must reach the folder, which t.TempDir would not allow.
	dir, err := os.MkdirTemp("", "testservers-")
	require.NoError(t, err)
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left, "the server's folder is left behind")
		require.NoError(t, os.Remove(dir))
	})
	require.NoError(t, os.Chmod(dir, 0o711))
	t.Setenv("TMPDIR", dir)
	_, notFound := FindPostgres()
	p, err := StartPostgres(t.Context())
	if notFound != nil {
		require.ErrorIs(t, err, ErrNotInstalled)
		return nil
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
	return p
}

func query(t *testing.T, dsn string) error {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var one int
	return db.QueryRowContext(t.Context(), `SELECT 1`).Scan(&one)
}

func TestPostgres(t *testing.T) {
	p := startPostgres(t)
	if p == nil {
		return
	}
	require.NoError(t, query(t, p.URL()))

	info, err := os.Stat(p.dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	require.NoFileExists(t, filepath.Join(p.dir, "password"))

	u, err := url.Parse(p.URL())
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1", u.Hostname())
	for name, credentials := range map[string]*url.Userinfo{
		"no password":    url.User(user),
		"wrong password": url.UserPassword(user, "guess"),
		"another user":   url.UserPassword("postgres", "guess"),
	} {
		other := *u
		other.User = credentials
		require.Error(t, query(t, other.String()), name)
	}

	require.NoError(t, p.Stop())
	require.NoError(t, p.Stop())
	require.NoDirExists(t, p.dir)
	require.NotNil(t, p.cmd.ProcessState, "the process has not ended")
	require.Error(t, query(t, p.URL()))
}

func TestTwoServersAtOnce(t *testing.T) {
	first, second := startPostgres(t), startPostgres(t)
	if first == nil {
		return
	}
	require.NotEqual(t, first.URL(), second.URL())
	require.NoError(t, first.Stop())
	require.NoError(t, query(t, second.URL()))
}

// programs writes shell scripts in place of PostgreSQL's programs.
func programs(t *testing.T, initdb, postgres string) (bin, tmp string) {
	t.Helper()
	bin, err := os.MkdirTemp("", "testservers-bin-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(bin)) })
	tmp = filepath.Join(bin, "tmp")
	require.NoError(t, os.Mkdir(tmp, 0o700))
	require.NoError(t, os.Chmod(bin, 0o755))
	require.NoError(t, os.Chmod(tmp, 0o711))
	for name, script := range map[string]string{"initdb": initdb, "postgres": postgres} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o600))
		require.NoError(t, os.Chmod(filepath.Join(bin, name), 0o755))
	}
	t.Setenv("TMPDIR", tmp)
	return bin, tmp
}

func TestFailedStartLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct{ initdb, postgres, want string }{
		"initdb fails":        {"echo no space >&2; exit 1", "exit 0", "no space"},
		"server ends":         {"mkdir data", "echo port taken >&2; exit 1", "port taken"},
		"status not readable": {"mkdir -p data/postmaster.pid", "exec sleep 60", "postmaster.pid"},
	} {
		t.Run(name, func(t *testing.T) {
			bin, tmp := programs(t, c.initdb, c.postgres)
			p, err := start(t.Context(), bin, quick)
			require.ErrorContains(t, err, c.want)
			require.Nil(t, p)
			left, err := os.ReadDir(tmp)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestCancelledStartEndsTheServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	bin, tmp := programs(t, "mkdir data", `touch "$2/started"; exec sleep 60`)
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if started, err := filepath.Glob(filepath.Join(tmp, "*", "data", "started")); err != nil || len(started) > 0 {
				return
			}
		}
	}()
	_, err := start(ctx, bin, quick)
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left)
}
