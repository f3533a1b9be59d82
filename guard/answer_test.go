package guard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
)

func TestDenialDetailStaysInside(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("POST /contacts/{id}/delete", c.guard.ProtectAct(crmguard.Delete, contactOf, show))
	w := c.request("POST", "/contacts/1/delete", "anna-token")
	require.NotContains(t, w.Body.String(), "secret detail")
	require.Contains(t, w.Body.String(), `"code":"no-rule"`)
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
}

// A subject in the server's own context would lend its rights to everybody.
func TestHandlerRefusesALentSubject(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("GET /contacts/{id}", c.guard.Protect(crmguard.View, contactOf, show))
	r := httptest.NewRequest("GET", "/contacts/1", nil)
	r = r.WithContext(crmguard.WithSubject(r.Context(), person("anna")))
	w := httptest.NewRecorder()
	c.server.ServeHTTP(w, r)
	require.Equal(t, 500, w.Code)
	require.Empty(t, c.outcomes())
}

// A refused act is never answered with the 200 of an empty handler.
// What another site's page asks for by itself is nobody's: a page on a sibling domain
// could otherwise collect refusals against whoever looks at it.
func TestRequestsOfOtherSites(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("GET /contacts/{id}", c.guard.Protect(crmguard.View, contactOf, show))
	for _, tt := range []struct {
		site, mode, dest string
		want             int
	}{
		{"", "", "", 200},
		{"none", "navigate", "document", 200},
		{"same-origin", "cors", "empty", 200},
		{"same-origin", "no-cors", "image", 200},
		{"cross-site", "navigate", "document", 200}, // a link
		{"same-site", "no-cors", "image", 401},
		{"same-site", "cors", "empty", 401},
		{"cross-site", "navigate", "iframe", 401},
		{"cross-site", "", "", 401},
	} {
		r := httptest.NewRequest("GET", "/contacts/1", nil)
		r.AddCookie(&http.Cookie{Name: "__Host-session", Value: "anna-token"})
		for name, value := range map[string]string{"Sec-Fetch-Site": tt.site, "Sec-Fetch-Mode": tt.mode, "Sec-Fetch-Dest": tt.dest} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		before := len(c.journal.Events())
		w := httptest.NewRecorder()
		c.server.ServeHTTP(w, r)
		require.Equal(t, tt.want, w.Code, tt)
		if tt.want != 200 {
			require.Len(t, c.journal.Events(), before, "nothing is journalled")
		}
	}
}

// A denial that some other part was refused while it worked is no decision: it is logged.
func TestUndecidedIsLogged(t *testing.T) {
	var log strings.Builder
	journal := crmguard.RecorderFunc(func(context.Context, crmguard.Event) error {
		return fmt.Errorf("audit: seal: %w", &crmguard.Denial{By: "encrypt", Code: "tenant"})
	})
	g, err := guard.New(sessions{"anna-token": person("anna")}, crmguardtest.Allow(), &directory{}, journal,
		&guard.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	c := &crm{t: t, server: g.Handler(g.Protect(crmguard.View, contactOfAnna, show))}
	require.Equal(t, 503, c.request("GET", "/", "anna-token").Code)
	require.Contains(t, log.String(), "audit: seal")
}

func contactOfAnna(*http.Request) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "anna"}, nil
}

func TestCanceledIsNo200(t *testing.T) {
	c := newCRM(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	c.guard.WriteError(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx), fmt.Errorf("act: %w", context.Canceled))
	require.Equal(t, 503, w.Code)
}

// TestUnknownAddress: that a proxy does not say for whom it asks is no failure of the
// server, or strangers would fill its log with errors.
func TestUnknownAddress(t *testing.T) {
	var log bytes.Buffer
	c := newCRM(t, nil)
	g, err := guard.New(sessions{"anna-token": person("anna")}, c.rights, c.dir, c.journal, &guard.Options{
		Edge:   func(*http.Request) (netip.Addr, error) { return netip.Addr{}, errors.New("the header is malformed") },
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	require.NoError(t, err)
	c.server = g.Handler(c.mux)
	c.mux.Handle("GET /contacts/{id}", g.Protect(crmguard.View, contactOf, show))
	w := c.request("GET", "/contacts/1", "anna-token")
	require.Equal(t, 400, w.Code)
	require.Contains(t, w.Body.String(), `"code":"address"`)
	require.NotContains(t, w.Body.String(), "malformed", "details stay on the server")
	require.Empty(t, c.outcomes())
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), "the header is malformed")
}

func TestLoopback(t *testing.T) {
	c := newCRM(t, &guard.Options{Loopback: true})
	c.mux.HandleFunc("GET /signin", func(http.ResponseWriter, *http.Request) {})
	get := func(remote string) int {
		r := httptest.NewRequest("GET", "/signin", nil)
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		c.server.ServeHTTP(w, r)
		return w.Code
	}
	require.Equal(t, 200, get("127.0.0.1:1234"))
	require.Equal(t, 200, get("[::1]:1234"))
	require.Equal(t, 200, get("[::ffff:127.0.0.1]:1234"))
	require.Equal(t, 403, get("192.0.2.7:1234"))
	require.Equal(t, 403, get("nonsense"))

	w := httptest.NewRecorder()
	c.guard.SetSession(w, "t")
	require.NotContains(t, w.Header().Get("Set-Cookie"), "Secure")
}

func TestCookie(t *testing.T) {
	c := newCRM(t, nil)
	w := httptest.NewRecorder()
	c.guard.SetSession(w, "token")
	require.Equal(t, "__Host-session=token; Path=/; HttpOnly; Secure; SameSite=Lax", w.Header().Get("Set-Cookie"))
	r := httptest.NewRequest("GET", "/", nil)
	require.Empty(t, c.guard.SessionToken(r))
	r.Header.Set("Cookie", "session=planted; __Host-session=token")
	require.Equal(t, "token", c.guard.SessionToken(r))
	w = httptest.NewRecorder()
	c.guard.ClearSession(w)
	require.Contains(t, w.Header().Get("Set-Cookie"), "Max-Age=0")
}

func TestWriteError(t *testing.T) {
	c := newCRM(t, &guard.Options{Page: func(w http.ResponseWriter, _ *http.Request, p guard.Problem) {
		w.WriteHeader(p.Status)
		_, _ = fmt.Fprintf(w, "page %s %s", p.Code, p.Need)
	}})
	for _, tt := range []struct {
		err    error
		accept string
		status int
		body   string
	}{
		{&crmguard.Denial{Code: "norm", Status: crmguard.Exhausted, RetryAfter: 90*time.Second + 1}, "", 429, `"code":"norm"`},
		{&crmguard.Denial{Code: "lockdown", Status: crmguard.Closed}, "", 503, `"code":"lockdown"`},
		{&crmguard.Denial{Status: crmguard.StepUp, Need: crmguard.AssuranceSecondFactor}, "text/html", 401, "page step-up second-factor"},
		{&http.MaxBytesError{Limit: 10}, "*/*", 413, "At most 10 bytes"},
		{guard.ErrNotFound, "text/html;q=0, application/json", 404, `"code":"not-found"`},
		{&guard.Problem{Status: 409, Title: "Changed", Code: "conflict"}, "application/json, text/html", 409, "page conflict none"},
		{&guard.Problem{Status: 302}, "", 500, `"status":500`},
		{errors.New("password=hunter2"), "", 500, `"code":"internal"`},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		if tt.accept != "" {
			r.Header.Set("Accept", tt.accept)
		}
		w := httptest.NewRecorder()
		c.guard.WriteError(w, r, tt.err)
		require.Equal(t, tt.status, w.Code, "%v", tt.err)
		require.Contains(t, w.Body.String(), tt.body)
		require.NotContains(t, w.Body.String(), "hunter2")
		if tt.status == 429 {
			require.Equal(t, "91", w.Header().Get("Retry-After"), "rounded up")
		}
	}
}
