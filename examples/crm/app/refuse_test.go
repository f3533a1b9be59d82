package app

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// refused opens an installation that must not open, and checks that its database
// is as it was.
func (in *installation) refused(cfg Config, text string) {
	in.t.Helper()
	before := snapshot(in.t, in.cfg)
	a, err := New(in.t.Context(), cfg)
	if err == nil {
		require.NoError(in.t, a.Close())
	}
	require.ErrorContains(in.t, err, text)
	require.True(in.t, before == snapshot(in.t, in.cfg), "nothing was changed")
}

// TestRefusals: what is wrong with the folders is said in words, and nothing is
// changed; put right, everything is there again.
func TestRefusals(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(6))
		_, err := New(t.Context(), in.cfg)
		require.ErrorContains(t, err, "is in use by another process") // which writes, so the database is compared later
		in.stop()

		t.Run("another installation's keys", func(t *testing.T) {
			other := founded(t, on, nil)
			other.stop()
			cfg := in.cfg
			cfg.Keys = other.cfg.Keys
			in.refused(cfg, "belong to another installation")
		})
		t.Run("another key file", func(t *testing.T) {
			other := founded(t, on, nil)
			other.stop()
			mine, theirs := filepath.Join(in.cfg.Keys, "kek.json"), filepath.Join(other.cfg.Keys, "kek.json")
			good, err := os.ReadFile(mine)
			require.NoError(t, err)
			wrong, err := os.ReadFile(theirs)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(mine, wrong, 0o600))
			in.refused(in.cfg, "is not the one that made keys.db")
			require.NoError(t, os.WriteFile(mine, good, 0o600))
		})
		for _, name := range []string{"kek.json", "keys.db", "journal.key"} {
			t.Run("without "+name, func(t *testing.T) {
				path := filepath.Join(in.cfg.Keys, name)
				require.NoError(t, os.Rename(path, path+".aside"))
				in.refused(in.cfg, name+" is missing")
				require.NoFileExists(t, path)
				require.NoError(t, os.Rename(path+".aside", path))
			})
		}
		t.Run("keys that others can read", func(t *testing.T) {
			require.NoError(t, os.Chmod(in.cfg.Keys, 0o755)) //nolint:gosec // that is the point
			in.refused(in.cfg, "can be read by others")
			require.NoError(t, os.Chmod(in.cfg.Keys, 0o700)) //nolint:gosec // a folder
		})
		t.Run("unknown words in the policy", func(t *testing.T) {
			alter(t, in.cfg, `INSERT INTO casbin_rule (ptype, v0, v1, v2, v3, v4, v5) VALUES ('p', 'wizard', 'default', 'contacts', 'view', 'all', 'allow')`)
			in.refused(in.cfg, "wizard")
			adopted := in.cfg
			adopted.AdoptRights = "a test"
			_, err = New(t.Context(), adopted)
			require.ErrorContains(t, err, "casbin_rule cannot be used")
			alter(t, in.cfg, `DELETE FROM casbin_rule WHERE v0 = 'wizard'`)
			in.refused(in.cfg, "-adopt-rights")
			adopted.AdoptRights = "the wizard is gone"
			app, err := New(t.Context(), adopted)
			require.NoError(t, err)
			require.NoError(t, app.Close())
		})

		in.start()
		_, page := in.signedIn("owner").get("/contacts")
		has(t, page, phoneOf(5), "nothing was lost")
	})
}

// TestFileRefusals: likewise of the SQLite file.
func TestFileRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := New(t.Context(), Config{Data: dir, Keys: filepath.Join(dir, "keys"), Loopback: true})
	require.Error(t, err, "keys inside the data folder")

	in := newInstallation(t, onSQLite, sample(6))
	in.stop()
	path := filepath.Join(in.cfg.Data, "crm.db")
	good, err := os.ReadFile(path) //nolint:gosec // the test's own
	require.NoError(t, err)
	for name, damage := range map[string]func(b []byte) []byte{
		"head":  func(b []byte) []byte { copy(b, "not a database"); return b },
		"cut":   func(b []byte) []byte { return b[:len(b)/2] },
		"pages": func(b []byte) []byte { clear(b[3*4096 : 12*4096]); return b },
	} {
		require.NoError(t, os.WriteFile(path, damage(append([]byte(nil), good...)), 0o600), name)
		in.refused(in.cfg, "is damaged")
	}
	require.NoError(t, os.WriteFile(path, good, 0o600))
	in.start()
	_, page := in.signedIn("owner").get("/contacts")
	has(t, page, phoneOf(5), "nothing was lost")
}

// TestBeyondLoopback: demo accounts and their sessions stop at this machine.
func TestBeyondLoopback(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		in.stop()
		public := in.cfg
		public.Loopback = false
		in.refused(public, ErrNoOwnAccounts.Error())

		in.start()
		secret, err := in.app.AddAccount(t.Context(), NewAccount{Login: "anna", Role: "owner"})
		require.NoError(t, err)
		for _, bad := range []NewAccount{
			{Login: "anna", Role: "owner"}, {Login: "boris", Role: "wizard"}, {Login: "Boris", Role: "seller"},
			{Login: "boris", Role: "seller", Unit: "mars"}, {Login: "boris", Role: "seller", Password: "boris12345"},
		} {
			_, err := in.app.AddAccount(t.Context(), bad)
			require.Error(t, err, bad.Login)
		}
		status, _ := in.browser().post("/sign-in", "login", "anna", "password", secret)
		require.Equal(t, http.StatusOK, status)
		in.signedIn("owner")
		in.stop()

		a, err := New(t.Context(), public)
		require.NoError(t, err)
		defer func() { require.NoError(t, a.Close()) }()
		_, err = a.people.Account(t.Context(), "owner")
		require.Error(t, err, "demo accounts are closed")
		_, err = a.people.Account(t.Context(), "anna")
		require.NoError(t, err)
		open, err := a.sessions.List(t.Context(), tenant, "owner")
		require.NoError(t, err)
		require.Empty(t, open, "and their sessions of before have ended")
	})
}

// TestControl goes through the socket as the command line does.
func TestControl(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- in.app.Serve(ctx, listener, nil) }()
		require.Eventually(t, func() bool { // the file is there before anybody listens
			err := control(t.Context(), in.cfg.Keys, "/nothing", nil, func(controlLine) {})
			return !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED)
		}, 5*time.Second, 10*time.Millisecond)

		info, err := os.Stat(socketPath(in.cfg.Keys))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

		steps := 0
		report, err := SendImport(t.Context(), in.cfg.Keys, append(sample(700), "Bad,,,,,,nobody,,\n"...), nil, func(ImportReport) { steps++ })
		require.NoError(t, err)
		require.Equal(t, 700, report.Added)
		require.Equal(t, 701, report.Rows)
		require.Len(t, report.Bad, 1)
		require.Positive(t, steps)
		_, err = SendImport(t.Context(), in.cfg.Keys, []byte("a,b\n"), nil, nil)
		require.ErrorContains(t, err, "header")

		secret, err := SendAccount(t.Context(), in.cfg.Keys, NewAccount{Login: "anna", Role: "seller", Unit: "sales"})
		require.NoError(t, err)
		status, _ := in.browser().post("/sign-in", "login", "anna", "password", secret)
		require.Equal(t, http.StatusOK, status)
		_, err = SendAccount(t.Context(), in.cfg.Keys, NewAccount{Login: "anna", Role: "seller"})
		require.ErrorContains(t, err, "taken")

		stop()
		require.NoError(t, <-served)
		_, err = SendAccount(t.Context(), in.cfg.Keys, NewAccount{Login: "late", Role: "seller"})
		require.ErrorContains(t, err, "no CRM is running")
	})
}

// TestSealedPasswordsStayWithTheirAccount: whoever can write the database gives
// nobody the password of somebody else by copying a row.
func TestSealedPasswordsStayWithTheirAccount(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		secret, err := in.app.AddAccount(t.Context(), NewAccount{Login: "mallory", Role: "seller"})
		require.NoError(t, err)
		_, err = in.app.db.ExecContext(t.Context(), `UPDATE accounts SET password = (SELECT password FROM accounts WHERE id = 'mallory') WHERE id = 'owner'`)
		require.NoError(t, err)
		status, _ := in.browser().post("/sign-in", "login", "owner", "password", secret)
		require.NotEqual(t, http.StatusOK, status)

		// A contact copied into another row does not open there either.
		_, err = in.app.Import(crmguard.System(t.Context(), tenant, "import"), sample(2), nil, nil)
		require.NoError(t, err)
		_, err = in.app.db.ExecContext(t.Context(), `UPDATE contacts SET phone = (SELECT phone FROM contacts WHERE seq = 2) WHERE seq = 1`)
		require.NoError(t, err)
		seller := in.signedIn("seller1")
		_, page := seller.get("/contacts")
		has(t, page, "Damaged record")
		id := in.idOf(0)
		status, page = seller.post("/contacts/"+id+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusInternalServerError, status)
		has(t, page, "tell the administrator")
		hasNot(t, page, "555-00-01")
		_, page = seller.get("/contacts/" + id)
		has(t, page, "does not open")
		status, page = seller.post("/contacts/"+id+"/edit", "version", "1", "name", "Over it", "owner", "seller1")
		require.Equal(t, http.StatusInternalServerError, status, "what does not open is not overwritten")
		has(t, page, "tell the administrator")
	})
}
