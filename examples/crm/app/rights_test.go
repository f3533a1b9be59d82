package app

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhoSeesWhat reads one ordinary row as each role, in the list and as a card,
// and checks every value: this is what README.md and policy.csv promise.
func TestWhoSeesWhat(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, []byte("name,phone,email,company,city,note,owner\n"+
			"Anna Petrova,+79161234567,anna@example.org,Petrova Bakery,Umbridge,Prefers the mornings,seller1\n"))
		clear := map[string]string{
			"name": "Anna Petrova", "phone": "+79161234567", "email": "anna@example.org",
			"company": "Petrova Bakery", "city": "Umbridge", "note": "Prefers the mornings",
		}
		masks := map[string]string{"name": "A••• P•••", "phone": "+7 ••• 67", "email": "a•••@•••.org", "company": "P••• B•••", "city": "U•••"}
		id := in.idOf(0)
		for login, sees := range map[string][]string{
			"owner": {"name", "phone", "email", "company", "city", "note"}, "head": {"name", "company", "city"}, "seller1": {"name", "company", "city"},
			"admin": {}, "accountant": {"name", "company"},
		} {
			t.Run(login, func(t *testing.T) {
				b := in.signedIn(login)
				may := map[string]bool{}
				for _, field := range sees {
					may[field] = true
				}
				for _, path := range []string{"/contacts", "/contacts/" + id} {
					status, page := b.get(path)
					require.Equal(t, http.StatusOK, status)
					for field, value := range clear {
						if field == "note" && path == "/contacts" {
							hasNot(t, page, value, "lists have no notes")
							continue
						}
						if field == "phone" && may[field] && path != "/contacts" {
							value = showPhone(value)
						}
						if may[field] {
							has(t, page, value, path, field)
							continue
						}
						hasNot(t, page, value, path, field)
						if mask := masks[field]; mask != "" && login != "accountant" {
							has(t, page, mask, path, field)
						}
					}
				}
				if _, form := b.get("/contacts/" + id + "/edit"); login == "seller1" || login == "head" {
					has(t, form, `value="Petrova Bakery"`)
					hasNot(t, form, "Prefers", "the form hides what the card hides")
				}
				status, page := b.post("/contacts/"+id+"/reveal", "field", "note", "reason", "call-client")
				switch login {
				case "seller1", "head":
					require.Equal(t, http.StatusOK, status)
					has(t, page, "Prefers the mornings")
				case "admin", "accountant":
					require.Equal(t, http.StatusForbidden, status)
					hasNot(t, page, "Prefers")
				}
			})
		}
	})
}

// TestWhatAFormLeavesOut: what a form does not send, and what somebody cannot see
// and leaves blank, stays as it is.
func TestWhatAFormLeavesOut(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, []byte("name,phone,email,note,owner,country\nOlena,0950436681,olena@example.org,Prefers the mornings,seller1,UA\n"))
		seller, owner := in.signedIn("seller1"), in.signedIn("owner")
		id := in.idOf(0)
		status, _ := seller.post("/contacts/"+id+"/edit", "version", "1", "name", "Olena Renamed", "phone", " ", "email", "\t", "note", " \r\n")
		require.Equal(t, http.StatusOK, status)
		_, card := owner.get("/contacts/" + id)
		for _, kept := range []string{"Olena Renamed", "+380 95 043 6681", "olena@example.org", "Prefers the mornings", "<dd>seller1</dd>", "<dd>UA</dd>"} {
			has(t, card, kept)
		}
		// Who sees a value may clear it.
		status, _ = owner.post("/contacts/"+id+"/edit", "version", "2", "email", " ", "country", "", "owner", "")
		require.Equal(t, http.StatusOK, status)
		_, card = owner.get("/contacts/" + id)
		for _, cleared := range []string{"olena@example.org", "<dd>seller1</dd>", "<dd>UA</dd>"} {
			hasNot(t, card, cleared)
		}
	})
}

// TestARoleOfTheDatabase: policy.csv is read once, so that a role which the database
// has got since is offered and given like those of the file.
func TestARoleOfTheDatabase(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		in.tamper(`INSERT INTO casbin_rule (ptype, v0, v1, v2, v3, v4, v5) VALUES ('p', 'role:auditor', $1, 'section:journal', 'access', 'all', 'allow')`, tenant)
		in.stop()
		in.refused(in.cfg, "section:journal, access, all, allow")
		in.cfg.AdoptRights = "there are auditors now"
		in.start()
		in.stop()
		in.cfg.AdoptRights = ""
		in.start()
		owner := in.signedIn("owner")
		_, page := owner.get("/staff")
		has(t, page, "<option>auditor</option>")
		hasNot(t, page, "<option>integration</option>")
		_, page = owner.get("/settings")
		has(t, page, "Role auditor")
		status, _ := owner.post("/staff/seller4/role", "role", "auditor")
		require.Equal(t, http.StatusOK, status)
		status, _ = in.signedIn("seller4").get("/journal")
		require.Equal(t, http.StatusOK, status)
		_, err := in.app.AddAccount(t.Context(), NewAccount{Login: "anna", Role: "auditor"})
		require.NoError(t, err)
		_, err = in.app.AddAccount(t.Context(), NewAccount{Login: "boris", Role: "king"})
		require.ErrorContains(t, err, "accountant, admin, auditor, head, owner, seller")
	})
}

// TestRightsWithoutVersions: a database of before policies had versions is taken over as it
// is, once; afterwards rights that have lost their versions are refused.
func TestRightsWithoutVersions(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		before := in.app.rights.Version()
		in.stop()
		alter(t, in.cfg, `DELETE FROM casbin_version`)
		in.refused(in.cfg, "older than those that were in force")

		marks, err := openMarks(in.cfg.Keys)
		require.NoError(t, err)
		delete(marks.highest, "policy/"+tenant)
		text, err := json.Marshal(marks.highest)
		require.NoError(t, err)
		require.NoError(t, writeWhole(marks.path, text))
		in.start()
		require.Equal(t, before, in.app.rights.Version())
		history, err := in.app.rights.History(t.Context(), tenant, 0, 10)
		require.NoError(t, err)
		require.Len(t, history, 1)
		require.Equal(t, "system:policy", history[0].Author)
		in.stop()
		alter(t, in.cfg, `DELETE FROM casbin_version`)
		in.refused(in.cfg, "older than those that were in force")
	})
}
