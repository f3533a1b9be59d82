package guardecho_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardecho"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/guardtest"
)

func exchange(g *guard.Guard, c *echo.Context) guardtest.Exchange {
	c.Request().SetPathValue("id", c.Param("id"))
	return guardtest.HTTP(g, c.Response(), c.Request())
}

func start(config echo.RouterConfig) guardtest.Start {
	return func(t testing.TB, g *guard.Guard, routes []guardtest.Route) string {
		e := echo.NewWithConfig(echo.Config{Router: echo.NewRouter(config), Logger: slog.New(slog.DiscardHandler)})
		e.Use(middleware.Recover(), guardecho.Handler(g))
		for _, route := range routes {
			load := func(c *echo.Context) (crmguard.Resource, error) { return route.Load(exchange(g, c)) }
			handle := func(c *echo.Context) error { return route.Handle(exchange(g, c)) }
			switch {
			case route.Open():
			case route.Acts:
				handle = guardecho.ProtectAct(g, route.Action, load, handle)
			default:
				handle = guardecho.Protect(g, route.Action, load, handle)
			}
			e.Add(route.Method, guardtest.Colon(route.Path), handle)
		}
		return guardtest.Serve(t, e)
	}
}

func TestAdapter(t *testing.T) {
	for name, config := range map[string]echo.RouterConfig{
		"as it comes":   {},
		"another path":  {UseEscapedPathForMatching: true},
		"HEAD for GETs": {AutoHandleHEAD: true},
	} {
		t.Run(name, func(t *testing.T) { guardtest.Run(t, start(config)) })
	}
}

// Echo can be told to decode parameters twice. Even then the record that is decided
// about is the one that is shown.
func TestParametersDecodedTwice(t *testing.T) {
	c := newCRM(t)
	e := echo.NewWithConfig(echo.Config{Router: echo.NewRouter(echo.RouterConfig{UnescapePathParamValues: true})})
	e.Use(guardecho.Handler(c.guard))
	e.GET("/contacts/:id", guardecho.Protect(c.guard, crmguard.View, contact, func(c *echo.Context) error {
		return c.String(200, c.Param("id"))
	}))
	r := httptest.NewRequest("GET", "/contacts/%2531", nil)
	r.AddCookie(&http.Cookie{Name: "__Host-session", Value: "anna"})
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	require.Equal(t, w.Body.String(), c.journal.Events()[0].Resource.ID)
}

// crm is a small host.
type crm struct {
	echo    *echo.Echo
	guard   *guard.Guard
	journal *crmguardtest.Recorder
}

func newCRM(t *testing.T, outside ...echo.MiddlewareFunc) *crm {
	c := &crm{echo: echo.New(), journal: crmguardtest.NewRecorder()}
	c.echo.Logger = slog.New(slog.DiscardHandler)
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts").Allow("anna", crmguard.Update, "contacts")
	g, err := guard.New(byCookie{}, rights, byCookie{}, c.journal, &guard.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	c.guard = g
	c.echo.Use(append(outside, guardecho.Handler(g))...)
	return c
}

func (c *crm) send(method, person, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/contacts/1", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.AddCookie(&http.Cookie{Name: "__Host-session", Value: person})
	w := httptest.NewRecorder()
	c.echo.ServeHTTP(w, r)
	return w
}

func contact(c *echo.Context) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: c.Param("id")}, nil
}

// Errors in echo's manner are told as guard tells them, what they wrap is not.
func TestErrorsOfEcho(t *testing.T) {
	boom := errors.New("boom")
	for name, tt := range map[string]struct {
		err    error
		status int
		told   string
	}{
		"a client's mistake":       {echo.NewHTTPError(422, "Reason missing"), 422, `"detail":"Reason missing"`},
		"wrapping":                 {echo.NewHTTPError(409, "Changed").Wrap(boom), 409, `"detail":"Changed"`},
		"wrapped":                  {errors.Join(boom, echo.NewHTTPError(409, "Changed")), 409, `"detail":"Changed"`},
		"without a message":        {echo.ErrUnsupportedMediaType, 415, "Unsupported Media Type"},
		"absent":                   {echo.ErrNotFound, 404, `"code":"not-found"`},
		"absent, with a message":   {echo.NewHTTPError(404, "boom"), 404, `"code":"not-found"`},
		"the server's":             {echo.NewHTTPError(500, "boom"), 500, `"code":"internal"`},
		"a status without meaning": {echo.NewHTTPError(200, "boom"), 500, `"code":"internal"`},
		"plain":                    {boom, 500, `"code":"internal"`},
		"a problem of guard":       {&guard.Problem{Status: 422, Title: "Short", Code: "short"}, 422, `"code":"short"`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCRM(t)
			c.echo.GET("/contacts/:id", guardecho.Protect(c.guard, crmguard.View, contact, func(*echo.Context) error { return tt.err }))
			w := c.send("GET", "anna", "")
			require.Equal(t, tt.status, w.Code)
			require.Contains(t, w.Body.String(), tt.told)
			require.NotContains(t, w.Body.String(), "boom")
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
		})
	}
}

// A loader that says 404 in echo's manner is answered as one for a record that may not
// be seen.
func TestAbsentInEchosManner(t *testing.T) {
	answers := map[string]bool{}
	for _, load := range []guardecho.Loader{
		contact, // nobody lets boris see it
		func(*echo.Context) (crmguard.Resource, error) {
			return crmguard.Resource{Kind: "contacts"}, echo.ErrNotFound
		},
		func(*echo.Context) (crmguard.Resource, error) {
			return crmguard.Resource{Kind: "contacts"}, guard.ErrNotFound
		},
	} {
		c := newCRM(t)
		c.echo.GET("/contacts/:id", guardecho.Protect(c.guard, crmguard.View, load, func(*echo.Context) error { return nil }))
		w := c.send("GET", "boris", "")
		events := c.journal.Events()
		require.Len(t, events, 1)
		answers[strings.ReplaceAll(w.Body.String(), events[0].Request, "ID")] = true
	}
	require.Len(t, answers, 1)
}

func TestLongBodyForBind(t *testing.T) {
	c := newCRM(t)
	c.echo.PUT("/contacts/:id", guardecho.ProtectAct(c.guard, crmguard.Update, contact, func(c *echo.Context) error {
		c.Request().Body = http.MaxBytesReader(c.Response(), c.Request().Body, 10)
		var form struct{ Name string }
		return c.Bind(&form)
	}))
	require.Equal(t, 413, c.send("PUT", "anna", `{"name":"longer than ten"}`).Code)
	require.Equal(t, 400, c.send("PUT", "anna", `{"name"`).Code)
}

// Echo has nothing left to answer, and what stands around sees the status.
func TestEchoIsToldOfNoError(t *testing.T) {
	var seen error
	var status int
	c := newCRM(t, func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			seen = next(c)
			_, status = echo.ResolveResponseStatus(c.Response(), seen)
			return seen
		}
	})
	c.echo.HTTPErrorHandler = func(*echo.Context, error) { t.Error("called") }
	c.echo.GET("/contacts/:id", guardecho.Protect(c.guard, crmguard.View, contact, func(*echo.Context) error { return errors.New("boom") }))
	require.Equal(t, 500, c.send("GET", "anna", "").Code)
	require.NoError(t, seen)
	require.Equal(t, 500, status)
}

// Errors of routes without protection are echo's.
func TestOtherRoutesKeepTheirErrors(t *testing.T) {
	c := newCRM(t)
	c.echo.GET("/contacts/:id", func(*echo.Context) error { return echo.NewHTTPError(418, "short and stout") })
	require.Equal(t, 418, c.send("GET", "anna", "").Code)
}

func TestTheActEndsWithItsHandler(t *testing.T) {
	c := newCRM(t)
	ran := false
	c.echo.GET("/contacts/:id",
		guardecho.Protect(c.guard, crmguard.View, contact, func(c *echo.Context) error {
			require.NotNil(t, crmguard.ActFrom(c.Request().Context()))
			return nil
		}),
		func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c *echo.Context) error {
				err := next(c)
				ran = true
				require.Nil(t, crmguard.ActFrom(c.Request().Context()))
				return err
			}
		})
	c.send("GET", "anna", "")
	require.True(t, ran)
}

// What replaces the response around the routes, as compression does, is what guard
// answers through.
func TestCompressedAnswers(t *testing.T) {
	c := newCRM(t, middleware.Gzip())
	c.echo.GET("/contacts/:id", guardecho.Protect(c.guard, crmguard.View, contact, func(c *echo.Context) error { return c.String(200, "card") }))
	server := httptest.NewServer(c.echo)
	defer server.Close()
	for person, want := range map[string]string{"anna": "card", "boris": `"code":"not-found"`} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/contacts/1", nil)
		require.NoError(t, err)
		r.Header.Set("Cookie", "__Host-session="+person)
		resp, err := server.Client().Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.True(t, resp.Uncompressed)
		require.Contains(t, string(body), want)
	}
}

func TestMountingNonsensePanics(t *testing.T) {
	c := newCRM(t)
	show := func(*echo.Context) error { return nil }
	require.Panics(t, func() { guardecho.Protect(c.guard, crmguard.Delete, contact, show) })
	require.Panics(t, func() { guardecho.Protect(c.guard, crmguard.View, nil, show) })
	require.Panics(t, func() { guardecho.ProtectAct(c.guard, crmguard.Delete, contact, nil) })
	require.Panics(t, func() { guardecho.ProtectAct(c.guard, "", contact, show) })
}
