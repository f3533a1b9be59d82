package guardgin_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardgin"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/guardtest"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	m.Run()
}

const param = "id"

func exchange(g *guard.Guard, c *gin.Context) guardtest.Exchange {
	c.Request.SetPathValue(param, c.Param(param))
	return guardtest.HTTP(g, c.Writer, c.Request)
}

func start(configure func(*gin.Engine)) guardtest.Start {
	return func(t testing.TB, g *guard.Guard, routes []guardtest.Route) string {
		engine := gin.New()
		configure(engine)
		engine.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) {
			c.AbortWithStatus(http.StatusInternalServerError)
		}))
		engine.Use(guardgin.Handler(g))
		for _, route := range routes {
			load := func(c *gin.Context) (crmguard.Resource, error) { return route.Load(exchange(g, c)) }
			handle := func(c *gin.Context) error { return route.Handle(exchange(g, c)) }
			var h gin.HandlerFunc
			switch {
			case route.Open():
				h = func(c *gin.Context) { _ = handle(c) }
			case route.Acts:
				h = guardgin.ProtectAct(g, route.Action, load, handle)
			default:
				h = guardgin.Protect(g, route.Action, load, handle)
			}
			engine.Handle(route.Method, guardtest.Colon(route.Path), h)
		}
		return guardtest.Serve(t, engine)
	}
}

func TestAdapter(t *testing.T) {
	for name, configure := range map[string]func(*gin.Engine){
		"as it comes": func(*gin.Engine) {},
		"raw path":    func(e *gin.Engine) { e.UseRawPath, e.UnescapePathValues = true, true },
		"fallback":    func(e *gin.Engine) { e.ContextWithFallback = true },
	} {
		t.Run(name, func(t *testing.T) { guardtest.Run(t, start(configure)) })
	}
}

// crm is a small host.
type crm struct {
	engine  *gin.Engine
	guard   *guard.Guard
	journal *crmguardtest.Recorder
}

func newCRM(t *testing.T) *crm {
	c := &crm{engine: gin.New(), journal: crmguardtest.NewRecorder()}
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts")
	g, err := guard.New(byCookie{}, rights, byCookie{}, c.journal, &guard.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	c.guard = g
	c.engine.Use(guardgin.Handler(g))
	return c
}

func (c *crm) get(person string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/contacts/1", nil)
	r.AddCookie(&http.Cookie{Name: "__Host-session", Value: person})
	w := httptest.NewRecorder()
	c.engine.ServeHTTP(w, r)
	return w
}

func contact(c *gin.Context) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: c.Param("id")}, nil
}

func TestNothingRunsAfterARefusalOrAnError(t *testing.T) {
	c := newCRM(t)
	var failure error
	later := 0
	c.engine.GET("/contacts/:id",
		guardgin.Protect(c.guard, crmguard.View, contact, func(*gin.Context) error { return failure }),
		func(*gin.Context) { later++ })
	require.Equal(t, 404, c.get("boris").Code)
	require.Zero(t, later)
	failure = errors.New("boom")
	w := c.get("anna")
	require.Equal(t, 500, w.Code)
	require.NotContains(t, w.Body.String(), "boom")
	require.Zero(t, later)
	failure = nil
	require.Equal(t, 200, c.get("anna").Code)
	require.Equal(t, 1, later)
}

// What runs after a protected handler acts for itself: with the act of the one before it,
// what it opens would not count as revealed.
func TestTheActEndsWithItsHandler(t *testing.T) {
	c := newCRM(t)
	ran := false
	c.engine.GET("/contacts/:id",
		guardgin.Protect(c.guard, crmguard.View, contact, func(c *gin.Context) error {
			require.NotNil(t, crmguard.ActFrom(c.Request.Context()))
			return nil
		}),
		func(c *gin.Context) {
			ran = true
			require.Nil(t, crmguard.ActFrom(c.Request.Context()))
			_, ok := crmguard.SubjectFrom(c.Request.Context())
			require.True(t, ok)
		})
	c.get("anna")
	require.True(t, ran)
}

// The context of gin is none of ours unless the engine says so: then data stays
// closed rather than open.
func TestGinContextAsContext(t *testing.T) {
	for _, fallback := range []bool{false, true} {
		c := newCRM(t)
		c.engine.ContextWithFallback = fallback
		c.engine.GET("/contacts/:id", guardgin.Protect(c.guard, crmguard.View, contact, func(c *gin.Context) error {
			_, ok := crmguard.SubjectFrom(c)
			require.Equal(t, fallback, ok)
			return nil
		}))
		require.Equal(t, 200, c.get("anna").Code)
	}
}

func TestMountingNonsensePanics(t *testing.T) {
	c := newCRM(t)
	show := func(*gin.Context) error { return nil }
	require.Panics(t, func() { guardgin.Protect(c.guard, crmguard.Delete, contact, show) })
	require.Panics(t, func() { guardgin.Protect(c.guard, crmguard.View, nil, show) })
	require.Panics(t, func() { guardgin.ProtectAct(c.guard, crmguard.Delete, contact, nil) })
	require.Panics(t, func() { guardgin.ProtectAct(c.guard, "", contact, show) })
}

// Mounted twice, it refuses: the inner one would meet a subject that it did not find.
func TestMountedTwice(t *testing.T) {
	c := newCRM(t)
	c.engine.Use(guardgin.Handler(c.guard))
	c.engine.GET("/contacts/:id", guardgin.Protect(c.guard, crmguard.View, contact, func(*gin.Context) error {
		t.Error("the handler ran")
		return nil
	}))
	require.Equal(t, 500, c.get("anna").Code)
}
