package app

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/quota"
)

// TestExportForm: what is wrong is told in words, exports nothing, and what was
// typed neither comes back nor stays anywhere.
func TestExportForm(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	in := unstarted(t, onSQLite)
	in.cfg.Contacts, in.cfg.Logger = sample(3), slog.New(slog.NewTextHandler(&logged, nil))
	in.start()
	owner := in.exporter("owner")
	public, secret := owner.key.Recipient().String(), owner.key.String()
	other, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	hybrid, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	before := len(in.exportEntries())
	for name, c := range map[string]struct {
		form []string
		says string
		not  string
	}{
		"nothing":               {[]string{"reason", "report"}, "Give a public key, or type a passphrase twice", ""},
		"both":                  {[]string{"key", public, "passphrase", "bergamot tuning unicorn", "again", "bergamot tuning unicorn", "reason", "report"}, "not both", "bergamot"},
		"key and half a phrase": {[]string{"key", public, "again", "bergamot", "reason", "report"}, "not both", "bergamot"},
		"cut short":             {[]string{"key", public[:50], "reason", "report"}, "This is not an age public key", public[:50]},
		"mistyped":              {[]string{"key", public[:61] + "b", "reason", "report"}, "This is not an age public key", public[:61]},
		"a point of no use":     {[]string{"key", zeroKey, "reason", "report"}, "This is not an age public key", zeroKey},
		"two people":            {[]string{"key", public + " " + other.Recipient().String(), "reason", "report"}, "This is not an age public key", public},
		"SSH":                   {[]string{"key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW", "reason", "report"}, "This is not an age public key", "AAAAC3"},
		"hybrid":                {[]string{"key", hybrid.Recipient().String(), "reason", "report"}, "This is not an age public key", "age1pq1"},
		"secret":                {[]string{"key", secret, "reason", "report"}, "That was a secret key", secret[15:]},
		"secret, wrapped":       {[]string{"key", secret[:9] + "\n" + strings.ToLower(secret[9:]), "reason", "report"}, "That was a secret key", strings.ToLower(secret[15:])},
		"secret as passphrase":  {[]string{"passphrase", secret, "again", secret, "reason", "report"}, "That was a secret key", secret[15:]},
		"secret as reason":      {[]string{"key", public, "reason", "other", "more", "mine is " + secret}, "That was a secret key", secret[15:]},
		"weak":                  {[]string{"passphrase", "password1234", "again", "password1234", "reason", "report"}, "This passphrase is too weak: use words", "password1234"},
		"short":                 {[]string{"passphrase", "bergamot", "again", "bergamot", "reason", "report"}, "too weak: use at least 12", "bergamot"},
		"with the login":        {[]string{"passphrase", "owner bergamot unicorn", "again", "owner bergamot unicorn", "reason", "report"}, "leave out the login", "bergamot"},
		"mismatch":              {[]string{"passphrase", "bergamot tuning unicorn", "again", "bergamot tuning unicorm", "reason", "report"}, "The two passphrases differ", "bergamot"},
		"no reason":             {[]string{"key", public}, "Choose a reason", ""},
		"unknown reason":        {[]string{"key", public, "reason", "fun"}, "Choose a reason", ""},
		"nothing in words":      {[]string{"key", public, "reason", "other", "more", "  "}, "Choose a reason", ""},
	} {
		answer, page := owner.ask(c.form...)
		require.Equal(t, http.StatusUnprocessableEntity, answer.StatusCode, name)
		require.Empty(t, htmlFaults(string(page)), name)
		has(t, string(page), c.says, name)
		if c.not != "" {
			hasNot(t, string(page), c.not, name)
		}
	}
	entries := in.exportEntries()
	for _, e := range entries[:len(entries)-before] { // newest first
		require.Equal(t, crmguard.Failed, e.Outcome, "no export was begun")
	}
	_, page := owner.ask("key", public)
	has(t, string(page), public, "a good key needs not be typed again")
	_, list := in.signedIn("owner").get("/journal")
	hasNot(t, list, secret[15:])
	in.stop()
	require.Empty(t, leaks(t, in.cfg, [][]byte{[]byte(secret[15:]), []byte(strings.ToLower(secret[15:])), []byte("bergamot")}))
	require.NotContains(t, logged.String(), secret[15:])
	require.NotContains(t, logged.String(), "bergamot")
}

// TestExportNorm: a norm that is passed half way refuses the whole, and what was
// counted for nothing is given back.
func TestExportNorm(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(600))
		in.atNoon()
		dir := temporary(t)
		counter, err := in.app.norms.make(normRules{Zone: "Europe/Moscow", Norms: []quota.Norm{{Action: crmguard.Export, Kind: kind, Hard: 550}}})
		require.NoError(t, err)
		in.app.norms.counter.Store(counter)
		owner, head := in.exporter("owner"), in.exporter("head")
		answer, body := owner.ask()
		require.Equal(t, http.StatusTooManyRequests, answer.StatusCode)
		require.NotContains(t, string(body), "age-encryption.org")
		require.Zero(t, in.counted("owner"))
		require.Equal(t, crmguard.Failed, in.exportEntries()[0].Outcome)
		requireEmpty(t, dir)

		answer, _ = head.ask()
		require.Equal(t, http.StatusOK, answer.StatusCode, "400 are within the norm")
		require.Equal(t, 400, in.counted("head"))
		answer, _ = head.ask()
		require.Equal(t, http.StatusOK, answer.StatusCode, "and stay open today")
		require.Equal(t, 400, in.counted("head"))
	})
}

// TestExportWaitsForTheJournal: not a byte goes out that the journal does not know of.
func TestExportWaitsForTheJournal(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, sample(3))
	owner := in.exporter("owner")
	in.between(2, func(context.Context) { require.NoError(t, in.app.journal.Close()) })
	answer, body := owner.ask()
	require.NotEqual(t, http.StatusOK, answer.StatusCode)
	require.NotContains(t, string(body), "age-encryption.org")
	require.Zero(t, in.counted("owner"))
}

// TestExportOneAtATime: a second export of the same person is refused, another
// person's is not.
func TestExportOneAtATime(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, sample(3))
	owner, head := in.exporter("owner"), in.exporter("head")
	second := in.exporter("owner")
	recheck := in.app.exports.recheck
	in.app.exports.recheck = func(ctx context.Context) error {
		if subjectOf(ctx).ID == "owner" {
			answer, body := second.ask()
			require.Equal(t, http.StatusConflict, answer.StatusCode)
			has(t, string(body), "Another export of yours")
			answer, _ = head.ask()
			require.Equal(t, http.StatusOK, answer.StatusCode)
		}
		return recheck(ctx)
	}
	answer, _ := owner.ask()
	require.Equal(t, http.StatusOK, answer.StatusCode)
	in.app.exports.recheck = recheck
	answer, _ = second.ask()
	require.Equal(t, http.StatusOK, answer.StatusCode)
}

// TestExportCancelled: a browser that goes away ends the export.
func TestExportCancelled(t *testing.T) {
	in := newInstallation(t, onSQLite, sample(520))
	dir := temporary(t)
	owner := in.exporter("owner")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	in.between(2, func(ctx context.Context) { cancel(); <-ctx.Done(); close(ended) })
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, in.web.URL+"/contacts/export", strings.NewReader(fields("key", owner.key.Recipient().String(), "reason", "report").Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := owner.http.Do(r)
	if err == nil {
		_ = answer.Body.Close()
	}
	require.ErrorIs(t, err, context.Canceled)
	<-ended
	in.web.Close() // waits for the request to end
	require.Equal(t, crmguard.Failed, in.exportEntries()[0].Outcome)
	require.Zero(t, in.counted("owner"))
	requireEmpty(t, dir)
}

// TestExportWantsAFreshCode: neither a session alone nor a code of long ago exports.
func TestExportWantsAFreshCode(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, sample(3))
	for _, b := range []*browser{in.session("owner", crmguard.AssurancePassword, 0), in.session("owner", crmguard.AssuranceSecondFactor, 6*time.Minute)} {
		_, list := b.get("/contacts")
		has(t, list, "/contacts/export", "what only wants a code is offered")
		status, page := b.get("/contacts/export")
		require.Equal(t, http.StatusUnauthorized, status)
		hasNot(t, page, "passphrase")
		owner := &exporter{b, in, "owner", nil}
		answer, body := owner.ask("passphrase", "bergamot tuning unicorn", "again", "bergamot tuning unicorn", "reason", "report")
		require.Equal(t, http.StatusUnauthorized, answer.StatusCode)
		require.NotContains(t, string(body), "age-encryption.org")
		require.Equal(t, crmguard.Denied, in.exportEntries()[0].Outcome)
	}
}
