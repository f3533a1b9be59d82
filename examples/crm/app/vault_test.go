package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestKeysAreNotShared: keys serve one CRM, which a second data folder neither
// adopts nor disturbs, whether that CRM runs or not.
func TestKeysAreNotShared(t *testing.T) {
	in := newInstallation(t, sample(3))
	second := in.cfg
	second.Data = in.cfg.Data + "-second"
	socket, err := in.app.listenControl()
	require.NoError(t, err)
	_, err = New(t.Context(), second)
	require.ErrorContains(t, err, "the keys folder "+in.cfg.Keys+" is in use by another process")
	require.FileExists(t, socketPath(in.cfg.Keys), "the running CRM keeps its socket")
	require.NoError(t, socket.Close())
	in.stop()

	keys, err := os.ReadFile(filepath.Join(in.cfg.Keys, "keys.db"))
	require.NoError(t, err)
	same := func(why string) {
		t.Helper()
		after, err := os.ReadFile(filepath.Join(in.cfg.Keys, "keys.db"))
		require.NoError(t, err)
		require.True(t, string(keys) == string(after), why)
	}
	for range 2 { // the second time the folder is not new any more
		_, err = New(t.Context(), second)
		require.ErrorContains(t, err, in.cfg.Keys)
		require.ErrorContains(t, err, second.Data)
		require.ErrorContains(t, err, "is new or was emptied")
		same("another data folder")
	}

	path := filepath.Join(in.cfg.Data, "crm.db")
	good, err := os.ReadFile(path) //nolint:gosec // the test's own
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = New(t.Context(), in.cfg)
	require.ErrorContains(t, err, "is new or was emptied")
	same("an emptied database")
	for _, left := range []string{"-wal", "-shm"} {
		require.NoError(t, os.RemoveAll(path+left))
	}
	require.NoError(t, os.WriteFile(path, good, 0o600))

	db, err := openStore(t.Context(), in.cfg)
	require.NoError(t, err)
	id, err := db.setting(t.Context(), "installation")
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `DELETE FROM settings WHERE name = 'installation'`)
	require.NoError(t, err)
	require.NoError(t, db.close())
	in.refused(in.cfg, "is new or was emptied")
	require.NoError(t, os.WriteFile(path, good, 0o600))

	owner := filepath.Join(in.cfg.Keys, ownerFile)
	written, err := os.ReadFile(owner) //nolint:gosec // the test's own
	require.NoError(t, err)
	require.Equal(t, id, written)
	require.NoError(t, os.WriteFile(owner, []byte("SOMEBODYELSE"), 0o600))
	in.refused(in.cfg, "belong to another installation")
	require.NoError(t, os.WriteFile(owner, written, 0o600))
	in.start()
	_, page := in.signedIn("owner").get("/contacts")
	has(t, page, phoneOf(2), "nothing was lost")
}

// TestInterruptedFirstStart stops the first start between the steps in which keys
// and data become one installation; each time the next start goes on.
func TestInterruptedFirstStart(t *testing.T) {
	for name, step := range map[string]struct{ fail, repair func(*testing.T, Config) }{
		"before the data names the installation": {
			func(t *testing.T, cfg Config) {
				alter(t, cfg, `CREATE TRIGGER full BEFORE INSERT ON settings BEGIN SELECT RAISE(ABORT, 'disk full'); END`)
			},
			func(t *testing.T, cfg Config) { alter(t, cfg, `DROP TRIGGER full`) },
		},
		"before the keys name it": {
			func(t *testing.T, cfg Config) {
				require.NoError(t, os.MkdirAll(filepath.Join(cfg.Keys, ownerFile+".new"), 0o700))
			},
			func(t *testing.T, cfg Config) {
				require.NoError(t, os.Remove(filepath.Join(cfg.Keys, ownerFile+".new")))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in := &installation{t: t, cfg: Config{Data: filepath.Join(dir, "data"), Keys: filepath.Join(dir, "keys"), Loopback: true}}
			require.NoError(t, os.MkdirAll(in.cfg.Keys, 0o700))
			step.fail(t, in.cfg)
			_, err := New(t.Context(), in.cfg)
			require.Error(t, err)
			require.FileExists(t, filepath.Join(in.cfg.Keys, "kek.json"))
			require.NoFileExists(t, filepath.Join(in.cfg.Keys, ownerFile))
			step.repair(t, in.cfg)
			in.start()
			require.FileExists(t, filepath.Join(in.cfg.Keys, ownerFile))
			in.signedIn("owner")
		})
	}
}

// alter changes the database of an installation that is not running.
func alter(t *testing.T, cfg Config, query string) {
	t.Helper()
	db, err := openStore(t.Context(), cfg)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), query)
	require.NoError(t, err)
	require.NoError(t, db.close())
}
