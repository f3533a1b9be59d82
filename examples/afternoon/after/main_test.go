package main

import (
	"database/sql"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// browser keeps one session.
type browser struct {
	t       *testing.T
	handler http.Handler
	cookie  *http.Cookie
}

func (b *browser) do(method, path string, form ...string) (int, string) {
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	r := httptest.NewRequest(method, path, strings.NewReader(values.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.RemoteAddr = "127.0.0.1:1"
	if b.cookie != nil {
		r.AddCookie(b.cookie)
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	for _, cookie := range w.Result().Cookies() {
		b.cookie = cookie
	}
	return w.Code, w.Body.String()
}

// TestAfternoon walks through the guide: the data of the CRM before, and what
// holds after.
func TestAfternoon(t *testing.T) {
	data, keys := t.TempDir(), filepath.Join(t.TempDir(), "keys")
	before, err := sql.Open("sqlite", "file:"+filepath.Join(data, "crm.db"))
	require.NoError(t, err)
	_, err = before.Exec(`CREATE TABLE contacts (id TEXT PRIMARY KEY, owner TEXT, name TEXT, phone TEXT)`)
	require.NoError(t, err)
	for i := range 60 {
		_, err := before.Exec(`INSERT INTO contacts VALUES ($1, 'anna', 'Quill Feather', $2)`, "c"+string(rune('A'+i/26))+string(rune('a'+i%26)), "+7 916 555-01-"+time.Unix(int64(i), 0).UTC().Format("05"))
		require.NoError(t, err)
	}
	_, err = before.Exec(`INSERT INTO contacts VALUES ('of-boris', 'boris', 'Somebody Else', '+7 916 555-99-99')`)
	require.NoError(t, err)
	require.NoError(t, before.Close())

	command := func(args ...string) error {
		return run(t.Context(), append([]string{data, keys}, args...), strings.NewReader("three quiet green trains\n"))
	}
	require.NoError(t, command("install"))
	require.NoError(t, command("hire", "anna"))
	require.NoError(t, command("hire", "olga"))
	require.ErrorContains(t, command("fire"), "usage")
	require.ErrorContains(t, command("install"), "installed already")
	require.ErrorContains(t, command("hire", "anna"), "taken")
	require.Error(t, run(t.Context(), []string{data, keys + "-empty"}, nil), "keys are made by the installation only")
	c, err := open(t.Context(), data, keys, false)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.close()) }()

	files, err := os.ReadDir(data)
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(data, file.Name()))
		require.NoError(t, err)
		require.NotContains(t, string(content), "916 555", file.Name())
	}

	stranger := &browser{t: t, handler: c.handler}
	status, _ := stranger.do("GET", "/contacts/cAa")
	require.Equal(t, http.StatusUnauthorized, status)

	anna := &browser{t: t, handler: c.handler}
	status, _ = anna.do("POST", "/sign-in", "login", "anna", "password", "three quiet green trains")
	require.Equal(t, http.StatusOK, status)
	status, page := anna.do("GET", "/contacts/cAa")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, "Quill Feather")
	require.NotContains(t, page, "916 555", "masked")
	status, _ = anna.do("GET", "/contacts/of-boris")
	require.Equal(t, http.StatusNotFound, status)

	// A password alone reveals nothing.
	status, page = anna.do("POST", "/contacts/cAa/phone")
	require.Equal(t, http.StatusUnauthorized, status)
	require.Contains(t, page, "step-up")
	started := time.Now()
	enrol := func(b *browser) (code func(step time.Duration) string) {
		status, page := b.do("POST", "/me/app")
		require.Equal(t, http.StatusOK, status, page)
		var app struct{ ID, URI string }
		require.NoError(t, json.Unmarshal([]byte(page), &app))
		key, err := otp.NewKeyFromURL(app.URI)
		require.NoError(t, err)
		code = func(step time.Duration) string { // the app's clock may be half a minute ahead
			text, err := totp.GenerateCode(key.Secret(), started.Add(step*30*time.Second))
			require.NoError(t, err)
			return text
		}
		status, _ = b.do("POST", "/me/app/"+app.ID+"/confirm", "code", code(0))
		require.Equal(t, http.StatusOK, status)
		return code
	}
	code := enrol(anna)
	status, _ = anna.do("POST", "/me/app")
	require.Equal(t, http.StatusUnauthorized, status, "a second app wants a code of the first")
	status, _ = anna.do("POST", "/sign-in", "login", "anna", "password", "three quiet green trains")
	require.Equal(t, http.StatusUnauthorized, status, "now a code is wanted")
	status, _ = anna.do("POST", "/sign-in", "login", "anna", "password", "three quiet green trains", "code", code(1))
	require.Equal(t, http.StatusOK, status)
	status, page = anna.do("POST", "/contacts/cAa/phone")
	require.Equal(t, http.StatusOK, status, page)
	require.Contains(t, page, "+7 916 555-01-00")

	// Fifty cards a day.
	opened := 0
	for i := range 60 {
		if status, _ := anna.do("GET", "/contacts/c"+string(rune('A'+i/26))+string(rune('a'+i%26))); status == http.StatusOK {
			opened++
		} else {
			require.Equal(t, http.StatusTooManyRequests, status)
		}
	}
	require.Equal(t, 50, opened)

	// The switch, and the end of a person.
	olga := &browser{t: t, handler: c.handler}
	status, _ = olga.do("POST", "/sign-in", "login", "olga", "password", "three quiet green trains")
	require.Equal(t, http.StatusOK, status)
	olgasCode := enrol(olga)
	status, _ = olga.do("POST", "/staff/nobody/dismiss")
	require.Equal(t, http.StatusNotFound, status)
	status, _ = olga.do("POST", "/lockdown")
	require.Equal(t, http.StatusOK, status)
	status, _ = anna.do("GET", "/contacts/cAa")
	require.Equal(t, http.StatusServiceUnavailable, status)
	status, page = olga.do("POST", "/staff/anna/dismiss")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, "factors")
	status, _ = olga.do("POST", "/reopen")
	require.Equal(t, http.StatusUnauthorized, status, "not without a fresh code")
	status, _ = olga.do("POST", "/confirm", "code", olgasCode(1))
	require.Equal(t, http.StatusOK, status)
	status, _ = olga.do("POST", "/reopen")
	require.Equal(t, http.StatusOK, status)
	status, _ = anna.do("GET", "/contacts/cAa")
	require.Equal(t, http.StatusUnauthorized, status)
	status, _ = olga.do("POST", "/sign-out")
	require.Equal(t, http.StatusOK, status)
	status, _ = olga.do("POST", "/lockdown")
	require.Equal(t, http.StatusUnauthorized, status)

	report, err := c.journal.Verify(crmguard.System(t.Context(), tenant, "test"), c.verifier, nil)
	require.NoError(t, err)
	require.True(t, report.OK(), report.Verdict)
	require.Greater(t, report.Entries, int64(60))
}
