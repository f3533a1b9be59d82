package app

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFoundedOnce: whoever can write the database brings nobody back by having the
// company founded again.
func TestFoundedOnce(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		_, page := in.signedIn("owner").get("/journal?record=seller5")
		has(t, page, "role:seller", "the founding is in the journal")
		in.signedIn("admin").post("/staff/seller5/dismiss")
		in.stop()
		db, err := openStore(t.Context(), in.cfg)
		require.NoError(t, err)
		mark, err := db.setting(t.Context(), stageSetting)
		require.NoError(t, err)
		require.Equal(t, stageDone, string(mark))
		mac, err := db.setting(t.Context(), stageSetting+"-mac")
		require.NoError(t, err)
		require.NoError(t, db.close())

		for name, change := range map[string][]any{
			"gone":   {`DELETE FROM settings WHERE name = 'first-start'`},
			"forged": {`UPDATE settings SET value = $1 WHERE name = 'first-start'`, []byte(stageCompany)},
			"proof":  {`DELETE FROM settings WHERE name = 'first-start-mac'`},
		} {
			alter(t, in.cfg, change[0].(string), change[1:]...)
			in.refused(in.cfg, "nobody was let in")
			db, err := openStore(t.Context(), in.cfg)
			require.NoError(t, err)
			require.NoError(t, putSetting(t.Context(), db, stageSetting, mark), name)
			require.NoError(t, putSetting(t.Context(), db, stageSetting+"-mac", mac), name)
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
	})
}

// TestInterruptedHiring: an account whose making failed half way leaves its login
// free, and no role but the one asked for next.
func TestInterruptedHiring(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		for name, table := range map[string]string{"role": "casbin_rule", "state": "crmguard_session_persons", "account": "accounts"} {
			login := "anna-" + name
			fail, repair := on.diskFull(table, "")
			_, err := in.app.db.ExecContext(t.Context(), fail)
			require.NoError(t, err)
			_, err = in.app.AddAccount(t.Context(), NewAccount{Login: login, Role: "owner"})
			require.Error(t, err, name)
			_, err = in.app.db.ExecContext(t.Context(), repair)
			require.NoError(t, err)
			secret, err := in.app.AddAccount(t.Context(), NewAccount{Login: login, Role: "seller", Unit: "sales"})
			require.NoError(t, err, name)
			roles, _, err := in.app.rights.Resolve(t.Context(), tenant, login)
			require.NoError(t, err)
			require.Equal(t, []string{"seller"}, roles)
			status, _ := in.browser().post("/sign-in", "login", login, "password", secret)
			require.Equal(t, http.StatusOK, status)
		}
	})
}

// TestInterruptedFounding: the next start lets in those whom the first could not.
func TestInterruptedFounding(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := unstarted(t, on)
		fail, repair := on.diskFull("accounts", "NEW.id = 'head'")
		alter(t, in.cfg, fail)
		_, err := New(t.Context(), in.cfg)
		require.ErrorContains(t, err, "disk full")
		alter(t, in.cfg, repair)
		in.start()
		for _, login := range []string{"owner", "head", "seller5"} {
			in.enter(login) // so with the app that the code command knows
			status, err := in.app.factors.Status(t.Context(), tenant, login)
			require.NoError(t, err)
			require.Len(t, status.Apps, 1, login)
		}
	})
}
