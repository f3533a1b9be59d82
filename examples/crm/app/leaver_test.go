package app

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// handedOver waits until the contacts of somebody are handed over.
func (in *installation) handedOver(login string) transfer {
	in.t.Helper()
	require.Eventually(in.t, func() bool { h := in.app.handovers.of(login); return h != nil && !h.Running() }, 30*time.Second, 5*time.Millisecond)
	return *in.app.handovers.of(login)
}

// owned counts the contacts of somebody in a department.
func (in *installation) owned(login, unit string) (n int) {
	in.t.Helper()
	require.NoError(in.t, in.app.db.QueryRowContext(in.t.Context(), `SELECT COUNT(*) FROM contacts WHERE owner = $1 AND unit = $2`, login, unit).Scan(&n))
	return n
}

// TestLeaver: one sees what somebody has, and one act takes it, ends their sessions and
// gives their contacts to somebody else, each with its entry.
func TestLeaver(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(1560)) // more than one batch for each
		owner, leaver := in.signedIn("owner"), in.signedIn("seller3")
		owner.change("+ p, u:seller3, default, contacts, export, own, allow")
		status, page := owner.get("/staff/seller3/leaver")
		require.Equal(t, http.StatusOK, status)
		for _, part := range []string{"role:seller", "p, u:seller3, default, contacts, export, own, allow</code>", "seller3 can export contacts: own; by owner on", "520 contacts name seller3", `<option value="seller4">`} {
			has(t, page, part)
		}
		for _, nobody := range []string{"seller3", "integration"} {
			hasNot(t, page, `<option value="`+nobody+`">`)
		}
		first := in.idOf(1)
		status, page = owner.post("/staff/seller3/dismiss", "heir", "seller5")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "seller3 is dismissed")
		has(t, page, "The contacts go to seller5")
		status, _ = leaver.get("/contacts")
		require.Equal(t, http.StatusUnauthorized, status)
		done := in.handedOver("seller3")
		require.Equal(t, 520, done.Done)
		require.Empty(t, done.Left)
		require.Equal(t, 1040, in.owned("seller5", "support"), "with their department")
		require.Zero(t, in.owned("seller3", "sales-north"))
		_, page = owner.get("/staff/seller3/leaver")
		has(t, page, "520 contacts went to seller5")
		hasNot(t, page, "<select")
		require.Eventually(t, func() bool {
			found, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Record: first, Action: crmguard.Update, Limit: 1})
			return err == nil && len(found.Entries) == 1 && found.Entries[0].Event.Reason == "handover:seller3:seller5" &&
				found.Entries[0].Event.Subject.OnBehalfOf == "owner" && found.Entries[0].Event.Resource.Owner == "seller5"
		}, 10*time.Second, 10*time.Millisecond, "the timeline of each contact says so")
		status, _ = in.signedIn("seller5").get("/contacts/" + first)
		require.Equal(t, http.StatusOK, status)
	})
}

// TestWhoHandsContactsOver: nobody who may not dismiss, nobody who may not change the
// contacts, and to nobody who could not open them.
func TestWhoHandsContactsOver(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(9))
		owner, admin := in.signedIn("owner"), in.signedIn("admin")
		for _, login := range []string{"head", "seller1", "accountant"} {
			b := in.signedIn(login)
			for _, path := range []string{"/staff/seller3/leaver", "/staff/seller3/leaver/live"} {
				status, page := b.get(path)
				require.Equal(t, http.StatusForbidden, status, path)
				hasNot(t, page, "role:")
			}
			for _, path := range []string{"/staff/seller3/dismiss", "/staff/seller3/handover"} {
				status, _ := b.post(path, "heir", login)
				require.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, status, path)
				status, _ = read(t, owner.do(http.MethodPost, path, fields("heir", "seller5"), "Sec-Fetch-Site", "cross-site"))
				require.Equal(t, http.StatusForbidden, status)
			}
		}
		// An administrator dismisses, but cannot give away what they may not change.
		_, page := admin.get("/staff/seller3/leaver")
		has(t, page, "Who may change the contacts can hand them over")
		hasNot(t, page, "<select")
		status, _ := admin.post("/staff/seller3/dismiss", "heir", "seller5")
		require.Equal(t, http.StatusUnprocessableEntity, status)
		for path, status := range map[string]int{"/staff/owner/leaver": http.StatusForbidden, "/staff/admin/leaver": http.StatusConflict, "/staff/ghost/leaver": http.StatusNotFound} {
			got, page := admin.get(path)
			require.Equal(t, status, got, path)
			hasNot(t, page, "role:", path)
		}
		require.NoError(t, in.app.sessions.ClosePerson(t.Context(), tenant, "seller4"))
		for _, heir := range []string{"seller3", "seller4", "ghost", "integration", "<b>"} {
			status, page = owner.post("/staff/seller3/dismiss", "heir", heir)
			require.Equal(t, http.StatusUnprocessableEntity, status, heir)
			has(t, page, "Nothing was done")
		}
		status, _ = owner.post("/staff/seller3/handover", "heir", "seller5")
		require.Equal(t, http.StatusConflict, status, "who works here keeps them")
		state, err := in.app.sessions.State(t.Context(), tenant, "seller3")
		require.NoError(t, err)
		require.False(t, state.Closed)
		require.Equal(t, 3, in.owned("seller3", "sales-north"))

		// It is the right to change them that they lack.
		in.allow([]string{"role:admin", tenant, kind, "update", "all", "allow"})
		_, page = admin.get("/staff/seller3/leaver")
		has(t, page, `<option value="seller5">`)
		job := crmguard.System(t.Context(), tenant, "test")
		stored, err := in.app.policy.Load(job)
		require.NoError(t, err)
		_, err = in.app.rights.Rollback(job, tenant, stored.Version.Number, stored.Version.Number-1, "as it was")
		require.NoError(t, err)

		// Later an owner does.
		status, _ = admin.post("/staff/seller3/dismiss")
		require.Equal(t, http.StatusOK, status)
		status, _ = admin.post("/staff/seller3/handover", "heir", "seller5")
		require.Equal(t, http.StatusUnprocessableEntity, status)
		status, _ = owner.post("/staff/seller3/handover")
		require.Equal(t, http.StatusUnprocessableEntity, status)
		status, page = owner.post("/staff/seller3/handover", "heir", "seller5")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The contacts go to seller5")
		require.Equal(t, 3, in.handedOver("seller3").Done)
	})
}

// TestHandoverGoesOn: what a crash cut off goes on, by the rights that whoever began it
// still has, and what somebody wrote into the database does not begin.
func TestHandoverGoesOn(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(9))
		cutOff := func(h transfer) transfer {
			h.Began = in.app.now()
			require.NoError(t, in.app.keepHandover(t.Context(), h))
			in.stop()
			in.start()
			return in.handedOver(h.From)
		}
		require.Equal(t, 3, cutOff(transfer{From: "seller1", To: "seller2", By: "owner", All: 3}).Done)
		require.Equal(t, 3, in.owned("seller2", "sales"))

		for by, to := range map[string]string{"seller5": "seller2", "admin": "seller2", "owner": "integration", "head": "seller5"} {
			stopped := cutOff(transfer{From: "seller3", To: to, By: by, All: 3})
			require.NotEmpty(t, stopped.Left, by)
			require.Zero(t, stopped.Done, by)
		}
		// Of others only those that the author may change: Head of Sales has none in Support.
		require.Zero(t, cutOff(transfer{From: "seller5", To: "seller2", By: "head", All: 3}).Done)
		require.Equal(t, 3, in.owned("seller3", "sales-north"))
		require.Equal(t, 3, in.owned("seller5", "support"))

		in.stop()
		alter(t, in.cfg, `UPDATE settings SET value = $1 WHERE name = 'handover-seller3'`, []byte(`{"from":"seller3","to":"seller2","by":"owner","began":"2026-01-01T00:00:00Z"}`))
		in.start()
		require.Nil(t, in.app.handovers.of("seller3"))
		require.Equal(t, 3, in.owned("seller3", "sales-north"))
	})
}

// TestDismissedAgain: whoever presses twice, or finds a dismissal half done, is told what
// was done before, what is done now, and what is left; and what became of the contacts is
// not forgotten.
func TestDismissedAgain(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(9))
		in.atNoon()
		owner := in.signedIn("owner")
		_, page := owner.post("/staff/seller3/dismiss", "heir", "seller5")
		for _, part := range []string{"seller3 is dismissed", "Since 12:", "second factors (1), roles and rights (1)", "The contacts go to seller5."} {
			has(t, page, part)
		}
		in.handedOver("seller3")
		for _, heir := range []string{"seller5", ""} {
			_, page = owner.post("/staff/seller3/dismiss", "heir", heir)
			for _, part := range []string{"seller3 was dismissed before", "There was nothing left to take away.", "No contact names seller3."} {
				has(t, page, part)
			}
			hasNot(t, page, "The contacts")
		}
		_, page = owner.post("/staff/seller3/handover", "heir", "seller5")
		has(t, page, "Nothing to hand over")
		has(t, page, "3 contacts went to seller5")
		hasNot(t, page, "not everything is taken away")

		// Half done: closed, and nothing else.
		require.NoError(t, in.app.sessions.ClosePerson(t.Context(), tenant, "seller4"))
		_, page = owner.get("/staff/seller4/leaver")
		has(t, page, "Not everything is taken away yet")
		has(t, page, `action="/staff/seller4/dismiss"`)
		_, page = owner.post("/staff/seller4/dismiss")
		has(t, page, "seller4 was dismissed before")
		has(t, page, "What was left is taken away now: second factors (1), roles and rights (1).")
		_, page = owner.get("/staff/seller4/leaver")
		hasNot(t, page, "Not everything is taken away yet")
		has(t, page, "No contact names seller4")
		_, page = owner.get("/staff/head/leaver")
		has(t, page, "No contact names head as responsible.")
		has(t, page, "heads the department Sales")
	})
}
