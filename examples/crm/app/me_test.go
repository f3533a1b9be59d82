package app

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// TestFirstApp: a session alone adds no first app, however new it is, and when the
// person has one, whoever else was in is out.
func TestFirstApp(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		secretWord, err := in.app.AddAccount(t.Context(), NewAccount{Login: "anna", Role: "head", Unit: "sales"})
		require.NoError(t, err)
		anna, thief := in.browser(), in.browser()
		_, page := anna.post("/sign-in", "login", "anna", "password", secretWord)
		has(t, page, `name="password"`)
		thief.bring(anna.token())
		elsewhere := in.session("anna", crmguard.AssurancePassword, 0)

		_, page = anna.post("/me/apps", "password", secretWord)
		id, secret := found(t, page, hiddenID), found(t, page, shownSecret)
		status, _ := thief.get("/me")
		require.Equal(t, http.StatusUnauthorized, status, "the password begins a new session")
		thief.bring(anna.token()) // stolen again
		for _, form := range [][]string{nil, {"password", ""}, {"password", "guess"}} {
			status, page = thief.post("/me/apps", form...)
			require.Equal(t, http.StatusUnprocessableEntity, status)
			has(t, page, "This is not your password")
			require.NotRegexp(t, shownSecret, page)
		}
		for try := 0; status == http.StatusUnprocessableEntity && try < 10; try++ {
			status, page = thief.post("/me/apps", "password", "guess")
		}
		require.Equal(t, http.StatusTooManyRequests, status, "whoever guesses waits")
		has(t, page, "Too many attempts")

		status, page = anna.post("/me/apps/confirm", "id", id, "code", in.codeOf(secret, 0))
		require.Equal(t, http.StatusOK, status, "nobody has put another app in its place")
		recoveryCodes(t, page)
		has(t, page, "All your other sessions were ended")
		status, _ = elsewhere.get("/me")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = anna.get("/me")
		require.Equal(t, http.StatusOK, status)
		confirmed, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Subject: "anna", Action: crmguard.Configure, Kind: factorsKind, Outcome: crmguard.Done, Limit: 1})
		require.NoError(t, err)
		require.Equal(t, "confirm-app:others-ended", confirmed.Entries[0].Event.Reason)
		require.Equal(t, 1, confirmed.Entries[0].Event.Count)

		// A second app ends nobody's session.
		anna.bring(in.session("anna", crmguard.AssuranceSecondFactor, 0).token())
		elsewhere = in.signedIn("anna")
		in.late.Add(int64(time.Minute))
		_, page = anna.post("/me/apps")
		status, page = anna.post("/me/apps/confirm", "id", found(t, page, hiddenID), "code", in.codeOf(found(t, page, shownSecret), 0))
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The app was added")
		status, _ = elsewhere.get("/me")
		require.Equal(t, http.StatusOK, status)
	})
}

// TestRemovedApp: what is not there is not removed, and the journal does not say so.
func TestRemovedApp(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		b := in.signedIn("seller1")
		_, page := b.get("/me")
		app := found(t, page, appOfPage)
		_, page = in.signedIn("seller2").get("/me")
		for _, id := range []string{"AAAAAAAAAAAAAAAAAAAAAAAAAA", "x", found(t, page, appOfPage)} {
			status, page := b.post("/me/apps/" + id + "/remove")
			require.Equal(t, http.StatusNotFound, status, id)
			hasNot(t, page, "The app was removed")
		}
		removals := func(outcome crmguard.Outcome) int {
			t.Helper()
			found, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Subject: "seller1", Kind: factorsKind, Action: crmguard.Configure, Outcome: outcome})
			require.NoError(t, err)
			return len(found.Entries)
		}
		require.Zero(t, removals(crmguard.Done))
		require.Equal(t, 3, removals(crmguard.Denied))
		status, page := b.post("/me/apps/" + app + "/remove")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The app was removed")
		require.Equal(t, 1, removals(crmguard.Done))
		b = in.session("seller1", crmguard.AssurancePassword, 0)
		status, _ = b.post("/me/apps/" + app + "/remove")
		require.Equal(t, http.StatusNotFound, status, "once")
	})
}
