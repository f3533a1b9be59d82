package app

import (
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestKeysAreNotShared: keys serve one CRM, which a second database neither
// adopts nor disturbs, whether that CRM runs or not.
func TestKeysAreNotShared(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		second := unstarted(t, on).cfg
		second.Keys = in.cfg.Keys
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
		for range 2 { // the second time the database is not new any more
			_, err = New(t.Context(), second)
			require.ErrorContains(t, err, in.cfg.Keys)
			require.ErrorContains(t, err, nameOf(second))
			require.ErrorContains(t, err, "is new or was emptied")
			same("another database")
		}

		restore := emptyDatabase(t, in.cfg)
		_, err = New(t.Context(), in.cfg)
		require.ErrorContains(t, err, "is new or was emptied")
		same("an emptied database")
		restore()

		db, err := openStore(t.Context(), in.cfg)
		require.NoError(t, err)
		id, err := db.setting(t.Context(), "installation")
		require.NoError(t, err)
		_, err = db.ExecContext(t.Context(), `DELETE FROM settings WHERE name = 'installation'`)
		require.NoError(t, err)
		require.NoError(t, db.close())
		in.refused(in.cfg, "is new or was emptied")
		alter(t, in.cfg, `INSERT INTO settings (name, value) VALUES ('installation', $1)`, id)

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
	})
}

// TestInterruptedFirstStart stops the first start between the steps in which keys
// and data become one installation; each time the next start goes on.
func TestInterruptedFirstStart(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		full, free := on.diskFull("settings", "")
		for name, step := range map[string]struct{ fail, repair func(*testing.T, Config) }{
			"before the data names the installation": {
				func(t *testing.T, cfg Config) { alter(t, cfg, full) },
				func(t *testing.T, cfg Config) { alter(t, cfg, free) },
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
				in := unstarted(t, on)
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
	})
}

// nameOf is what messages call the database.
func nameOf(cfg Config) string {
	if cfg.DB == "" {
		return cfg.Data
	}
	return "schema " + schemaOf(cfg.DB)
}

// schemaOf is the schema that sqldbtest has made for a test.
func schemaOf(u PostgresURL) string {
	parsed, err := url.Parse(string(u))
	if err != nil {
		return ""
	}
	return parsed.Query().Get("search_path")
}

// emptyDatabase takes all tables away until restore is called.
func emptyDatabase(t *testing.T, cfg Config) (restore func()) {
	t.Helper()
	if cfg.DB == "" {
		path := filepath.Join(cfg.Data, "crm.db")
		good, err := os.ReadFile(path) //nolint:gosec // the test's own
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		return func() {
			for _, left := range []string{"-wal", "-shm"} {
				require.NoError(t, os.RemoveAll(path+left))
			}
			require.NoError(t, os.WriteFile(path, good, 0o600))
		}
	}
	schema := schemaOf(cfg.DB)
	db, err := sql.Open("pgx", string(cfg.DB))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	swap := func(statements string) {
		_, err := db.ExecContext(t.Context(), strings.ReplaceAll(statements, "$", schema))
		require.NoError(t, err)
	}
	swap(`ALTER SCHEMA $ RENAME TO $_aside; CREATE SCHEMA $`)
	return func() { swap(`DROP SCHEMA $ CASCADE; ALTER SCHEMA $_aside RENAME TO $`) }
}
