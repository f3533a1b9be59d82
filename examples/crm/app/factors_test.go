package app

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"
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
