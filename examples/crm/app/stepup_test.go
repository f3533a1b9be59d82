package app

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/mfa"
)

var (
	hiddenAct  = regexp.MustCompile(`name="act" value="([^"]*)"`)
	hiddenKept = regexp.MustCompile(`name="(kept\.[^"]*)" value="([^"]*)"`)
)

// TestStepUp: an old session opens a card, but reveals only after a fresh code;
// whoever had copied its token is left behind.
func TestStepUp(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		b := in.session("seller1", crmguard.AssuranceSecondFactor, 31*time.Minute)
		card := "/contacts/" + in.idOf(0)
		thief := in.browser()
		thief.bring(b.token())

		status, page := b.get(card)
		require.Equal(t, http.StatusOK, status)
		has(t, page, "Reveal phone", "the button stays")
		status, page = b.post(card+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusUnauthorized, status)
		has(t, page, "Confirm that it is you")
		has(t, page, "crm code seller1")
		hasNot(t, page, "555-00-00")
		require.Equal(t, card, found(t, page, hiddenBack))
		status, page = b.post("/contacts/"+in.idOf(1)+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusNotFound, status, "nobody is asked for a code in vain")
		hasNot(t, page, "Confirm")
		answer := b.do(http.MethodPost, card+"/reveal", fields("field", "phone", "reason", "call-client"), "Accept", "application/json")
		_, body := read(t, answer)
		has(t, body, `"code":"step-up"`, "for programs")
		has(t, body, `"need":"second-factor"`)

		code := in.code("seller1")
		for _, wrong := range []string{"", "12345", "abcdef"} {
			status, page = b.post("/confirm", "back", card, "code", wrong)
			require.Equal(t, http.StatusUnauthorized, status)
			has(t, page, "That code was not accepted")
			require.Equal(t, card, found(t, page, hiddenBack))
		}
		status, _ = thief.get(card)
		require.Equal(t, http.StatusOK, status, "a wrong code changes nothing")

		old := b.token()
		status, page = b.post("/confirm", "back", card, "code", code)
		require.Equal(t, http.StatusOK, status)
		has(t, page, "Reveal phone", "back on the card")
		require.NotEqual(t, old, b.token())
		status, _ = thief.get(card)
		require.Equal(t, http.StatusUnauthorized, status, "the old token is dead")
		status, page = b.post(card+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "+7 916 555-00-00")

		status, _ = b.post("/confirm", "back", card, "code", code)
		require.Equal(t, http.StatusUnauthorized, status, "once")
		for try := 0; status == http.StatusUnauthorized && try < 10; try++ {
			answer = b.do(http.MethodPost, "/confirm", fields("back", card, "code", "12345"))
			status, page = read(t, answer)
		}
		require.Equal(t, http.StatusTooManyRequests, status, "whoever guesses waits")
		has(t, page, "Too many codes were not accepted")
		require.Equal(t, card, found(t, page, hiddenBack))
		require.NotEmpty(t, answer.Header.Get("Retry-After"))
		in.late.Add(int64(29 * time.Minute))
		status, _ = b.get(card)
		require.Equal(t, http.StatusOK, status)
		in.late.Add(int64(2 * time.Minute))
		status, _ = b.post(card+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusUnauthorized, status, "however busy the session was")

		status, page = in.browser().post("/confirm", "code", code)
		require.Equal(t, http.StatusUnauthorized, status)
		has(t, page, "<h1>Sign in")
		status, _ = read(t, b.do(http.MethodPost, "/confirm", fields("code", in.code("seller1")), "Sec-Fetch-Site", "cross-site"))
		require.Equal(t, http.StatusForbidden, status)

		_, page = in.signedIn("owner").get("/journal?person=seller1")
		has(t, page, "step-up:used-code")
		has(t, page, "mfa:step-up")
	})
}

// TestTypedIsKept: who is asked for a code sends afterwards what they had typed, by a press
// of a button, and neither secrets nor other addresses travel that way.
func TestTypedIsKept(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, sample(3))
	b := in.session("head", crmguard.AssuranceSecondFactor, time.Hour)
	card := "/contacts/" + in.idOf(0)
	_, page := b.post(card+"/reveal", "field", "phone", "reason", "other", "more", "she asked <why> & when")
	has(t, page, "What you typed is kept")
	require.Equal(t, card+"/reveal", found(t, page, hiddenAct))
	kept := []string{"back", card, "act", card + "/reveal"}
	for _, field := range hiddenKept.FindAllStringSubmatch(page, -1) {
		kept = append(kept, field[1], field[2])
	}
	require.Equal(t, []string{"kept.field", "phone", "kept.more", "she asked <why> & when", "kept.reason", "other"}, kept[4:])

	status, again := b.post("/confirm", append(kept, "code", "12345")...)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Len(t, hiddenKept.FindAllString(again, -1), 3, "a wrong code loses nothing")
	status, page = b.post("/confirm", append(kept, "code", in.code("head"))...)
	require.Equal(t, http.StatusOK, status)
	has(t, page, "Nothing was done yet")
	hasNot(t, page, "+7 916 555-00-00")
	has(t, page, `action="`+card+`/reveal"`)
	for _, field := range []string{`name="field" value="phone"`, `name="reason" value="other"`, `name="more" value="she asked <why> & when"`} {
		has(t, page, field)
	}
	status, page = b.post(card+"/reveal", "field", "phone", "reason", "other", "more", "she asked <why> & when")
	require.Equal(t, http.StatusOK, status)
	has(t, page, "+7 916 555-00-00")

	for _, act := range []string{"", "//evil.example/confirm", "https://evil.example", "/sign-out", "/sign-in", "/confirm", "/contacts", "/nothing", "%", "/contacts/../sign-out"} {
		r := httptest.NewRequest(http.MethodPost, "/confirm", strings.NewReader(url.Values{"act": {act}, "kept.a": {"b"}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		require.NoError(t, readForm(r))
		require.Equal(t, new(confirmPage), in.app.kept(r), act)
	}
	in.late.Add(int64(6 * time.Minute))
	for _, secret := range [][]string{{"passphrase", "three quiet green trains", "again", "three quiet green trains"}, {"key", "AGE-SECRET-KEY-1QQQ"}} {
		_, page = b.post("/contacts/export", append(secret, "reason", "report")...)
		hasNot(t, page, secret[1])
	}
	_, page = b.post("/contacts/export", "passphrase", "three quiet green trains", "again", "three quiet green trains", "reason", "report")
	has(t, page, "Confirm that it is you")
	require.False(t, hiddenAct.MatchString(page), "typed again")
}

// TestBack: after a code people come back to a page of this CRM, and to nothing
// else, whatever the form says.
func TestBack(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, nil)
	for named, want := range map[string]string{
		"/contacts": "/contacts", "/contacts/abc": "/contacts/abc", "/journal": "/journal", "/me": "/me", "/contacts/a b": "/contacts/a%20b", "/contacts/a%2Fb": home,
		"/contacts?before=3": "/contacts", "/": "/", "/contacts#x": "/contacts",
		"": home, "contacts": home, "//evil.example": home, "///evil.example": home, "/\\evil.example": home, "\\\\evil.example": home,
		"https://evil.example": home, "https:/evil.example": home, "https:evil.example": home, "javascript:alert(1)": home, "//evil.example/contacts": home,
		"/contacts/../../evil": home, "/./contacts": home, "/contacts//": home, "/%2F/evil.example": home, "/%5Cevil.example": home, "/\tevil.example": home,
		"/contacts/\r\nSet-Cookie:x": home, "/sign-out": home, "/nothing": home, "/static/app.js": home, "http://user@evil.example/contacts": home, "%": home,
	} {
		require.Equal(t, want, in.app.localPage(named), "%q", named)
	}
	for asked, want := range map[string]string{
		"/contacts/abc/reveal": "/contacts/abc", "/journal/open": "/journal", "/staff/anna/role": "/staff", "/me/apps": "/me", "/me/apps/x/remove": "/me",
		"/contacts/export": "/contacts/export", "/lockdown/reopen": "/lockdown", "/confirm": home, "//evil.example": home, "/contacts/%2e%2e": home, "": home,
	} {
		require.Equal(t, want, in.app.pageNear(http.MethodPost, asked), "%q", asked)
	}
	require.Equal(t, "/contacts/abc", in.app.pageNear(http.MethodGet, "/contacts/abc"))

	b := in.session("seller1", crmguard.AssuranceSecondFactor, time.Hour)
	b.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer := b.do(http.MethodPost, "/confirm", fields("code", in.code("seller1"), "back", "//evil.example/contacts"))
	require.Equal(t, http.StatusSeeOther, answer.StatusCode)
	require.Equal(t, home, answer.Header.Get("Location"))
}

// TestStolenSession: a session that was left open, or whose token was stolen, is not
// enough to bring an app of one's own.
func TestStolenSession(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, nil)
	_, err := in.app.AddAccount(t.Context(), NewAccount{Login: "anna", Role: "head", Unit: "sales"})
	require.NoError(t, err)
	_, page := in.signedIn("seller1").get("/me")
	app := found(t, page, appOfPage)
	for _, test := range []struct {
		login  string
		proved crmguard.Assurance
		ago    time.Duration
		status int
		says   string
	}{
		{"seller1", crmguard.AssuranceSecondFactor, 9 * time.Minute, http.StatusOK, "Add an app"},
		{"seller1", crmguard.AssuranceSecondFactor, 11 * time.Minute, http.StatusUnauthorized, "fresh code"},
		{"seller1", crmguard.AssurancePassword, 0, http.StatusUnauthorized, "fresh code"},
		{"seller1", crmguard.AssuranceRecovered, 9 * time.Minute, http.StatusOK, "Add an app"},
		{"seller1", crmguard.AssuranceRecovered, 11 * time.Minute, http.StatusUnauthorized, "fresh code"},
		{"anna", crmguard.AssurancePassword, 9 * time.Minute, http.StatusUnprocessableEntity, "This is not your password"},
		{"anna", crmguard.AssurancePassword, 11 * time.Minute, http.StatusUnauthorized, "sign in again"},
	} {
		b := in.session(test.login, test.proved, test.ago)
		status, page := b.post("/me/apps")
		require.Equal(t, test.status, status, "%+v", test)
		has(t, page, test.says, test)
		if status != http.StatusUnauthorized {
			continue
		}
		removal := "/me/apps/" + app + "/remove"
		for _, path := range []string{"/me/recovery", "/me/apps/confirm", removal} {
			status, page = b.post(path, "id", app, "code", "123456")
			if path == removal && test.login != "seller1" {
				require.Equal(t, http.StatusNotFound, status, "somebody else's")
				continue
			}
			require.Equal(t, http.StatusUnauthorized, status, path)
			require.NotRegexp(t, shownCodes, page)
		}
		status, _ = b.get("/me")
		require.Equal(t, http.StatusOK, status, "looking is free")
	}
	status, _ := in.browser().post("/me/apps")
	require.Equal(t, http.StatusUnauthorized, status)

	// What is somebody else's is out of reach.
	other := in.signedIn("seller2")
	_, _ = other.post("/me/apps/" + app + "/remove")
	open, err := in.app.sessions.List(t.Context(), tenant, "seller1")
	require.NoError(t, err)
	status, _ = other.post("/me/sessions/" + open[0].ID + "/end")
	require.Equal(t, http.StatusNotFound, status)
	_, page = in.signedIn("seller1").get("/me")
	require.Equal(t, app, found(t, page, appOfPage))
	left, err := in.app.sessions.List(t.Context(), tenant, "seller1")
	require.NoError(t, err)
	require.Len(t, left, len(open)+1)

	// One's own can be ended from anywhere.
	lost := in.signedIn("seller1")
	all, err := in.app.sessions.List(t.Context(), tenant, "seller1")
	require.NoError(t, err)
	_, page = in.signedIn("seller1").post("/me/sessions/" + all[len(all)-1].ID + "/end")
	has(t, page, "The session was ended")
	status, _ = lost.get("/contacts")
	require.Equal(t, http.StatusUnauthorized, status)
}

// TestFreshness: the rules alone would let a session in that began with the password
// before there was an app; that is what the check besides them is for.
func TestFreshness(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, nil)
	rules, err := mfa.NewStepUp(proofs, &mfa.Options{Clock: in.cfg.Clock})
	require.NoError(t, err)
	s := crmguard.Subject{Tenant: tenant, ID: "seller1", Kind: employee, Assurance: crmguard.AssurancePassword, AuthenticatedAt: in.app.now()}
	own := crmguard.Resource{Tenant: tenant, Kind: factorsKind, Owner: s.ID}
	require.NoError(t, rules.Check(t.Context(), s, crmguard.Configure, own))
	denial, _ := errors.AsType[*crmguard.Denial](freshness{rules, in.app.factors}.Check(t.Context(), s, crmguard.Configure, own))
	require.NotNil(t, denial)
	require.Equal(t, crmguard.StepUp, denial.Status)
	require.Equal(t, crmguard.AssuranceSecondFactor, denial.Need)

	// Whether there is an app cannot be said of rows that somebody else wrote.
	_, err = in.app.db.ExecContext(t.Context(), `DELETE FROM crmguard_mfa_factors WHERE person = 'seller1'`)
	require.NoError(t, err)
	err = freshness{rules, in.app.factors}.Check(t.Context(), s, crmguard.Configure, own)
	require.ErrorIs(t, err, mfa.ErrState)
	status, _ := in.session("seller1", crmguard.AssurancePassword, 0).post("/me/apps")
	require.Equal(t, http.StatusServiceUnavailable, status)
	status, page := in.browser().post("/sign-in", "login", "seller1", "password", in.password())
	require.Equal(t, http.StatusInternalServerError, status, "nor is the password enough then")
	hasNot(t, page, "Sign out")
}
