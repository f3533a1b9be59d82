package encryptsql_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func TestOpenSQLiteKeepsOthersOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "keys.db")
	store, err := encryptsql.OpenSQLite(t.Context(), path, true)
	require.NoError(t, err)
	require.NoError(t, store.Close())
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if info, err := os.Stat(name); err == nil {
			require.Zero(t, info.Mode().Perm()&0o077, name)
		}
	}
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = encryptsql.OpenSQLite(t.Context(), path, true)
	require.ErrorContains(t, err, "chmod 600")

	for _, odd := range []string{"what?.db", "file:keys.db", ":memory:", "a#b.db"} {
		_, err := encryptsql.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), odd), true)
		require.Error(t, err, odd)
	}
}

// A volume that is not mounted, or an empty file in its place, must not become a new key
// store.
func TestOpenSQLiteCreatesOnlyWhenTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "keys.db")
	_, err := encryptsql.OpenSQLite(t.Context(), path, false)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoDirExists(t, filepath.Dir(path), "nothing was made")

	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = encryptsql.OpenSQLite(t.Context(), path, false)
	require.ErrorContains(t, err, "is no key store")

	store, err := encryptsql.OpenSQLite(t.Context(), path, true)
	require.NoError(t, err)
	require.NoError(t, store.Close())
	store, err = encryptsql.OpenSQLite(t.Context(), path, false)
	require.NoError(t, err)
	require.NoError(t, store.Close())
}

// Keys are added by transactions that others wait for: one that began by reading would be
// refused, and not wait, as often as somebody else writes.
func TestInsertTakesItsTurn(t *testing.T) {
	db := sqldbtest.SQLite(t)
	other, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer other.Close() //nolint:errcheck // goes back to the pool
	_, err = other.ExecContext(t.Context(), `PRAGMA busy_timeout = 0`)
	require.NoError(t, err)
	watching, tried := false, 0
	store, err := encryptsql.New(t.Context(), sqldbtest.Before(t, db, func(query string) {
		if !watching || !strings.HasPrefix(query, `INSERT INTO crmguard_keys (`) {
			return
		}
		tried++
		_, err := other.ExecContext(t.Context(), `UPDATE crmguard_keys_revision SET revision = revision`)
		require.ErrorContains(t, err, "locked", "somebody else could write in between")
	}), nil)
	require.NoError(t, err)
	keyset := encrypt.Record{Scope: encrypt.Scope{Purpose: encrypt.TenantKeyset, Tenant: "acme"}, Version: 1, State: encrypt.Active, Wrapped: []byte("keyset")}
	_, err = store.Insert(t.Context(), []encrypt.Record{keyset})
	require.NoError(t, err)
	watching = true
	stored, err := store.Insert(t.Context(), []encrypt.Record{
		{Scope: encrypt.ClientScope("acme", "c1"), Version: 1, State: encrypt.Active, Wrapped: []byte("key"), Under: keyset.Wrapped},
		{Scope: encrypt.ClientScope("acme", "c2"), Version: 1, State: encrypt.Active, Wrapped: []byte("key"), Under: keyset.Wrapped},
	})
	require.NoError(t, err)
	require.Len(t, stored, 2)
	require.Equal(t, 2, tried)
}
