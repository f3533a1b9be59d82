package app

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// TestLockdown: the switch closes the CRM at once, survives a restart, and cannot be
// undone in the database.
func TestLockdown(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		seller, head, admin, owner := in.signedIn("seller1"), in.signedIn("head"), in.signedIn("admin"), in.signedIn("owner")
		card := "/contacts/" + in.idOf(0)
		for _, b := range []*browser{seller, head} {
			status, _ := b.post("/lockdown")
			require.Equal(t, http.StatusForbidden, status)
		}
		_, page := admin.get("/lockdown")
		has(t, page, "Lock the CRM down")
		status, page := admin.post("/lockdown")
		require.Equal(t, http.StatusServiceUnavailable, status, "whoever may not reopen is out too")
		has(t, page, "The CRM is locked down")

		closed := func() {
			t.Helper()
			for _, path := range []string{"/contacts", card, card + "/edit", "/me", "/contacts/export", "/nothing"} {
				status, page := seller.get(path)
				require.NotEqual(t, http.StatusOK, status, path)
				hasNot(t, page, "Quillfeather", path)
			}
			status, page := seller.get(card)
			require.Equal(t, http.StatusServiceUnavailable, status)
			has(t, page, "it goes on when the owner reopens it")
			has(t, page, `href="/contacts">Try again</a>`)
			status, _ = admin.post("/lockdown/reopen")
			require.Equal(t, http.StatusServiceUnavailable, status)
			for _, path := range []string{"/contacts", card} { // not even who may reopen
				status, page := owner.get(path)
				require.Equal(t, http.StatusServiceUnavailable, status, path)
				hasNot(t, page, "Quillfeather", path)
				has(t, page, `class="button" href="/lockdown">Emergency</a>`, "where it is reopened")
			}
		}
		closed()
		in.stop()
		in.start()
		for _, b := range []*browser{seller, admin, owner} {
			b.base = in.web.URL
		}
		seller, admin, owner = in.signedIn("seller1"), in.signedIn("admin"), in.signedIn("owner")
		closed()
		in.tamper(`UPDATE crmguard_session_persons SET closed = $1 WHERE person = ''`, 0)
		in.pass(2 * time.Second)
		closed()
		in.tamper(`DELETE FROM crmguard_session_persons WHERE person = ''`)
		in.pass(2 * time.Second)
		closed()

		// Whoever signs in now does not wait inside for the end.
		status, page = in.browser().post("/sign-in", "login", "seller3", "password", in.password(), "code", in.code("seller3"))
		require.Equal(t, http.StatusUnauthorized, status)
		has(t, page, "Only owners can sign in now")
		in.enter("owner")

		// The incident is followed up.
		status, page = owner.get("/journal")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The CRM is locked down.")
		status, _ = owner.post("/staff/seller5/dismiss")
		require.Equal(t, http.StatusOK, status)

		// Reopening wants a fresh code.
		stale := in.session("owner", crmguard.AssuranceSecondFactor, 10*time.Minute)
		status, page = stale.post("/lockdown/reopen")
		require.Equal(t, http.StatusUnauthorized, status)
		has(t, page, "Confirm")
		status, page = owner.post("/lockdown/reopen")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "Lock the CRM down")
		_, page = seller.get(card)
		has(t, page, "Quillfeather0000")

		// The way back on the server.
		_, _ = owner.post("/lockdown")
		status, _ = seller.get(card)
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.NoError(t, in.app.reopenHere(t.Context()))
		status, _ = seller.get(card)
		require.Equal(t, http.StatusOK, status)
		_, page = owner.get("/journal?person=system:reopen")
		has(t, page, "system:reopen")
	})
}

// TestDismissal: one act ends sessions, second factor and roles; what a crash cut off
// is finished at the next start.
func TestDismissal(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner, victim := in.signedIn("owner"), in.signedIn("seller1")
		status, page := owner.post("/staff/seller1/dismiss")
		require.Equal(t, http.StatusOK, status)
		for _, part := range []string{"seller1 is dismissed", "second factors (1)", "roles and rights (1)"} {
			has(t, page, part)
		}
		status, _ = victim.get("/contacts")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = in.browser().post("/sign-in", "login", "seller1", "password", in.password())
		require.Equal(t, http.StatusUnauthorized, status)

		// The state is closed, and then the power fails.
		require.NoError(t, in.app.sessions.ClosePerson(t.Context(), tenant, "seller3"))
		in.stop()
		in.start()
		ctx := t.Context()
		roles, _, err := in.app.rights.Resolve(ctx, tenant, "seller3")
		require.NoError(t, err)
		require.Empty(t, roles)
		has2fa, err := in.app.factors.Has(ctx, tenant, "seller3")
		require.NoError(t, err)
		require.False(t, has2fa)
		_, page = in.signedIn("owner").get("/journal?person=system:dismissals")
		has(t, page, "seller3")
		in.stop()
		in.start()
		var entries int
		require.NoError(t, in.app.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM crmguard_audit_entries WHERE subject = 'system:dismissals'`).Scan(&entries))
		require.Equal(t, 3, entries, "once: the dismissal, and before and after it the change of the policy")
	})
}

// TestRoles: nobody gives what they lack, nor to themselves, nor takes the last
// owner's role.
func TestRoles(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner, admin, seller := in.signedIn("owner"), in.signedIn("admin"), in.signedIn("seller1")
		post := func(b *browser, login, role string) int {
			status, _ := b.post("/staff/"+login+"/role", "role", role)
			return status
		}
		require.Equal(t, http.StatusNotFound, post(seller, "seller1", "owner"))
		require.Equal(t, http.StatusForbidden, post(admin, "seller1", "owner"), "what an administrator lacks")
		require.Equal(t, http.StatusForbidden, post(admin, "seller1", "head"))
		require.Equal(t, http.StatusForbidden, post(admin, "admin", "admin"), "to oneself")
		require.Equal(t, http.StatusNotFound, post(admin, "owner", "admin"))
		require.Equal(t, http.StatusUnprocessableEntity, post(owner, "seller1", "king"))
		require.Equal(t, http.StatusUnprocessableEntity, post(owner, "seller1", "integration"))
		require.Equal(t, http.StatusUnprocessableEntity, post(owner, "integration", "seller"))
		require.Equal(t, http.StatusUnauthorized, post(in.session("owner", crmguard.AssuranceSecondFactor, time.Hour), "seller1", "head"), "without a fresh code")

		given, err := in.app.staffRoles(t.Context())
		require.NoError(t, err)
		for _, role := range given { // the owner can give each
			require.Equal(t, http.StatusOK, post(owner, "seller1", role), role)
		}
		require.Equal(t, http.StatusOK, post(owner, "seller1", "accountant"))
		_, page := seller.get("/contacts")
		has(t, page, "Quillfeather0001", "from the next click on")
		roles, _, err := in.app.rights.Resolve(t.Context(), tenant, "seller1")
		require.NoError(t, err)
		require.Equal(t, []string{"accountant"}, roles)

		require.Equal(t, http.StatusOK, post(owner, "head", "owner"))
		second := in.signedIn("head")
		require.Equal(t, http.StatusOK, post(second, "owner", "seller"))
		require.Equal(t, http.StatusConflict, post(in.signedIn("head"), "head", "seller"), "the last owner")
		require.Equal(t, http.StatusNotFound, post(owner, "seller3", "head"), "who is owner no more")
	})
}

// TestForgettingMany: whoever destroys clients needs a fresh code, and is held to the
// norm of cards like whoever reads them.
func TestForgettingMany(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(60))
		in.atNoon()
		forget := func(b *browser, i int) int {
			status, _ := b.post("/contacts/"+in.idOf(i)+"/forget", "reason", "client-request")
			return status
		}
		require.Equal(t, http.StatusUnauthorized, forget(in.session("owner", crmguard.AssurancePassword, 0), 0))
		require.Equal(t, http.StatusUnauthorized, forget(in.session("owner", crmguard.AssuranceSecondFactor, time.Hour), 0))
		owner := in.signedIn("owner")
		for i := range 50 {
			require.Equal(t, http.StatusOK, forget(owner, i), i)
		}
		require.Equal(t, http.StatusTooManyRequests, forget(owner, 50))
		status, page := owner.get("/contacts/" + in.idOf(51) + "/forget")
		require.Equal(t, http.StatusTooManyRequests, status, "the question shows a card, too")
		hasNot(t, page, "Quillfeather")
		_, page = in.signedIn("admin").get("/alerts")
		has(t, page, "51 cards")
		_, page = in.signedIn("admin").get("/contacts/" + in.idOf(50))
		hasNot(t, page, "Erased client")
		stale := in.session("owner", crmguard.AssurancePassword, 0)
		status, _ = stale.post("/staff/seller5/dismiss")
		require.Equal(t, http.StatusUnauthorized, status)
	})
}
