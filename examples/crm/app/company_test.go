package app

import (
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFoundedOnce: whoever can write the database brings nobody back by having the
// company founded again.
func TestFoundedOnce(t *testing.T) {
	in := newInstallation(t, nil)
	_, page := in.signedIn("owner").get("/journal?record=seller5")
	has(t, page, "role:seller", "the founding is in the journal")
	in.signedIn("admin").post("/staff/seller5/close")
	in.stop()
	db, err := openStore(t.Context(), in.cfg)
	require.NoError(t, err)
	mark, err := db.setting(t.Context(), stageSetting)
	require.NoError(t, err)
	require.Equal(t, stageDone, string(mark))
	mac, err := db.setting(t.Context(), stageSetting+"-mac")
	require.NoError(t, err)
	require.NoError(t, db.close())

	for name, change := range map[string]string{
		"gone":   `DELETE FROM settings WHERE name = 'first-start'`,
		"forged": `UPDATE settings SET value = CAST('company' AS BLOB) WHERE name = 'first-start'`,
		"proof":  `DELETE FROM settings WHERE name = 'first-start-mac'`,
	} {
		alter(t, in.cfg, change)
		in.refused(in.cfg, "nobody was let in")
		db, err := openStore(t.Context(), in.cfg)
		require.NoError(t, err)
		require.NoError(t, db.setProven(t.Context(), stageSetting, mark, mac), name)
		require.NoError(t, db.close())
	}
	in.start()

	// Even founding itself, run again, lets nobody in who was closed, whether the
	// account is there or not.
	again := func() {
		t.Helper()
		require.NoError(t, in.app.vault.prove(t.Context(), in.app.db, stageSetting, []byte(stageCompany)))
		require.NoError(t, in.app.firstStart(t.Context()))
		state, err := in.app.sessions.State(t.Context(), tenant, "seller5")
		require.NoError(t, err)
		require.True(t, state.Closed)
		roles, _, err := in.app.rights.Resolve(t.Context(), tenant, "seller5")
		require.NoError(t, err)
		require.Empty(t, roles)
	}
	again()
	_, err = in.app.db.ExecContext(t.Context(), `DELETE FROM accounts WHERE id = 'seller5'`)
	require.NoError(t, err)
	again()
	in.signedIn("seller1")
}

// TestInterruptedHiring: an account whose making failed half way leaves its login
// free, and no role but the one asked for next.
func TestInterruptedHiring(t *testing.T) {
	in := newInstallation(t, nil)
	for name, trigger := range map[string]string{
		"role":    `CREATE TRIGGER full BEFORE INSERT ON casbin_rule BEGIN SELECT RAISE(ABORT, 'disk full'); END`,
		"state":   `CREATE TRIGGER full BEFORE INSERT ON crmguard_session_persons BEGIN SELECT RAISE(ABORT, 'disk full'); END`,
		"account": `CREATE TRIGGER full BEFORE INSERT ON accounts BEGIN SELECT RAISE(ABORT, 'disk full'); END`,
	} {
		login := "anna-" + name
		_, err := in.app.db.ExecContext(t.Context(), trigger)
		require.NoError(t, err)
		_, err = in.app.AddAccount(t.Context(), NewAccount{Login: login, Role: "owner"})
		require.Error(t, err, name)
		_, err = in.app.db.ExecContext(t.Context(), `DROP TRIGGER full`)
		require.NoError(t, err)
		secret, err := in.app.AddAccount(t.Context(), NewAccount{Login: login, Role: "seller", Unit: "sales"})
		require.NoError(t, err, name)
		roles, _, err := in.app.rights.Resolve(t.Context(), tenant, login)
		require.NoError(t, err)
		require.Equal(t, []string{"seller"}, roles)
		status, _ := in.browser().post("/sign-in", "login", login, "password", secret)
		require.Equal(t, http.StatusOK, status)
	}
}

// TestInterruptedFounding: the next start lets in those whom the first could not.
func TestInterruptedFounding(t *testing.T) {
	in := newInstallation(t, nil)
	in.stop()
	require.NoError(t, os.RemoveAll(in.cfg.Data))
	require.NoError(t, os.RemoveAll(in.cfg.Keys))
	alter(t, in.cfg, `CREATE TRIGGER full BEFORE INSERT ON accounts WHEN NEW.id = 'head' BEGIN SELECT RAISE(ABORT, 'disk full'); END`)
	_, err := New(t.Context(), in.cfg)
	require.ErrorContains(t, err, "disk full")
	alter(t, in.cfg, `DROP TRIGGER full`)
	in.start()
	for _, login := range []string{"owner", "head", "seller5"} {
		in.signedIn(login)
	}
}
