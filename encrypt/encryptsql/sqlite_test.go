package encryptsql_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

func TestOpenSQLiteKeepsOthersOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "keys.db")
	store, err := encryptsql.OpenSQLite(t.Context(), path)
	require.NoError(t, err)
	require.NoError(t, store.Close())
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if info, err := os.Stat(name); err == nil {
			require.Zero(t, info.Mode().Perm()&0o077, name)
		}
	}
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = encryptsql.OpenSQLite(t.Context(), path)
	require.ErrorContains(t, err, "chmod 600")

	for _, odd := range []string{"what?.db", "file:keys.db", ":memory:", "a#b.db"} {
		_, err := encryptsql.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), odd))
		require.Error(t, err, odd)
	}
}
