package app

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPlay goes through a day at the CRM over HTTP.
func TestPlay(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(120))
		seller, owner := in.enter("seller1"), in.enter("owner")
		mine, foreign := in.idOf(0), in.idOf(1) // of seller1 in Sales, of seller3 in Sales / North

		t.Run("list", func(t *testing.T) {
			status, page := seller.get("/contacts")
			require.Equal(t, http.StatusOK, status)
			require.Equal(t, 40, strings.Count(page, `<th scope="row">`), "the seller's own")
			has(t, page, "Quillfeather0000")
			has(t, page, "+7 ••• 00")
			hasNot(t, page, "Quillfeather0001", "another seller's")
			hasNot(t, page, "9165550000")
			hasNot(t, page, "quill0000@")
			has(t, page, "seller1 · 20", "the watermark")

			status, page = owner.get("/contacts")
			require.Equal(t, http.StatusOK, status)
			require.Equal(t, pageSize, strings.Count(page, `<th scope="row">`))
			has(t, page, phoneOf(119))
			next := regexp.MustCompile(`/contacts\?before=\d+`).FindString(page)
			_, second := owner.get(next)
			require.Equal(t, pageSize, strings.Count(second, `<th scope="row">`))
			has(t, second, phoneOf(69))
			hasNot(t, second, phoneOf(70))
		})

		t.Run("other roles", func(t *testing.T) {
			_, page := in.signedIn("accountant").get("/contacts")
			has(t, page, "Quillfeather0119")
			hasNot(t, page, "•••")
			has(t, page, "no access")
			admin := in.signedIn("admin")
			_, page = admin.get("/contacts")
			has(t, page, `title="Masked">•••`)
			hasNot(t, page, "Quillfeather")
			hasNot(t, page, "Имярек")
			status, page := admin.post("/contacts/"+mine+"/reveal", "field", "phone", "reason", "call-client")
			require.Equal(t, http.StatusForbidden, status)
			hasNot(t, page, "9165550000")
			head := in.signedIn("head")
			_, page = head.get("/contacts")
			has(t, page, "Quillfeather0118", "of the department below")
			hasNot(t, page, "Quillfeather0119", "of another department")
			status, _ = in.browser().post("/sign-in", "login", "integration", "password", in.password())
			require.Equal(t, http.StatusUnauthorized, status)
		})

		t.Run("search", func(t *testing.T) {
			status, page := seller.post("/contacts/search", "query", "8-916-555-00-00")
			require.Equal(t, http.StatusOK, status)
			has(t, page, "1 contact found")
			has(t, page, mine)
			_, foreignPage := seller.post("/contacts/search", "query", "8 916 555 00 01")
			_, nothing := seller.post("/contacts/search", "query", "8 916 999 99 99")
			require.True(t, nothing == strings.ReplaceAll(foreignPage, "8 916 555 00 01", "8 916 999 99 99"), "what one may not see looks like what is not there")
			_, page = seller.post("/contacts/search", "query", "QUILL0003@example.org")
			has(t, page, "1 contact found")
			status, _ = seller.post("/contacts/search", "query", "q•••@•••.org")
			require.Equal(t, http.StatusUnprocessableEntity, status)
			status, _ = in.signedIn("admin").post("/contacts/search", "query", phoneOf(0))
			require.Equal(t, http.StatusForbidden, status)
		})

		t.Run("another department's card", func(t *testing.T) {
			for _, path := range []string{"/contacts/%s", "/contacts/%s/edit", "/contacts/%s/forget"} {
				status, page := seller.get(fmt.Sprintf(path, foreign))
				require.Equal(t, http.StatusNotFound, status)
				_, missing := seller.get(fmt.Sprintf(path, "aaaaaaaaaaaaaaaaaaaa"))
				require.True(t, requestID.ReplaceAllString(missing, "") == requestID.ReplaceAllString(page, ""))
				hasNot(t, page, foreign)
			}
			status, page := seller.post("/contacts/"+foreign+"/reveal", "field", "phone", "reason", "call-client")
			require.Equal(t, http.StatusNotFound, status)
			_, missing := seller.post("/contacts/aaaaaaaaaaaaaaaaaaaa/reveal", "field", "phone", "reason", "call-client")
			require.True(t, requestID.ReplaceAllString(missing, "") == requestID.ReplaceAllString(page, ""))
			status, _ = seller.post("/contacts/"+foreign+"/edit", "version", "1", "name", "Taken")
			require.Equal(t, http.StatusNotFound, status)
		})

		t.Run("reveal", func(t *testing.T) {
			_, page := seller.get("/contacts/" + mine)
			has(t, page, "+7 ••• 00")
			hasNot(t, page, "Whisper0000", "the note is hidden as a whole")
			hasNot(t, page, "4111")
			status, page := seller.post("/contacts/"+mine+"/reveal", "field", "phone")
			require.Equal(t, http.StatusUnprocessableEntity, status, "without a reason")
			hasNot(t, page, "555-00-00")
			answer := seller.do(http.MethodPost, "/contacts/"+mine+"/reveal", fields("field", "phone", "reason", "other", "more", "Wafflewords of the reason"))
			require.Equal(t, "no-store", answer.Header.Get("Cache-Control"))
			status, page = read(t, answer)
			require.Equal(t, http.StatusOK, status)
			has(t, page, "+7 916 555-00-00")
			hasNot(t, page, "quill0000@", "only the field that was asked for")
			has(t, page, `http-equiv="refresh" content="30;url=/contacts/`+mine)
			_, page = seller.get("/contacts/" + mine)
			hasNot(t, page, "555-00-00", "not any more")
		})

		t.Run("edit", func(t *testing.T) {
			_, form := seller.get("/contacts/" + mine + "/edit")
			hasNot(t, form, "555-00-00")
			v := version(t, form)
			status, page := seller.post("/contacts/"+mine+"/edit", "version", v, "name", "Quillfeather0000 Renamed", "phone", "+7 ••• 00", "owner", "seller1", "country", "RU")
			require.Equal(t, http.StatusUnprocessableEntity, status)
			has(t, page, "This is a masked value")
			has(t, page, "Quillfeather0000 Renamed", "what was typed is still there")
			_, card := owner.get("/contacts/" + mine)
			has(t, card, "+7 916 555-00-00", "nothing was changed")
			hasNot(t, card, "Renamed")

			status, page = seller.post("/contacts/"+mine+"/edit", "version", v, "name", "Quillfeather0000 Renamed", "phone", "", "email", "", "note", "", "company", "Zanzibar0000 Works", "city", "", "owner", "seller1", "country", "RU")
			require.Equal(t, http.StatusOK, status)
			has(t, page, "Saved.")
			_, card = owner.get("/contacts/" + mine)
			has(t, card, "Quillfeather0000 Renamed")
			has(t, card, "+7 916 555-00-00", "an empty input keeps what is hidden")
			has(t, card, "quill0000@example.org")
			hasNot(t, card, "Umbridge0000", "and clears what is not")

			status, page = owner.post("/contacts/"+mine+"/edit", "version", v, "name", "Late", "owner", "seller1", "country", "RU")
			require.Equal(t, http.StatusConflict, status)
			has(t, page, `value="Late"`)
			status, _ = owner.post("/contacts/"+mine+"/edit", "version", version(t, page), "name", "Quillfeather0000 Late", "owner", "seller1", "country", "RU")
			require.Equal(t, http.StatusOK, status, "saving the form again replaces")

			_, form = seller.get("/contacts/" + mine + "/edit")
			status, page = seller.post("/contacts/"+mine+"/edit", "version", version(t, form), "name", "Given away", "owner", "seller3", "country", "RU")
			require.Equal(t, http.StatusUnprocessableEntity, status, "a seller gives nothing away")
			has(t, page, "You cannot make this person responsible")
		})

		t.Run("add", func(t *testing.T) {
			status, page := seller.post("/contacts/new", "name", "Quillfeather9999", "phone", "8 916 555-99-99", "email", "quill9999@example.org", "owner", "seller1", "country", "RU")
			require.Equal(t, http.StatusOK, status)
			has(t, page, "Quillfeather9999")
			_, page = seller.post("/contacts/search", "query", "+7 916 555 99 99")
			has(t, page, "1 contact found")
			status, page = seller.post("/contacts/new", "name", "", "phone", "what", "owner", "seller1")
			require.Equal(t, http.StatusUnprocessableEntity, status)
			has(t, page, `value="what"`)
			status, _ = in.signedIn("accountant").post("/contacts/new", "name", "x")
			require.Equal(t, http.StatusForbidden, status)
			status, page = seller.post("/contacts/new", "name", strings.Repeat("x", maxForm))
			require.Equal(t, http.StatusRequestEntityTooLarge, status)
			has(t, page, "Too much at once")
			status, _ = read(t, seller.do(http.MethodPost, "/contacts/new", fields("name", "x"), "Sec-Fetch-Site", "cross-site"))
			require.Equal(t, http.StatusForbidden, status)
		})

		t.Run("forged cookie", func(t *testing.T) {
			stranger := in.browser()
			at, err := url.Parse(in.web.URL)
			require.NoError(t, err)
			good := seller.http.Jar.Cookies(at)[0]
			for _, forged := range []string{"x", good.Value[:len(good.Value)-1] + "A", good.Value + "A", strings.Repeat("A", 5000)} {
				if forged == good.Value {
					forged = good.Value[:len(good.Value)-1] + "B"
				}
				stranger.http.Jar.SetCookies(at, []*http.Cookie{{Name: good.Name, Value: forged, Path: "/"}})
				status, page := stranger.get("/contacts")
				require.Equal(t, http.StatusUnauthorized, status)
				has(t, page, "Your session has ended")
			}
		})

		t.Run("forget", func(t *testing.T) {
			gone := in.idOf(3)
			status, _ := seller.post("/contacts/"+gone+"/forget", "reason", "client-request")
			require.Equal(t, http.StatusForbidden, status, "not a seller's to do")
			status, _ = owner.post("/contacts/"+gone+"/forget", "reason", "")
			require.Equal(t, http.StatusUnprocessableEntity, status)
			status, page := owner.post("/contacts/"+gone+"/forget", "reason", "client-request")
			require.Equal(t, http.StatusOK, status)
			has(t, page, "This is the receipt")
			has(t, page, "closing")
			_, page = owner.post("/contacts/search", "query", phoneOf(3))
			has(t, page, "Nothing found")
			_, page = seller.get("/contacts")
			has(t, page, "Erased client")
			status, _ = seller.post("/contacts/"+gone+"/reveal", "field", "phone", "reason", "call-client")
			require.Equal(t, http.StatusGone, status)
			status, _ = owner.get("/contacts/" + gone + "/edit")
			require.Equal(t, http.StatusGone, status)

			in.pass(2 * time.Minute)
			require.NoError(t, in.app.finishErasuresOnce(t.Context()))
			_, page = owner.get("/contacts/" + gone)
			has(t, page, "destroyed")
		})

		t.Run("journal", func(t *testing.T) {
			status, _ := seller.get("/journal")
			require.Equal(t, http.StatusForbidden, status)
			_, page := owner.get("/journal?record=" + mine)
			has(t, page, "reveal phone")
			has(t, page, "sealed: reason")
			hasNot(t, page, "Wafflewords")
			sealed := regexp.MustCompile(`(?s)sealed: reason.*?name="entry" value="(\d+)"`).FindStringSubmatch(page)
			require.NotNil(t, sealed)
			_, page = owner.post("/journal/open", "entry", sealed[1])
			has(t, page, "reason: Wafflewords of the reason")
			status, _ = in.signedIn("admin").post("/journal/open", "entry", sealed[1])
			require.Equal(t, http.StatusNotFound, status)
			status, _ = owner.post("/journal/open", "entry", "999999")
			require.Equal(t, http.StatusNotFound, status)
			_, page = owner.get("/journal?person=seller3")
			has(t, page, "No entries")
			_, page = owner.get("/journal?outcome=denied")
			has(t, page, foreign)
		})

		t.Run("closed person", func(t *testing.T) {
			status, _ := seller.post("/staff/owner/dismiss")
			require.Equal(t, http.StatusNotFound, status)
			admin := in.signedIn("admin")
			status, _ = admin.post("/staff/owner/dismiss")
			require.NotEqual(t, http.StatusOK, status, "an administrator does not close the owner")
			status, _ = owner.post("/staff/owner/dismiss")
			require.Equal(t, http.StatusConflict, status, "nor does the owner")
			victim := in.signedIn("seller5")
			status, _ = victim.get("/contacts")
			require.Equal(t, http.StatusOK, status)
			status, page := admin.post("/staff/seller5/dismiss")
			require.Equal(t, http.StatusOK, status)
			has(t, page, "seller5 is dismissed")
			status, _ = victim.get("/contacts")
			require.Equal(t, http.StatusUnauthorized, status, "the next request is refused")
			status, _ = in.browser().post("/sign-in", "login", "seller5", "password", in.password(), "code", "123456")
			require.Equal(t, http.StatusUnauthorized, status)
		})

		t.Run("verify", func(t *testing.T) {
			page := in.verified(owner)
			has(t, page, "Every entry is as it was written")

			var before []byte
			require.NoError(t, in.app.db.QueryRowContext(t.Context(), `SELECT record FROM crmguard_audit_entries WHERE seq = 17`).Scan(&before))
			flipped := bytes.Clone(before)
			flipped[40] ^= 1
			in.tamper(`UPDATE crmguard_audit_entries SET record = $1 WHERE seq = 17`, flipped)
			page = in.verified(owner)
			has(t, page, "Entry 17 was changed or damaged")

			in.tamper(`UPDATE crmguard_audit_entries SET record = $1 WHERE seq = 17`, before)
			page = in.verified(owner)
			has(t, page, "Every entry is as it was written")
		})

		t.Run("sign out", func(t *testing.T) {
			status, _ := seller.post("/sign-out")
			require.Equal(t, http.StatusOK, status)
			status, _ = seller.get("/contacts")
			require.Equal(t, http.StatusUnauthorized, status)
		})

		t.Run("on the disk", func(t *testing.T) { in.nothingInTheClear() })
	})
}
