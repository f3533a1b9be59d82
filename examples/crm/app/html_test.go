package app

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/crmguard/crmguard"
)

// htmlFaults checks what browsers forgive and people with screen readers do not:
// balanced tags, unique ids, a label for each field, one heading, and nothing
// inline or from elsewhere that the content security policy would block.
func htmlFaults(page string) []string {
	var faults []string
	fault := func(what string) { faults = append(faults, what) }
	void := map[string]bool{"meta": true, "link": true, "input": true, "br": true, "img": true, "path": true}
	ids, labels, inputs := map[string]int{}, map[string]bool{}, []string{}
	headings := 0
	var open []string
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			if !errors.Is(z.Err(), io.EOF) {
				fault(z.Err().Error())
			}
			break
		}
		token := z.Token()
		attr := map[string]string{}
		for _, a := range token.Attr {
			if _, twice := attr[a.Key]; twice {
				fault("attribute " + a.Key + " twice on " + token.Data)
			}
			attr[a.Key] = a.Val
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
				fault("inline " + a.Key)
			}
			if token.Data == "img" && strings.HasPrefix(a.Val, "data:image/png;base64,") {
				continue // a secret that lies at no address
			}
			if (a.Key == "href" || a.Key == "src" || a.Key == "action") && !strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "#") {
				fault("leaves the machine: " + a.Val)
			}
		}
		switch kind {
		case html.StartTagToken:
			if !void[token.Data] {
				open = append(open, token.Data)
			}
			if id := attr["id"]; id != "" {
				ids[id]++
			}
			switch token.Data {
			case "h1":
				headings++
			case "label":
				labels[attr["for"]] = true
			case "input", "select", "textarea":
				if attr["type"] != "hidden" {
					inputs = append(inputs, attr["id"])
				}
			case "style":
				fault("inline style")
			case "script":
				if attr["src"] == "" {
					fault("inline script")
				}
			case "form":
				if attr["method"] == "get" && attr["action"] != "/journal" {
					fault("a form that puts values into the address")
				}
			}
		case html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				fault("</" + token.Data + "> closes nothing")
				continue
			}
			open = open[:len(open)-1]
		case html.DoctypeToken, html.TextToken, html.CommentToken, html.SelfClosingTagToken, html.ErrorToken:
		}
	}
	for _, tag := range open {
		fault("<" + tag + "> is not closed")
	}
	for id, n := range ids {
		if n > 1 {
			fault("id " + id + " twice")
		}
	}
	for _, id := range inputs {
		if id == "" || !labels[id] {
			fault("a field without a label: " + id)
		}
	}
	if headings != 1 {
		fault("not one h1")
	}
	return faults
}

func TestHTMLFaultsAreNoticed(t *testing.T) {
	require.Empty(t, htmlFaults(`<h1>x</h1><label for="a">A</label><input id="a">`))
	for _, page := range []string{
		`<h1>x</h1><p>`, `<h1>x</h1></p>`, `<h1>x</h1><p id="a"></p><p id="a"></p>`, `<h1>x</h1><input id="a">`,
		`<h1>x</h1><script>1</script>`, `<h1>x</h1><p onclick="1"></p>`, `<h1>x</h1><a href="https://example.org">x</a>`, `<p></p>`,
	} {
		require.NotEmpty(t, htmlFaults(page), page)
	}
}

// TestPagesAreValid draws every page there is.
func TestPagesAreValid(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(60))
		owner, seller, nobody := in.signedIn("owner"), in.signedIn("seller1"), in.browser()
		mine := in.idOf(0)
		drawn := map[string]bool{}
		valid := func(name string, status int, answer *http.Response) {
			t.Helper()
			body, err := io.ReadAll(answer.Body)
			require.NoError(t, err)
			require.Equal(t, status, answer.StatusCode, name)
			require.Empty(t, htmlFaults(string(body)), name)
			drawn[name] = true
		}
		check := func(name string, status int, b *browser, method, path string, form ...string) {
			t.Helper()
			valid(name, status, b.do(method, path, fields(form...)))
		}
		check("sign in", 200, nobody, "GET", "/sign-in")
		check("sign in, wrong", 401, nobody, "POST", "/sign-in", "login", "<b>", "password", "x")
		check("not signed in", 401, nobody, "GET", "/contacts")
		check("list", 200, seller, "GET", "/contacts")
		check("list, second page", 200, owner, "GET", "/contacts?before=20")
		check("list, no such page", 400, owner, "GET", "/contacts?before=x")
		check("list, empty", 200, in.signedIn("head2"), "GET", "/contacts?before=1")
		check("search", 200, seller, "POST", "/contacts/search", "query", phoneOf(0))
		check("search, nothing", 200, seller, "POST", "/contacts/search", "query", "nobody@example.org")
		check("search, more", 200, owner, "POST", "/contacts/search", "query", "quillfeather")
		check("search, nothing more", 200, owner, "GET", owner.searchFor("/contacts/search", "query", "quillfeather")+"&after=other-1")
		bounds := in.app.searches
		in.app.searches.rows = 1
		check("search, looked at", 200, owner, "POST", "/contacts/search", "query", "quillfeather")
		in.app.searches = bounds
		check("search, ended", 410, seller, "GET", "/contacts/search?q=x")
		check("search, empty", 422, seller, "POST", "/contacts/search", "query", "")
		check("card", 200, seller, "GET", "/contacts/"+mine)
		check("card, owner", 200, owner, "GET", "/contacts/"+mine+"?saved")
		check("revealed", 200, seller, "POST", "/contacts/"+mine+"/reveal", "field", "email", "reason", "call-client")
		check("no reason", 422, seller, "POST", "/contacts/"+mine+"/reveal", "field", "email")
		check("edit", 200, seller, "GET", "/contacts/"+mine+"/edit")
		check("edit, wrong", 422, seller, "POST", "/contacts/"+mine+"/edit", "version", "1", "name", "", "phone", "<x>", "email", "x", "country", "??", "owner", "head")
		check("edit, conflict", 409, seller, "POST", "/contacts/"+mine+"/edit", "version", "7", "name", "X", "country", "RU", "owner", "seller1")
		check("add", 200, seller, "GET", "/contacts/new")
		valid("attachments", 200, seller.sent("/contacts/"+mine+"/attachments", "file", "<b>.txt", strings.NewReader("x")))
		valid("attachment, no file", 422, seller.sent("/contacts/"+mine+"/attachments", "file", "", strings.NewReader("x")))
		check("attachments, masked", 200, in.signedIn("admin"), "GET", "/contacts/"+mine)
		check("forget", 200, owner, "GET", "/contacts/"+mine+"/forget")
		check("forgotten", 200, owner, "POST", "/contacts/"+mine+"/forget", "reason", "authority")
		check("receipts", 200, owner, "GET", "/receipts")
		valid("receipt, genuine", 200, owner.sent("/receipts/check", "receipt", "r.json", bytes.NewReader(owner.receiptOf(mine))))
		valid("receipt, changed", 200, owner.sent("/receipts/check", "receipt", "r.json", strings.NewReader("<b>")))
		valid("receipt, none", 422, owner.sent("/receipts/check", "receipt", "", strings.NewReader("")))
		check("keys", 200, owner, "GET", "/keys")
		check("keys, turning", 200, owner, "POST", "/keys/turn")
		check("keys, busy", 409, owner, "POST", "/keys/reencrypt")
		in.ended(turnJob)
		check("keys, turned", 200, owner, "GET", "/keys/live")
		check("list with an erased row", 200, seller, "GET", "/contacts")
		check("erased", 410, seller, "GET", "/contacts/"+mine+"/edit")
		check("journal", 200, owner, "GET", "/journal")
		check("journal, person", 200, owner, "GET", "/journal?person=seller1&outcome=done")
		check("journal, nothing", 200, owner, "GET", "/journal?record=none")
		check("verification, none", 200, owner, "GET", "/journal/verification")
		check("verification, begun", 200, owner, "POST", "/journal/verify")
		in.verified(owner)
		check("verification", 200, owner, "GET", "/journal/verification")
		check("journal, found", 200, owner, "POST", "/journal/find", "value", phoneOf(0))
		check("journal, not found", 422, owner, "POST", "/journal/find", "value", "<b>")
		check("journal, live", 200, owner, "GET", "/journal?live")
		check("journal, reloaded", 200, owner, "GET", "/journal/live?person=seller1")
		check("entry", 200, owner, "GET", "/journal/entries/5")
		check("journal, opened", 200, owner, "POST", "/journal/open", "entry", "5")
		check("rights", 200, owner, "GET", "/rights?saved")
		check("rights of a role", 200, owner, "GET", "/rights/role:head")
		check("rights of a role, to look at", 200, in.signedIn("admin"), "GET", "/rights/role:head")
		check("what if, nothing", 200, owner, "GET", "/rights/draft")
		check("what if, wrong", 422, owner, "POST", "/rights/draft", "rows", "<b>")
		check("what if, refused", 200, owner, "POST", "/rights/draft", "rows", "+ p, u:ghost, default, <b>, view, own, allow")
		check("what if", 200, owner, "POST", "/rights/draft", "rows", phonesOfHeads)
		check("what if, older", 409, owner, "POST", "/rights/draft/save", "version", "1")
		check("history of rights", 200, owner, "GET", "/rights/history")
		check("forbidden", 403, seller, "GET", "/staff")
		check("why", 200, owner, "GET", whyPath(in.refusal("seller1")))
		check("leaver", 200, owner, "GET", "/staff/seller3/leaver")
		check("staff", 200, owner, "GET", "/staff")
		check("closed", 200, owner, "POST", "/staff/seller3/dismiss")
		check("handover", 200, owner, "POST", "/staff/seller3/handover", "heir", "seller4")
		in.handedOver("seller3")
		check("handed over", 200, owner, "GET", "/staff/seller3/leaver")
		check("own page", 200, seller, "GET", "/me?done=removed")
		check("deputies", 200, seller, "GET", "/deputies/seller1")
		check("deputy, wrong", 422, seller, "POST", "/deputies/seller1/set", "deputy", "<b>", "from", "<b>", "to", "<b>")
		check("deputy", 200, seller, "POST", "/deputies/seller1/set", "deputy", "seller2", "from", in.day(0), "to", in.day(0))
		check("recovery codes", 200, seller, "POST", "/me/recovery")
		check("add an app", 200, seller, "POST", "/me/apps")
		enrolment, err := in.app.factors.Enrol(t.Context(), tenant, "seller1", "seller1")
		require.NoError(t, err)
		check("add an app, wrong code", 422, seller, "POST", "/me/apps/confirm", "id", enrolment.ID, "code", "x")
		check("confirm", 401, in.session("seller1", crmguard.AssurancePassword, 0), "POST", "/me/apps")
		check("confirm, recovered", 401, in.session("seller1", crmguard.AssuranceRecovered, time.Hour), "POST", "/me/recovery")
		check("confirm, wrong code", 401, seller, "POST", "/confirm", "code", "<b>", "back", "/me")
		_, err = in.app.factors.Revoke(t.Context(), tenant, "seller2")
		require.NoError(t, err)
		check("own page without an app", 200, in.session("seller2", crmguard.AssurancePassword, 0), "GET", "/me")
		check("confirm without an app", 403, in.session("seller2", crmguard.AssurancePassword, 0), "POST", "/confirm", "code", "1")
		check("sign in again", 401, in.session("seller2", crmguard.AssurancePassword, time.Hour), "POST", "/me/apps")
		check("wrong password", 422, in.session("seller2", crmguard.AssurancePassword, 0), "POST", "/me/apps", "password", "<b>")
		check("alerts, none", 200, owner, "GET", "/alerts")
		check("settings", 200, owner, "GET", "/settings")
		check("settings, admin", 200, in.signedIn("admin"), "GET", "/settings")
		check("settings, wrong norms", 422, owner, "POST", "/settings/norms", normFields("0", "zone", "<b>")...)
		check("settings, wrong addresses", 422, owner, "POST", "/settings/addresses", owner.addressFields("allow-company", "<b>", "person", "<b>")...)
		check("settings, locked out", 409, owner, "POST", "/settings/addresses", owner.addressFields("allow-company", "203.0.113.7")...)
		check("settings, older form", 409, owner, "POST", "/settings/addresses", "version", "7", "allow-company", "<b>")
		check("settings, half a form", 400, owner, "POST", "/settings/addresses", "version", "0")
		check("settings, explained", 200, owner, "POST", "/settings/addresses/explain", "login", "seller1", "addr", "203.0.113.7")
		check("lockdown", 200, owner, "GET", "/lockdown")
		check("export", 200, owner, "GET", "/contacts/export")
		check("export, wrong", 422, owner, "POST", "/contacts/export", "key", "<b>", "passphrase", "<b>", "more", "<b>")
		check("exchange, no calls", 200, owner, "GET", "/exchange")
		check("called", 200, owner, "POST", "/contacts/"+in.idOf(3)+"/call", "once", rand.Text())
		check("exchange", 200, owner, "GET", "/exchange")
		check("settings, lower norm", 200, owner, "POST", "/settings/norms", normFields("0", "soft-0", "", "hard-0", "1")...)
		check("norm", 429, seller, "GET", "/contacts/"+in.idOf(6))
		check("alerts", 200, owner, "GET", "/alerts")
		check("not found", 404, seller, "GET", "/nothing")
		require.Equal(t, 98, len(drawn))
		require.Len(t, in.app.pages.templates, 30, "a new template needs a page here")
	})
}
