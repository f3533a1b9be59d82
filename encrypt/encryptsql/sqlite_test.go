package encryptsql_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt/encryptsql"
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
