// Package guardgin mounts package guard in gin. It only translates: what is decided,
// recorded and answered is guard's, as with net/http.
//
//	r.Use(guardgin.Handler(g))
//	r.GET("/contacts/:id", guardgin.Protect(g, crmguard.View, contactOf, show))
//	r.POST("/contacts/:id/phone", guardgin.ProtectAct(g, crmguard.Reveal, phoneOf, reveal))
//
// Loaders and handlers get the *gin.Context, with its path parameters, and return
// their error instead of answering it; the handlers after them are then not run.
// Nothing is added to c.Errors: guard logs what went wrong on the server.
//
// # Security notes
//
//   - The subject and the act are in c.Request.Context(). A *gin.Context handed on as
//     a context.Context has them with engine.ContextWithFallback only; without it
//     personal data stays closed.
//   - The act ends with its handler: what runs after it in the chain has the
//     subject and no act.
//   - The client's address is guard.Options.Edge's; c.ClientIP is not asked.
//   - A handler's answer counts as the act's success: c.AbortWithStatus and a nil error
//     is an act that was done.
package guardgin

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// Loader is [guard.Loader] for gin.
type Loader func(c *gin.Context) (crmguard.Resource, error)

// HandlerFunc is [guard.HandlerFunc] for gin.
type HandlerFunc func(c *gin.Context) error

// Handler is [guard.Guard.Handler]: it puts the subject of each request, if it has
// one, into the context of c.Request. Mount it with Use, before the routes.
func Handler(g *guard.Guard) gin.HandlerFunc {
	next := g.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		call := callOf(r)
		call.ok = true
		call.c.Request = r
		call.c.Next()
	}))
	return func(c *gin.Context) { serve(c, next) }
}

// Protect is [guard.Guard.Protect]: it serves what only shows.
func Protect(g *guard.Guard, a crmguard.Action, load Loader, h HandlerFunc) gin.HandlerFunc {
	return mount(g.Protect(a, loader(load), handler(h)))
}

// ProtectAct is [guard.Guard.ProtectAct]: it serves acts that change, reveal or
// take something out.
func ProtectAct(g *guard.Guard, a crmguard.Action, load Loader, h HandlerFunc) gin.HandlerFunc {
	return mount(g.ProtectAct(a, loader(load), handler(h)))
}

// call is what the handlers of guard need to know of gin's side.
type call struct {
	c  *gin.Context
	ok bool // the handler ran and succeeded
}

type callKey struct{}

func callOf(r *http.Request) *call { return r.Context().Value(callKey{}).(*call) } // serve has put it there

// serve lets h, which is guard's, answer c.
func serve(c *gin.Context, h http.Handler) {
	state := &call{c: c}
	h.ServeHTTP(c.Writer, c.Request.WithContext(context.WithValue(c.Request.Context(), callKey{}, state)))
	if !state.ok {
		c.Abort()
	}
}

func mount(protected http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		before := c.Request
		defer func() { c.Request = before }() // what runs later is not this act
		serve(c, protected)
	}
}

// loader and handler leave nil to guard, which panics as mounting does.
func loader(load Loader) guard.Loader {
	if load == nil {
		return nil
	}
	return func(r *http.Request) (crmguard.Resource, error) {
		c := callOf(r).c
		c.Request = r
		return load(c)
	}
}

func handler(h HandlerFunc) guard.HandlerFunc {
	if h == nil {
		return nil
	}
	return func(_ http.ResponseWriter, r *http.Request) error {
		call := callOf(r)
		call.c.Request = r
		err := h(call.c)
		call.ok = err == nil
		return err
	}
}
