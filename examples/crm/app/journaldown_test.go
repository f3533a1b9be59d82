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
		status, page := admin.get("/lockdown")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The journal is down")
		has(t, page, "Since ")
		has(t, page, "on the disk of this machine, sealed")
		has(t, page, "not kept one by one: ")
		status, page = admin.post("/staff/seller5/dismiss")
		require.Equal(t, http.StatusOK, status, page)
		status, _ = in.browser().post("/sign-in", "login", "seller5", "password", in.password(), "code", "000000")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = seller.post("/sign-out")
		require.Equal(t, http.StatusOK, status)
		status, _ = admin.post("/lockdown")
		require.Equal(t, http.StatusServiceUnavailable, status, "the admin is out, too")

		exec(repair)
		require.Eventually(t, func() bool { return in.app.recorder.Status().OK() }, time.Minute, 10*time.Millisecond)
		status, page = in.signedIn("owner").get("/lockdown")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The journal takes all entries")
		has(t, page, "Nothing waits, nothing was dropped.")
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

// Every state of the way into the journal has words of its own.
func TestJournalHealth(t *testing.T) {
	since := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		state audit.FailoverStatus
		title string
		lines []string
	}{
		"works":   {audit.FailoverStatus{}, "The journal takes all entries", nil},
		"again":   {audit.FailoverStatus{Since: since}, "The journal takes all entries", nil},
		"down":    {audit.FailoverStatus{Down: true, Since: since}, "The journal is down", []string{"Nobody changes"}},
		"spooled": {audit.FailoverStatus{Spooled: 1, SpoolBytes: 1025, SpoolLimit: 1 << 20}, "catches up", []string{"1 entry waits on the disk of this machine, sealed (2 KiB of 1,024)"}},
		"many":    {audit.FailoverStatus{Spooled: 1200, Dropped: 3456}, "catches up", []string{"1,200 entries wait", "one by one: 3,456."}},
		"disk":    {audit.FailoverStatus{SpoolErr: audit.ErrPoisoned}, "catches up", []string{"takes no more"}},
		"planted": {audit.FailoverStatus{Left: 2}, "catches up", []string{"or damaged: 2."}},
	} {
		h := health(c.state)
		require.Equal(t, c.state.OK(), h.OK, name)
		require.Contains(t, h.Title, c.title, name)
		require.Equal(t, c.state.Since, h.Since, name)
		require.Len(t, h.Lines, len(c.lines), name)
		for i, line := range c.lines {
			require.Contains(t, h.Lines[i], line, name)
		}
	}
}
