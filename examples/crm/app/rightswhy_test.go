package app

import (
	"fmt"
	"net/http"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// refusal is the newest entry about something that was refused to somebody.
func (in *installation) refusal(login string) audit.Entry {
	in.t.Helper()
	found, err := in.app.journal.Find(in.t.Context(), audit.Query{Tenant: tenant, Subject: login, Outcome: crmguard.Denied, Limit: 1})
	require.NoError(in.t, err)
	require.Len(in.t, found.Entries, 1)
	return found.Entries[0]
}

func whyPath(e audit.Entry) string { return fmt.Sprintf("/journal/entries/%d/why", e.Seq) }

// TestWhyRefused: the number that a refused person sees leads whoever administers rights
// to the rows, and nobody else, least of all that person.
func TestWhyRefused(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner, admin, seller := in.signedIn("owner"), in.signedIn("admin"), in.signedIn("seller1")
		foreign := in.idOf(1) // seller3's, of the department below
		status, page := seller.get("/contacts/" + foreign)
		require.Equal(t, http.StatusNotFound, status)
		hasNot(t, page, "why")
		hasNot(t, page, "role:")
		request := regexp.MustCompile(`<code>([A-Z2-7]{26})</code>`).FindStringSubmatch(page)[1]
		refused := in.refusal("seller1")

		status, page = admin.post("/rights/why", "request", " "+request+" ")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "Why seller1 may not")
		has(t, page, "u:seller1 may not view contacts "+foreign)
		has(t, page, "a member of a department above its department sales-north")
		has(t, page, "would do: p, ")
		hasNot(t, page, "As it was decided", "nothing has changed since")
		hasNot(t, page, "What if?", "the administrator does not change rights")
		_, page = admin.get(fmt.Sprintf("/journal/entries/%d", refused.Seq))
		has(t, page, `href="`+whyPath(refused)+`"`)

		status, _ = seller.get("/staff")
		require.Equal(t, http.StatusForbidden, status)
		_, page = admin.get(whyPath(in.refusal("seller1")))
		has(t, page, "A role that would let seller1 do it")
		has(t, page, `<a href="/rights/role:admin">admin</a>`)
		_, page = admin.post("/rights/why", "request", "nonsense")
		has(t, page, `href="/rights">Back</a>`)

		// What would do is held against everybody before it is saved.
		_, page = owner.get(whyPath(refused))
		row := regexp.MustCompile(`name="rows" value="([^"]+)"`).FindStringSubmatch(page)
		require.NotNil(t, row)
		owner.change(row[1])
		status, _ = seller.get("/contacts/" + foreign)
		require.Equal(t, http.StatusOK, status, "it did")
		_, page = owner.get(whyPath(refused))
		has(t, page, "As it was decided")
		has(t, page, "u:seller1 may not view")
		has(t, page, "u:seller1 may view")

		// Nobody else, and whoever was refused least of all.
		for _, b := range []*browser{seller, in.signedIn("head")} {
			status, page = b.get(whyPath(refused))
			require.Equal(t, http.StatusForbidden, status)
			hasNot(t, page, "sales-north")
			status, _ = b.post("/rights/why", "request", request)
			require.Equal(t, http.StatusForbidden, status)
		}
		status, page = admin.post("/rights/draft", "rows", phonesOfHeads)
		require.Equal(t, http.StatusForbidden, status)
		hasNot(t, page, "role:")
		status, _ = admin.post("/keys/none")
		require.Equal(t, http.StatusNotFound, status)
		status, _ = admin.get("/contacts/export")
		require.Equal(t, http.StatusForbidden, status)
		status, page = admin.post("/contacts/"+foreign+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusForbidden, status)
		request = regexp.MustCompile(`<code>([A-Z2-7]{26})</code>`).FindStringSubmatch(page)[1]
		own := in.refusal("admin")
		for _, ask := range []func() (int, string){
			func() (int, string) { return admin.get(whyPath(own)) },
			func() (int, string) { return admin.post("/rights/why", "request", request) },
		} {
			status, page = ask()
			require.Equal(t, http.StatusForbidden, status)
			has(t, page, "told to others")
			hasNot(t, page, "role:owner")
		}
		_, page = admin.get(fmt.Sprintf("/journal/entries/%d", own.Seq))
		hasNot(t, page, "/why")
		status, page = owner.get(whyPath(own))
		require.Equal(t, http.StatusOK, status)
		has(t, page, "u:admin may not reveal contacts#phone")

		// Whatever they administer.
		in.allow([]string{"role:seller", tenant, "section:rights", "access", "all", "allow"}, []string{"role:seller", tenant, "section:journal", "access", "all", "allow"})
		status, page = seller.get(whyPath(refused))
		require.Equal(t, http.StatusForbidden, status)
		has(t, page, "told to others")
		status, _ = seller.get(whyPath(own))
		require.Equal(t, http.StatusOK, status)

		// What rights did not refuse is not explained, nor what does not exist.
		done, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Outcome: crmguard.Done, Limit: 1})
		require.NoError(t, err)
		for _, path := range []string{whyPath(done.Entries[0]), "/journal/entries/999999/why", "/journal/entries/x/why"} {
			status, _ = owner.get(path)
			require.Equal(t, http.StatusNotFound, status, path)
		}
		for _, request := range []string{"", "x", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", done.Entries[0].Event.Request} {
			status, _ = owner.post("/rights/why", "request", request)
			require.Equal(t, http.StatusNotFound, status, request)
		}
		// Who may administer rights but not read the journal learns nothing of it here.
		owner.change("- p, role:admin, default, section:journal, access, all, allow")
		status, _ = admin.get(whyPath(refused))
		require.Equal(t, http.StatusForbidden, status)
	})
}

// TestBackToOlderRights: the rules of an older version come back after the same what-if,
// and nobody gets a role again by that.
func TestBackToOlderRights(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(9))
		owner := in.signedIn("owner")
		before := in.app.rights.Status().Stored.Number
		owner.change(phonesOfHeads)
		status, _ := owner.post("/staff/seller1/dismiss")
		require.Equal(t, http.StatusOK, status)

		back := fmt.Sprintf("/rights/history/%d/back", before)
		status, page := owner.post(back)
		require.Equal(t, http.StatusOK, status)
		has(t, page, "−9 phones")
		hasNot(t, page, "u:seller1", "who was dismissed stays so")
		status, _ = owner.put(page, fmt.Sprintf("back to version %d", before))
		require.Equal(t, http.StatusOK, status)
		_, list := in.signedIn("head").get("/contacts")
		hasNot(t, list, "+7916555")
		roles, _, err := in.app.rights.Resolve(t.Context(), tenant, "seller1")
		require.NoError(t, err)
		require.Empty(t, roles)

		for _, path := range []string{"/rights/history/0/back", "/rights/history/999/back", "/rights/history/x/back", "/rights/history/-1/back"} {
			status, _ = owner.post(path)
			require.Equal(t, http.StatusNotFound, status, path)
		}
		_, page = owner.get("/rights/history")
		has(t, page, "What is stored is in force")
		has(t, page, "a test")
		_, page = owner.get("/rights/history?before=3")
		has(t, page, "first-start")
	})
}

// TestHealthOfRights: the page says when what somebody wrote past the CRM is not in force.
func TestHealthOfRights(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		owner := in.signedIn("owner")
		in.tamper(`INSERT INTO casbin_rule (ptype, v0, v1, v2, v3, v4, v5) VALUES ('p', 'role:seller', $1, 'contacts', 'export', 'all', 'allow')`, tenant)
		require.Error(t, in.app.rights.Reload(t.Context()))
		_, page := owner.get("/rights/history")
		has(t, page, "What is stored is not in force")
		has(t, page, "changed past the adapter")
	})
}
