package app

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
)

// TestLiveAlerts: the page that loads itself again shows the newest alerts for an
// hour after somebody's look at them was recorded, and never an older page.
func TestLiveAlerts(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(180))
		in.atNoon()
		in.openCards(in.signedIn("seller1"), in.ofSeller1(41))
		looks := func() int {
			t.Helper()
			found, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Subject: "owner", Kind: "section:alerts"})
			require.NoError(t, err)
			return len(found.Entries)
		}
		const alerted, again = "41 cards opened in a day", `content="5;url=/alerts/live"`

		owner := in.signedIn("owner")
		_, page := owner.get("/alerts/live?left=720&before=1000000000")
		has(t, page, alerted)
		require.Equal(t, 1, looks(), "who comes straight here is led to the page that is recorded")
		for range 2 {
			_, page = owner.get("/alerts/live?before=1")
			has(t, page, alerted, "the newest, whatever is asked for")
			has(t, page, again)
		}
		require.Equal(t, 1, looks(), "once, not each time")

		for range 5 { // no session idles for an hour
			in.late.Add(int64(12*time.Minute - time.Second))
			_, page = owner.get("/alerts/live")
		}
		has(t, page, alerted)
		hasNot(t, page, "http-equiv", "it does not go on for ever")
		require.Equal(t, 1, looks())
		in.late.Add(int64(6 * time.Second))
		_, page = owner.get("/alerts/live")
		has(t, page, again)
		require.Equal(t, 2, looks(), "after the hour another look begins")

		other := in.signedIn("owner")
		other.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		answer := other.do(http.MethodGet, "/alerts/live", nil)
		require.Equal(t, http.StatusSeeOther, answer.StatusCode, "another session's look is its own")
		require.Equal(t, "/alerts", answer.Header.Get("Location"))
		_, page = owner.get("/alerts?before=1")
		hasNot(t, page, alerted)
		hasNot(t, page, "http-equiv", "older pages stay as they are")
	})
}
