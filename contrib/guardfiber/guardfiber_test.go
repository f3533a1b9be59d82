package guardfiber_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/recover"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardfiber"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/guardtest"
)

// exchange is guardtest.Exchange for fiber.
type exchange struct {
	c fiber.Ctx
	g *guard.Guard
}

func (x exchange) Context() context.Context { return x.c.Context() }
func (x exchange) ID() string               { return x.c.Params("id") }
func (x exchange) Answer(text string) error { return x.c.SendString(text) }

func (x exchange) Body(limit int64) ([]byte, error) {
	body := x.c.Body()
	if int64(len(body)) > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	return body, nil
}

func (x exchange) SetSession(token string) { guardfiber.SetSession(x.g, x.c, token) }
func (x exchange) ClearSession()           { guardfiber.ClearSession(x.g, x.c) }

// serve serves app on a loopback address until the test ends.
func serve(t testing.TB, app *fiber.App) (addr string) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- app.Listener(listener, fiber.ListenConfig{DisableStartupMessage: true}) }()
	t.Cleanup(func() {
		require.NoError(t, app.Shutdown())
		require.NoError(t, <-served)
	})
	return listener.Addr().String()
}

func start(config fiber.Config) guardtest.Start {
	return func(t testing.TB, g *guard.Guard, routes []guardtest.Route) string {
		config.ErrorHandler = guardfiber.ErrorHandler(g)
		app := fiber.New(config)
		app.Use(recover.New(), guardfiber.Handler(g))
		for _, route := range routes {
			load := func(c fiber.Ctx) (crmguard.Resource, error) { return route.Load(exchange{c, g}) }
			handle := func(c fiber.Ctx) error { return route.Handle(exchange{c, g}) }
			h := handle
			switch {
			case route.Open():
			case route.Acts:
				h = guardfiber.ProtectAct(g, route.Action, load, handle)
			default:
				h = guardfiber.Protect(g, route.Action, load, handle)
			}
			app.Add([]string{route.Method}, guardtest.Colon(route.Path), h)
		}
		return serve(t, app)
	}
}

func TestAdapter(t *testing.T) {
	for name, config := range map[string]fiber.Config{
		"as it comes":         {},
		"immutable":           {Immutable: true},
		"unescaped":           {UnescapePath: true},
		"streamed bodies":     {StreamRequestBody: true},
		"headers left alone":  {DisableHeaderNormalizing: true},
		"trusts every header": {TrustProxy: true, ProxyHeader: "X-Real-Ip", TrustProxyConfig: fiber.TrustProxyConfig{Loopback: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // fasthttp takes a while to shut down
			guardtest.Run(t, start(config))
		})
	}
}

// crm is a small host.
type crm struct {
	t       *testing.T
	app     *fiber.App
	guard   *guard.Guard
	journal *crmguardtest.Recorder
	addr    string
}

func newCRM(t *testing.T, config fiber.Config) *crm {
	c := &crm{t: t, journal: crmguardtest.NewRecorder()}
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts").Allow("anna", crmguard.Update, "contacts")
	g, err := guard.New(byCookie{}, rights, byCookie{}, c.journal, &guard.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	c.guard = g
	config.ErrorHandler = guardfiber.ErrorHandler(g)
	c.app = fiber.New(config)
	c.app.Use(recover.New(), guardfiber.Handler(g))
	return c
}

func (c *crm) send(method, path, person, body string) (*http.Response, string) {
	if c.addr == "" {
		c.addr = serve(c.t, c.app)
	}
	r, err := http.NewRequestWithContext(c.t.Context(), method, "http://"+c.addr+path, strings.NewReader(body))
	require.NoError(c.t, err)
	if person != "" {
		r.Header.Set("Cookie", "__Host-session="+person)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(c.t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	require.NoError(c.t, resp.Body.Close())
	return resp, string(text)
}

func contact(c fiber.Ctx) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: c.Params("id")}, nil
}

func TestErrorsOfFiber(t *testing.T) {
	boom := errors.New("boom")
	for name, tt := range map[string]struct {
		err    error
		status int
		told   string
	}{
		"a client's mistake":   {fiber.NewError(422, "Reason missing"), 422, `"detail":"Reason missing"`},
		"wrapped":              {errors.Join(boom, fiber.NewError(409, "Changed")), 409, `"detail":"Changed"`},
		"absent":               {fiber.ErrNotFound, 404, `"code":"not-found"`},
		"the server's":         {fiber.NewError(503, "boom"), 500, `"code":"internal"`},
		"plain":                {boom, 500, `"code":"internal"`},
		"a problem of guard":   {&guard.Problem{Status: 422, Title: "Short", Code: "short", Detail: "Add a reason"}, 422, `"detail":"Add a reason","code":"short"`},
		"a denial, on its way": {&crmguard.Denial{By: "quota", Code: "norm", Status: crmguard.Exhausted}, 429, `"code":"norm"`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCRM(t, fiber.Config{})
			c.app.Get("/contacts/:id", guardfiber.Protect(c.guard, crmguard.View, contact, func(c fiber.Ctx) error {
				_ = c.SendString("boom: half an answer")
				return tt.err
			}))
			c.app.Get("/open", func(fiber.Ctx) error { return tt.err })
			for _, path := range []string{"/contacts/1", "/open"} {
				resp, text := c.send("GET", path, "anna", "")
				require.Equal(t, tt.status, resp.StatusCode)
				if _, ofFiber := errors.AsType[*fiber.Error](tt.err); path == "/open" && ofFiber && tt.status != 404 && tt.status < 500 {
					require.NotContains(t, text, "detail") // might be fasthttp's
				} else {
					require.Contains(t, text, tt.told)
				}
				require.Contains(t, text, `"instance":"`)
				require.NotContains(t, text, "boom")
				require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
			}
		})
	}
}

// sendRaw writes requests as they stand and returns all that is answered.
func (c *crm) sendRaw(wire string) string {
	if c.addr == "" {
		c.addr = serve(c.t, c.app)
	}
	conn, err := (&net.Dialer{}).DialContext(c.t.Context(), "tcp", c.addr)
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, conn.Close()) }()
	require.NoError(c.t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, wire)
	require.NoError(c.t, err)
	text, err := io.ReadAll(conn)
	require.NoError(c.t, err)
	return string(text)
}

// fasthttp puts what it has read into its errors.
func TestErrorsOfFasthttpShowNothing(t *testing.T) {
	c := newCRM(t, fiber.Config{})
	for _, wire := range []string{
		"GET / HTTP/1.1\r\nHost: crm\r\nX: a\x01b\r\nCookie: __Host-session=TOP-SECRET\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: crm\r\nCookie: __Host-session=TOP-SECRET\r\n: x\r\n\r\n",
		"GET  / HTTP/1.1\r\nCookie: __Host-session=TOP-SECRET\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: crm\r\nCookie: __Host-session=TOP-SECRET\r\nTransfer-Encoding: TOP-SECRET\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: crm\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: TOP-SECRET\r\n\r\n",
	} {
		answer := c.sendRaw(wire)
		require.Contains(t, answer, " 400 Bad Request\r\n", wire)
		require.NotContains(t, answer, "TOP-SECRET")
		require.NotContains(t, answer, "detail")
	}
}

// What frames a request so that net/http would refuse it is refused, and what follows
// on its connection is no further request.
func TestFraming(t *testing.T) {
	const inner = "PUT /contacts/inner HTTP/1.1\r\nHost: crm\r\nCookie: __Host-session=anna\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	for _, head := range []string{
		"HTTP/1.1\r\n",
		"HTTP/1.1\r\nHost: a b\r\n",
		"HTTP/1.1\r\nHost: crm\r\nTransfer-Encoding: identity\r\n",
		"HTTP/1.1\r\nHost: crm\r\nTransfer-Encoding: identity\r\nContent-Length: 0\r\n",
		"HTTP/1.1\r\nHost: crm\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
		"HTTP/1.0\r\nHost: crm\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
	} {
		c := newCRM(t, fiber.Config{})
		c.app.Put("/contacts/:id", guardfiber.ProtectAct(c.guard, crmguard.Update, contact, func(fiber.Ctx) error { return nil }))
		body := inner
		if strings.Contains(head, "chunked") {
			body = "1\r\nx\r\n0\r\n\r\n" + inner
		}
		answer := c.sendRaw("PUT /contacts/1 " + head + "Cookie: __Host-session=anna\r\n\r\n" + body)
		require.True(t, strings.HasPrefix(answer, "HTTP/1.1 400 "), "%q: %s", head, answer)
		require.Equal(t, 1, strings.Count(answer, "HTTP/1.1 "), answer)
		require.Empty(t, c.journal.Events(), head)
	}
}

// A body over fiber's own limit reaches no handler.
func TestLimitOfFiber(t *testing.T) {
	c := newCRM(t, fiber.Config{BodyLimit: 100})
	c.app.Put("/contacts/:id", guardfiber.ProtectAct(c.guard, crmguard.Update, contact, func(fiber.Ctx) error {
		t.Error("the handler ran")
		return nil
	}))
	resp, _ := c.send("PUT", "/contacts/1", "anna", strings.Repeat("x", 101))
	require.Equal(t, 413, resp.StatusCode)
	require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
	require.Empty(t, c.journal.Events())
}

// What is recorded stays as it was when fiber uses the memory again; the same
// strings, kept by the host, do so only with Immutable.
func TestRecordedStringsAreCopies(t *testing.T) {
	ids, kept := recordedAndKept(t, fiber.Config{})
	require.NotEqual(t, ids, kept, "the danger is there: strings that nobody copied have changed")
	ids, kept = recordedAndKept(t, fiber.Config{Immutable: true})
	require.Equal(t, ids, kept)
}

// recordedAndKept checks what is recorded of some requests and returns their
// parameters, and what a loader that keeps these has in the end.
func recordedAndKept(t *testing.T, config fiber.Config) (ids, own []string) {
	c := newCRM(t, config)
	describe := func(c fiber.Ctx) {
		guard.Describe(c.Context(), func(d *guard.Details) {
			d.Reason, d.Fields = c.Get("X-Reason"), []string{c.Params("id")}
			d.Private = []crmguard.Private{{Client: c.Params("id"), Name: c.Params("id"), Value: c.Body()}}
		})
	}
	c.app.Put("/contacts/:id", guardfiber.ProtectAct(c.guard, crmguard.Update,
		func(c fiber.Ctx) (crmguard.Resource, error) {
			describe(c)
			id := c.Params("id")
			own = append(own, id)
			return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: id, Field: id, Owner: id, Unit: id}, nil
		},
		func(c fiber.Ctx) error {
			describe(c)
			return nil
		}))
	for i := range 50 { // many: with the race detector fasthttp does not use each buffer again
		id := fmt.Sprintf("id%02d", i)
		ids = append(ids, id)
		resp, _ := c.send("PUT", "/contacts/"+id, "anna", id)
		require.Equal(t, 200, resp.StatusCode)
	}
	events := c.journal.Events()
	require.Len(t, events, 2*len(ids))
	for i, e := range events {
		id := ids[i/2]
		require.Equal(t, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: id, Field: id, Owner: id, Unit: id}, e.Resource)
		require.Equal(t, []string{id}, e.Fields)
		require.Equal(t, []crmguard.Private{{Client: id, Name: id, Value: []byte(id)}}, e.Private)
	}
	return ids, own
}

// Fiber's context is none of ours: data stays closed rather than open.
func TestFiberContextAsContext(t *testing.T) {
	c := newCRM(t, fiber.Config{})
	c.app.Get("/contacts/:id", guardfiber.Protect(c.guard, crmguard.View, contact, func(c fiber.Ctx) error {
		_, ok := crmguard.SubjectFrom(c)
		require.False(t, ok)
		_, ok = crmguard.SubjectFrom(c.Context())
		require.True(t, ok)
		return nil
	}))
	resp, _ := c.send("GET", "/contacts/1", "anna", "")
	require.Equal(t, 200, resp.StatusCode)
}

func TestTheActEndsWithItsHandler(t *testing.T) {
	c := newCRM(t, fiber.Config{})
	ran := false
	c.app.Get("/contacts/:id",
		func(c fiber.Ctx) error {
			err := c.Next()
			ran = true
			require.Nil(t, crmguard.ActFrom(c.Context()))
			_, ok := crmguard.SubjectFrom(c.Context())
			require.True(t, ok)
			return err
		},
		guardfiber.Protect(c.guard, crmguard.View, contact, func(c fiber.Ctx) error {
			require.NotNil(t, crmguard.ActFrom(c.Context()))
			return nil
		}))
	c.send("GET", "/contacts/1", "anna", "")
	require.True(t, ran)
}

// The request is what net/http would have made of it, as far as a host looks at it.
func TestRequest(t *testing.T) {
	for _, stream := range []bool{false, true} {
		c := newCRM(t, fiber.Config{StreamRequestBody: stream})
		c.app.Post("/contacts/:id", func(ctx fiber.Ctx) error {
			r, err := guardfiber.Request(ctx)
			require.NoError(t, err)
			require.Equal(t, "anna", c.guard.SessionToken(r))
			require.Equal(t, "POST /contacts/1?a=b%20c HTTP/1.1", r.Method+" "+r.RequestURI+" "+r.Proto)
			require.Equal(t, "b c", r.URL.Query().Get("a"))
			require.True(t, r.ProtoAtLeast(1, 1))
			require.Equal(t, int64(4), r.ContentLength)
			require.Equal(t, c.addr, r.Host)
			require.Empty(t, r.Header.Get("Host"))
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.NoError(t, r.Body.Close())
			require.Equal(t, "body", string(body))
			_, ok := crmguard.SubjectFrom(r.Context())
			require.True(t, ok)
			return nil
		})
		resp, text := c.send("POST", "/contacts/1?a=b%20c", "anna", "body")
		require.Equal(t, 200, resp.StatusCode, text)
	}
}

// Cookies that a host sets stay beside the session's, and guard's headers do not undo
// those that a handler sets.
func TestHeadersOfTheHandler(t *testing.T) {
	c := newCRM(t, fiber.Config{})
	c.app.Get("/contacts/:id", guardfiber.Protect(c.guard, crmguard.View, contact, func(f fiber.Ctx) error {
		f.Cookie(&fiber.Cookie{Name: "theme", Value: "dark"})
		guardfiber.SetSession(c.guard, f, "next")
		f.Set("Cache-Control", "no-store, private")
		return f.SendString("card")
	}))
	resp, _ := c.send("GET", "/contacts/1", "anna", "")
	require.Equal(t, []string{"no-store, private"}, resp.Header.Values("Cache-Control"))
	names := map[string]string{}
	for _, cookie := range resp.Cookies() {
		names[cookie.Name] = cookie.Value
	}
	require.Equal(t, map[string]string{"theme": "dark", "__Host-session": "next"}, names)
}

func TestMountingNonsensePanics(t *testing.T) {
	c := newCRM(t, fiber.Config{})
	show := func(fiber.Ctx) error { return nil }
	require.Panics(t, func() { guardfiber.Protect(c.guard, crmguard.Delete, contact, show) })
	require.Panics(t, func() { guardfiber.Protect(c.guard, crmguard.View, nil, show) })
	require.Panics(t, func() { guardfiber.ProtectAct(c.guard, crmguard.Delete, contact, nil) })
	require.Panics(t, func() { guardfiber.ProtectAct(c.guard, "", contact, show) })
}
