package app

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// TestJournalDown: while the journal's table is gone, people come in, look at cards
// and leave, and access can be ended; nothing is taken out or changed. Afterwards the
// journal has it all, or says what it has not.
func TestJournalDown(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		seller, admin := in.signedIn("seller1"), in.signedIn("admin")
		card := "/contacts/" + in.idOf(0)
		exec := func(query string) {
			_, err := in.app.db.ExecContext(t.Context(), query)
			require.NoError(t, err)
		}
		exec(`ALTER TABLE crmguard_audit_entries RENAME TO crmguard_audit_away`)
		repair := `ALTER TABLE crmguard_audit_away RENAME TO crmguard_audit_entries`

		for range 5 {
			status, page := seller.get(card)
			require.Equal(t, http.StatusOK, status)
			has(t, page, "Quillfeather0000")
		}
		status, _ := seller.get("/contacts")
		require.Equal(t, http.StatusOK, status)
		in.enter("seller3")
		answer, _ := in.exporter("owner").ask()
		require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode)
		status, _ = seller.post(card+"/edit", "name", "Another")
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.True(t, in.app.recorder.Status().Down)
		status, page := admin.post("/staff/seller5/dismiss")
		require.Equal(t, http.StatusOK, status, page)
		status, _ = in.browser().post("/sign-in", "login", "seller5", "password", in.password(), "code", "000000")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = seller.post("/sign-out")
		require.Equal(t, http.StatusOK, status)
		status, _ = admin.post("/lockdown")
		require.Equal(t, http.StatusServiceUnavailable, status, "the admin is out, too")

		exec(repair)
		require.Eventually(t, func() bool { return in.app.recorder.Status().OK() }, time.Minute, 10*time.Millisecond)
		report, err := in.app.journal.Verify(t.Context(), in.app.vault.verifier, nil)
		require.NoError(t, err)
		require.True(t, report.OK(), report.Detail)
		found, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Limit: 500})
		require.NoError(t, err)
		lost := map[crmguard.Action]int{}
		var done []string
		for _, e := range slices.Backward(found.Entries) {
			if gap, ok := audit.GapOf(e.Event); ok {
				if gap.Subject == "seller1" {
					lost[gap.Action] += gap.Count
				}
			} else if e.Event.Outcome == crmguard.Done {
				done = append(done, e.Event.Subject.ID+" "+string(e.Event.Action)+" "+e.Event.Resource.Kind)
			}
		}
		require.Equal(t, map[crmguard.Action]int{crmguard.View: 5, crmguard.List: 1}, lost)
		for _, want := range []string{"seller3 sign-in sessions", "admin revoke staff", "seller1 revoke sessions", "admin revoke lockdown"} {
			require.Contains(t, done, want)
		}
	})
}
