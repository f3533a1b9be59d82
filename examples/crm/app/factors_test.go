package app

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/mfa"
)

const refusedSentence = "Login, password or code is wrong, or the account is closed."

var (
	shownCodes  = regexp.MustCompile(`<code>([A-Z2-7]{4}(?:-[A-Z2-7]{4}){5})</code>`)
	shownSecret = regexp.MustCompile(`<code class="secret">([A-Z2-7 ]+)</code>`)
	hiddenID    = regexp.MustCompile(`name="id" value="([A-Z2-7]{26})"`)
	hiddenBack  = regexp.MustCompile(`name="back" value="([^"]*)"`)
	appOfPage   = regexp.MustCompile(`/me/apps/([A-Z2-7]{26})/remove`)
)

// found returns what the pattern finds in a page.
func found(t *testing.T, page string, pattern *regexp.Regexp) string {
	t.Helper()
	match := pattern.FindStringSubmatch(page)
	require.NotNil(t, match, "the page %q lacks %s", heading(page), pattern)
	return match[1]
}

// recoveryCodes returns the ten codes of a page.
func recoveryCodes(t *testing.T, page string) []string {
	t.Helper()
	var codes []string
	for _, match := range shownCodes.FindAllStringSubmatch(page, -1) {
		codes = append(codes, match[1])
	}
	require.Len(t, codes, 10)
	return codes
}

// TestSignInWithCode: a password without a good code opens nothing, and the page
// does not say what was wrong.
func TestSignInWithCode(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		_, form := in.browser().get("/sign-in")
		has(t, form, `autocomplete="one-time-code"`)
		has(t, form, "crm code LOGIN")

		code := in.code("seller1")
		status, page := in.browser().post("/sign-in", "login", "seller1", "password", in.password(), "code", code[:3]+" "+code[3:])
		require.Equal(t, http.StatusOK, status)
		has(t, page, `<h1>Contacts`)

		var pages []string
		for name, try := range map[string][2]string{
			"no code": {in.password(), ""}, "a used code": {in.password(), code}, "a wrong password": {"wrong", in.code("seller1")}, "no recovery code": {in.password(), "ABCD-ABCD-ABCD-ABCD-ABCD-ABCD"},
		} {
			status, page := in.browser().post("/sign-in", "login", "seller1", "password", try[0], "code", try[1])
			require.Equal(t, http.StatusUnauthorized, status, name)
			has(t, page, refusedSentence)
			pages = append(pages, page)
		}
		for _, page := range pages {
			require.True(t, page == pages[0], "refusals look alike")
		}

		_, page = in.signedIn("owner").get("/journal?person=seller1&outcome=denied")
		for _, reason := range []string{"code-missing", "used-code", "wrong-code", "password"} {
			has(t, page, reason)
		}
		hasNot(t, page, code)
	})
}

// TestRecoveryCode: it lets in once, and neither reveals nor exports.
func TestRecoveryCode(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(1))
		answer := in.signedIn("seller1").do(http.MethodPost, "/me/recovery", nil)
		require.Equal(t, "no-store", answer.Header.Get("Cache-Control"))
		_, page := read(t, answer)
		has(t, page, `class="printable"`)
		codes := recoveryCodes(t, page)

		b := in.browser()
		status, page := b.post("/sign-in", "login", "seller1", "password", in.password(), "code", strings.ToLower(codes[3]))
		require.Equal(t, http.StatusOK, status)
		has(t, page, "You signed in with a recovery code")
		has(t, page, "9 left")
		status, page = in.browser().post("/sign-in", "login", "seller1", "password", in.password(), "code", codes[3])
		require.Equal(t, http.StatusUnauthorized, status, "once")
		has(t, page, refusedSentence)

		card := "/contacts/" + in.idOf(0)
		status, _ = b.get(card)
		require.Equal(t, http.StatusOK, status)
		status, page = b.post(card+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusUnauthorized, status)
		has(t, page, "Confirm that it is you")
		has(t, page, "Add an app on your new phone")
		status, _ = b.post("/confirm", "back", card, "code", codes[4])
		require.Equal(t, http.StatusUnauthorized, status, "a recovery code proves nothing anew")

		// With a new app the person is back, and can end what the old phone was.
		_, page = b.post("/me/apps")
		id, secret := found(t, page, hiddenID), found(t, page, shownSecret)
		status, page = b.post("/me/apps/confirm", "id", id, "code", in.codeOf(secret, 0))
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The app was added", "the recovery codes are still there, so that none are shown")
		status, _ = b.post("/confirm", "back", card, "code", in.codeOf(secret, 1))
		require.Equal(t, http.StatusOK, status)
		_, page = b.post(card+"/reveal", "field", "phone", "reason", "call-client")
		has(t, page, "+7 916 555-00-00")

		fresh := recoveryCodes(t, second(b.post("/me/recovery")))
		require.NotContains(t, fresh, codes[5])
		status, _ = in.browser().post("/sign-in", "login", "seller1", "password", in.password(), "code", codes[5])
		require.Equal(t, http.StatusUnauthorized, status, "replaced")
	})
}

func second(_ int, page string) string { return page }

// codeOf is what an app with this secret shows after so many steps.
func (in *installation) codeOf(secret string, steps int) string {
	in.t.Helper()
	code, err := totp.GenerateCode(strings.ReplaceAll(secret, " ", ""), in.app.now().Add(time.Duration(steps)*period))
	require.NoError(in.t, err)
	return code
}

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

// TestOwnApp: somebody new adds an app, gets recovery codes, and needs a code from
// then on.
func TestOwnApp(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(1))
		secretWord, err := in.app.AddAccount(t.Context(), NewAccount{Login: "anna", Role: "head", Unit: "sales"})
		require.NoError(t, err)
		b := in.browser()
		_, page := b.post("/sign-in", "login", "anna", "password", secretWord)
		has(t, page, "You have no authenticator app yet")
		_, page = b.post("/contacts/"+in.idOf(0)+"/reveal", "field", "phone", "reason", "call-client")
		has(t, page, "you have none yet")
		has(t, page, `href="/contacts/`+in.idOf(0)+`">Back`)
		_, page = b.get("/contacts/export")
		has(t, page, "you have none yet")
		has(t, page, `href="/contacts">Back`, "not to where it would be asked again")
		hasNot(t, page, `action="/confirm"`)
		status, _ := b.post("/confirm", "code", "123456")
		require.Equal(t, http.StatusForbidden, status)
		status, _ = b.post("/me/recovery")
		require.Equal(t, http.StatusConflict, status, "they would be the factor themselves")

		answer := b.do(http.MethodPost, "/me/apps", fields("password", secretWord))
		require.Contains(t, answer.Header.Get("Content-Security-Policy"), "img-src 'self' data:;")
		require.Equal(t, "no-store", answer.Header.Get("Cache-Control"))
		_, page = read(t, answer)
		id, secret := found(t, page, hiddenID), found(t, page, shownSecret)
		has(t, page, `src="data:image/png;base64,`)
		require.NotContains(t, b.do(http.MethodGet, "/me", nil).Header.Get("Content-Security-Policy"), "data:")
		status, page = b.post("/me/apps/confirm", "id", id, "code", "000000")
		require.Equal(t, http.StatusUnprocessableEntity, status)
		hasNot(t, page, secret)
		require.Equal(t, id, found(t, page, hiddenID))
		_, page = b.get("/me")
		has(t, page, "You have no authenticator app yet", "not before its code was shown")
		status, page = b.post("/me/apps/confirm", "id", id, "code", in.codeOf(secret, 0))
		require.Equal(t, http.StatusOK, status)
		codes := recoveryCodes(t, page)
		status, page = b.post("/me/apps/confirm", "id", id, "code", in.codeOf(secret, 1))
		require.Equal(t, http.StatusUnauthorized, status, "the page is not shown again")
		for _, code := range codes {
			hasNot(t, page, code)
		}

		status, _ = in.browser().post("/sign-in", "login", "anna", "password", secretWord)
		require.Equal(t, http.StatusUnauthorized, status, "the password is not enough any more")
		b = in.browser()
		status, _ = b.post("/sign-in", "login", "anna", "password", secretWord, "code", in.codeOf(secret, 1))
		require.Equal(t, http.StatusOK, status)
		_, page = b.post("/contacts/"+in.idOf(0)+"/reveal", "field", "phone", "reason", "call-client")
		has(t, page, "+7 916 555-00-00")

		_, page = b.get("/me")
		status, page = b.post("/me/apps/" + found(t, page, appOfPage) + "/remove")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The app was removed")
		status, _ = in.browser().post("/sign-in", "login", "anna", "password", secretWord, "code", codes[0])
		require.Equal(t, http.StatusOK, status, "without a factor no code is looked at")

		_, page = in.signedIn("owner").get("/journal?person=anna")
		for _, reason := range []string{"add-app", "confirm-app", "remove-app", "replace-recovery-codes"} {
			has(t, page, reason)
		}
	})
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

// TestDemoCode: two codes at once, also after a restart; then the next step is
// waited for.
func TestDemoCode(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := unstarted(t, on)
		var log bytes.Buffer
		in.cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		moment := time.Now().Truncate(period).Add(10 * time.Second) // steps do not end by themselves
		in.cfg.Clock = func() time.Time { return moment.Add(time.Duration(in.late.Load())) }
		in.start()
		waited := time.Duration(0)
		ask := func() string {
			code, err := in.app.DemoCode(t.Context(), "seller1", func(wait time.Duration) { waited = wait; in.late.Add(int64(wait)) })
			require.NoError(t, err)
			return code
		}
		first := ask()
		require.Equal(t, first, ask(), "it was not used yet")
		in.enter("seller1")
		in.stop()
		in.start()
		require.NotEqual(t, first, ask())
		in.enter("seller1")
		require.Zero(t, waited)
		in.enter("seller1") // in.code moves the clock
		ask()
		require.Equal(t, 30*time.Second, waited)

		_, secret, err := in.app.demoApp(t.Context(), "seller1")
		require.NoError(t, err)
		require.Len(t, secret, 32)
		for _, path := range []string{"/me", "/contacts"} {
			_, page := in.signedIn("seller1").get(path)
			hasNot(t, page, secret)
		}
		_, page := in.signedIn("owner").get("/journal")
		hasNot(t, page, secret)
		require.NotContains(t, log.String(), secret)
		require.Empty(t, leaks(t, in.cfg, [][]byte{[]byte(secret)}))

		in.late.Add(-int64(time.Hour))
		_, err = in.app.DemoCode(t.Context(), "seller1", nil)
		require.ErrorContains(t, err, "set the clock right")
		in.late.Add(int64(time.Hour))
	})
}

// TestDemoCodeRefusals: codes of demo accounts only, and only where nobody else can
// reach them.
func TestDemoCodeRefusals(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, nil)
	ctx := t.Context()
	_, err := in.app.AddAccount(ctx, NewAccount{Login: "anna", Role: "owner"})
	require.NoError(t, err)
	refused := func(login, says string) {
		t.Helper()
		_, err := in.app.DemoCode(ctx, login, nil)
		require.ErrorContains(t, err, says)
	}
	refused("nobody", `there is no account "nobody"`)
	refused("integration", "is a program")
	refused("anna", "has no app yet")
	enrolment, err := in.app.factors.Enrol(ctx, tenant, "anna", "anna")
	require.NoError(t, err)
	require.NoError(t, in.app.factors.Confirm(ctx, tenant, "anna", enrolment.ID, in.codeOf(enrolment.Secret(), 0)))
	refused("anna", "has an app of their own")
	in.signedIn("owner").post("/staff/seller5/dismiss")
	refused("seller5", "no demo app any more")

	// A row copied from another account opens nothing.
	_, err = in.app.db.ExecContext(ctx, `UPDATE accounts SET demo_app = (SELECT demo_app FROM accounts WHERE id = 'owner') WHERE id = 'seller1'`)
	require.NoError(t, err)
	refused("seller1", "open the demo app")

	in.stop()
	in.cfg.Loopback = false
	in.start()
	for _, login := range []string{"owner", "anna", "nobody"} {
		refused(login, "demo accounts are closed")
	}
}
