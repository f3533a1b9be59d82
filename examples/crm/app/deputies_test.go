package app

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// day is a day of the company, so many from today.
func (in *installation) day(n int) string {
	return in.app.norms.today().AddDate(0, 0, n).Format(time.DateOnly)
}

// TestDeputies: a person has a colleague stand in for them for some days, who sees their
// contacts then, and not before or after.
func TestDeputies(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(6))
		in.atNoon()
		seller := in.signedIn("seller1")
		mine := in.idOf(0)
		sees := func(login string) bool {
			status, _ := in.signedIn(login).get("/contacts/" + mine)
			return status == http.StatusOK
		}
		require.False(t, sees("seller5"))
		status, page := in.session("seller1", crmguard.AssurancePassword, 0).post("/deputies/seller1/set", "deputy", "seller5", "from", in.day(1), "to", in.day(2))
		require.Equal(t, http.StatusUnauthorized, status, "it wants a fresh code")
		has(t, page, `name="back" value="/deputies/seller1"`)
		status, page = seller.post("/deputies/seller1/set", "deputy", "seller5", "from", in.day(1), "to", in.day(2))
		require.Equal(t, http.StatusOK, status)
		has(t, page, "seller5 stands in for seller1")
		has(t, page, in.day(1)+" to "+in.day(2))
		require.False(t, sees("seller5"), "not yet")
		in.late.Add(int64(24 * time.Hour))
		require.True(t, sees("seller5"))
		_, page = in.signedIn("seller5").get("/deputies/seller5")
		has(t, page, "<b>seller1</b>")
		_, list := in.signedIn("seller5").get("/contacts")
		has(t, list, "Quillfeather0000", "lists have them, too")
		in.late.Add(int64(48 * time.Hour))
		require.False(t, sees("seller5"), "any more")

		// It ends before its time, and with either of the two.
		seller = in.signedIn("seller1")
		for _, end := range []func(){
			func() { seller.post("/deputies/seller1/end", "deputy", "seller5") },
			func() { in.signedIn("owner").post("/staff/seller5/dismiss") },
		} {
			status, page = seller.post("/deputies/seller1/set", "deputy", "seller5", "from", in.day(0), "to", in.day(9))
			require.Equal(t, http.StatusOK, status, heading(page))
			require.True(t, sees("seller5"))
			end()
			_, page = seller.get("/deputies/seller1")
			has(t, page, "Nobody.")
		}
		done := in.changes(deputiesKind, crmguard.Done)
		require.Equal(t, "seller1", done[0].Subject.ID)
	})
}

// TestWhoSetsDeputies: nobody for others but an owner, nobody themselves, and nothing that
// does not end.
func TestWhoSetsDeputies(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		from, to := in.day(0), in.day(1)
		deputies := func() int {
			all, err := in.app.rights.Deputies(t.Context(), tenant)
			require.NoError(t, err)
			return len(all)
		}
		for _, login := range []string{"seller2", "head", "admin"} {
			b := in.signedIn(login)
			status, _ := b.get("/deputies/seller1")
			require.Equal(t, http.StatusNotFound, status, login)
			for _, deputy := range []string{login, "seller3"} {
				status, _ = b.post("/deputies/seller1/set", "deputy", deputy, "from", from, "to", to)
				require.Equal(t, http.StatusNotFound, status, login)
			}
		}
		seller, owner := in.signedIn("seller1"), in.signedIn("owner")
		status, _ := read(t, seller.do(http.MethodPost, "/deputies/seller1/set", fields("deputy", "seller2", "from", from, "to", to), "Sec-Fetch-Site", "cross-site"))
		require.Equal(t, http.StatusForbidden, status)
		for _, form := range [][]string{
			{"deputy", "seller1", "from", from, "to", to}, {"deputy", "ghost", "from", from, "to", to}, {"deputy", "integration", "from", from, "to", to},
			{"deputy", "seller2", "from", in.day(-1), "to", to}, {"deputy", "seller2", "from", to, "to", from}, {"deputy", "seller2", "from", from, "to", in.day(200)},
			{"deputy", "seller2", "from", "<b>", "to", to}, {"deputy", "seller2"}, {},
		} {
			status, page := seller.post("/deputies/seller1/set", form...)
			require.Equal(t, http.StatusUnprocessableEntity, status, form)
			has(t, page, `class="notice bad"`)
		}
		status, _ = owner.post("/deputies/seller1/set", "deputy", "owner", "from", from, "to", to)
		require.Equal(t, http.StatusUnprocessableEntity, status, "nobody themselves")
		status, _ = owner.get("/deputies/ghost")
		require.Equal(t, http.StatusNotFound, status)
		require.Zero(t, deputies())
		status, _ = owner.post("/deputies/seller1/set", "deputy", "seller2", "from", from, "to", to)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, 1, deputies())
		// Who stands in does not pass it on.
		status, _ = in.signedIn("seller2").post("/deputies/seller1/set", "deputy", "seller3", "from", from, "to", to)
		require.NotEqual(t, http.StatusOK, status)
		require.Equal(t, 1, deputies())

		// The page asks for a right: with one, the rights themselves still refuse what somebody
		// lacks.
		in.allow([]string{"role:admin", tenant, deputiesKind, "configure", "all", "allow"}, []string{"role:admin", tenant, deputiesKind, "access", "all", "allow"})
		status, _ = in.signedIn("admin").post("/deputies/seller1/set", "deputy", "seller3", "from", from, "to", to)
		require.Equal(t, http.StatusForbidden, status)
		require.Equal(t, 1, deputies())
	})
}
