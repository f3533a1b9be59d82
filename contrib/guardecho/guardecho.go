// Package guardecho mounts package guard in echo v5. It only translates: what is
// decided, recorded and answered is guard's, as with net/http.
//
//	e.Use(guardecho.Handler(g))
//	e.GET("/contacts/:id", guardecho.Protect(g, crmguard.View, contactOf, show))
//	e.POST("/contacts/:id/phone", guardecho.ProtectAct(g, crmguard.Reveal, phoneOf, reveal))
//
// Loaders and handlers get the *echo.Context, with its path parameters, and return
// their error. An echo.HTTPError between 400 and 499 is told to the client with its
// message, as a *guard.Problem is; one with 404 is guard.ErrNotFound. What is wrapped
// in it, and every other error, stays on the server.
//
// A protected route has answered when it returns, so that echo is told of no error
// and its HTTPErrorHandler is not called.
//
// # Security notes
//
//   - The subject and the act are in c.Request().Context(). The act ends with its handler.
//   - The client's address is guard.Options.Edge's; c.RealIP is not asked.
package guardecho

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v5"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// Loader is [guard.Loader] for echo.
type Loader func(c *echo.Context) (crmguard.Resource, error)

// Handler is [guard.Guard.Handler]: it puts the subject of each request, if it has
// one, into the context of c.Request(). Mount it with Use, before the routes.
func Handler(g *guard.Guard) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		h := g.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			call := callOf(r)
			call.c.SetRequest(r)
			call.err = next(call.c)
		}))
		return func(c *echo.Context) error { return serve(c, h) }
	}
}

// Protect is [guard.Guard.Protect]: it serves what only shows.
func Protect(g *guard.Guard, a crmguard.Action, load Loader, h echo.HandlerFunc) echo.HandlerFunc {
	return mount(g.Protect(a, loader(load), handler(h)))
}

// ProtectAct is [guard.Guard.ProtectAct]: it serves acts that change, reveal or
// take something out.
func ProtectAct(g *guard.Guard, a crmguard.Action, load Loader, h echo.HandlerFunc) echo.HandlerFunc {
	return mount(g.ProtectAct(a, loader(load), handler(h)))
}

// call is what the handlers of guard need to know of echo's side.
type call struct {
	c   *echo.Context
	err error // of what Handler was mounted around
}

type callKey struct{}

func callOf(r *http.Request) *call { return r.Context().Value(callKey{}).(*call) } // serve has put it there

// serve lets h, which is guard's, answer c.
func serve(c *echo.Context, h http.Handler) error {
	state := &call{c: c}
	h.ServeHTTP(c.Response(), c.Request().WithContext(context.WithValue(c.Request().Context(), callKey{}, state)))
	return state.err
}

func mount(protected http.Handler) echo.HandlerFunc {
	return func(c *echo.Context) error {
		before := c.Request()
		defer c.SetRequest(before) // what runs later is not this act
		return serve(c, protected)
	}
}

// loader and handler leave nil to guard, which panics as mounting does.
func loader(load Loader) guard.Loader {
	if load == nil {
		return nil
	}
	return func(r *http.Request) (crmguard.Resource, error) {
		c := callOf(r).c
		c.SetRequest(r)
		resource, err := load(c)
		return resource, translate(err)
	}
}

func handler(h echo.HandlerFunc) guard.HandlerFunc {
	if h == nil {
		return nil
	}
	return func(_ http.ResponseWriter, r *http.Request) error {
		c := callOf(r).c
		c.SetRequest(r)
		return translate(h(c))
	}
}

// translate makes an error with which echo tells of a client's mistake one with which
// guard does.
func translate(err error) error {
	status := echo.StatusCode(err)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return err // c.Bind makes it a 400, guard a 413
	}
	switch {
	case status == http.StatusNotFound:
		return guard.ErrNotFound
	case status < 400 || status > 499:
		return err
	}
	p := &guard.Problem{Status: status, Title: http.StatusText(status)}
	if told, ok := errors.AsType[*echo.HTTPError](err); ok {
		p.Detail = told.Message
	}
	return p
}
