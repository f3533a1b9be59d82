// Package guardfiber mounts package guard in fiber v3. It only translates: what is
// decided, recorded and answered is guard's, as with net/http.
//
//	app := fiber.New(fiber.Config{Immutable: true, ErrorHandler: guardfiber.ErrorHandler(g)})
//	app.Use(recover.New(), guardfiber.Handler(g))
//	app.Get("/contacts/:id", guardfiber.Protect(g, crmguard.View, contactOf, show))
//	app.Post("/contacts/:id/phone", guardfiber.ProtectAct(g, crmguard.Reveal, phoneOf, reveal))
//
// Loaders and handlers get the fiber.Ctx, with its path parameters, and return their
// error. A *fiber.Error between 400 and 499 is told to the client with its message
// (from unprotected routes: without it), as a *guard.Problem is; one with 404 is guard.ErrNotFound. Every other error stays
// on the server.
//
// A protected route has answered when it returns, so that fiber is told of no error
// and its ErrorHandler is not called.
//
// # Security notes
//
//   - The subject and the act are in c.Context(), not in c: pass the former on. The
//     act ends with its handler.
//   - Say Immutable. Without it fiber uses the memory of a request again for the next
//     one, and the string that c.Params, c.Query or c.Get returned becomes part of
//     somebody else's request wherever it was kept: as the key of a map, in a cache, in
//     a store in memory, in a goroutine. What a loader returns and what guard.Describe
//     adds is copied before it is recorded; what else a handler hands on is not.
//   - The address of the connection goes to guard.Options.Edge with all header lines;
//     c.IP and TrustProxy are not asked. A trailer is no header there, although c.Get
//     and c.IP find it as one. Requests that net/http refuses are refused, and those
//     with blanks in a header's name or with folded lines, because proxies and fasthttp
//     read them differently.
//   - A panic ends the process unless recover is mounted. Fiber's own ErrorHandler
//     then shows its text to the client; that of this package does not.
//   - An answer that is streamed (SendStreamWriter) is produced after its act was
//     recorded as done. fasthttp does not end the context when a client leaves.
package guardfiber

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v3"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// Loader is [guard.Loader] for fiber.
type Loader func(c fiber.Ctx) (crmguard.Resource, error)

// HandlerFunc is [guard.HandlerFunc] for fiber.
type HandlerFunc func(c fiber.Ctx) error

// Handler is [guard.Guard.Handler]: it puts the subject of each request, if it has
// one, into c.Context(). Mount it with Use, before the routes.
func Handler(g *guard.Guard) fiber.Handler {
	next := g.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		call := callOf(r)
		call.c.SetContext(r.Context())
		call.err = call.c.Next()
	}))
	return func(c fiber.Ctx) error { return serve(c, g, next) }
}

// Protect is [guard.Guard.Protect]: it serves what only shows.
func Protect(g *guard.Guard, a crmguard.Action, load Loader, h HandlerFunc) fiber.Handler {
	return mount(g, g.Protect(a, loader(load), handler(h)))
}

// ProtectAct is [guard.Guard.ProtectAct]: it serves acts that change, reveal or
// take something out.
func ProtectAct(g *guard.Guard, a crmguard.Action, load Loader, h HandlerFunc) fiber.Handler {
	return mount(g, g.ProtectAct(a, loader(load), handler(h)))
}

// SetSession is [guard.Guard.SetSession].
func SetSession(g *guard.Guard, c fiber.Ctx, token string) {
	w := newWriter(c)
	g.SetSession(w, token)
	w.flush()
}

// ClearSession is [guard.Guard.ClearSession].
func ClearSession(g *guard.Guard, c fiber.Ctx) {
	w := newWriter(c)
	g.ClearSession(w)
	w.flush()
}

// ErrorHandler answers what unprotected routes and fiber itself return, such as for
// a route that does not exist, with [guard.Guard.WriteError]. The message of a
// *fiber.Error is not told, because fiber writes there what fasthttp has read, cookies
// too; an unprotected route that has something to say returns a *guard.Problem.
func ErrorHandler(g *guard.Guard) fiber.ErrorHandler {
	return func(c fiber.Ctx, err error) error {
		r, _ := Request(c) // enough of it to answer, whatever is wrong with it
		if told, ok := errors.AsType[*fiber.Error](err); ok && told.Code < fiber.StatusInternalServerError {
			err = &fiber.Error{Code: told.Code}
		}
		g.WriteError(newWriter(c), r, translate(err))
		return nil
	}
}

// call is what the handlers of guard need to know of fiber's side.
type call struct {
	c   fiber.Ctx
	w   *writer
	err error // of what Handler was mounted before
}

type callKey struct{}

func callOf(r *http.Request) *call { return r.Context().Value(callKey{}).(*call) } // serve has put it there

// serve lets h, which is of g, answer c.
func serve(c fiber.Ctx, g *guard.Guard, h http.Handler) error {
	state := &call{c: c, w: newWriter(c)}
	r, err := Request(c)
	if err != nil {
		c.RequestCtx().SetConnectionClose() // what follows may be of this request
		g.WriteError(state.w, r, &guard.Problem{Status: fiber.StatusBadRequest, Title: http.StatusText(fiber.StatusBadRequest), Code: "malformed"})
		return nil
	}
	h.ServeHTTP(state.w, r.WithContext(context.WithValue(r.Context(), callKey{}, state)))
	return state.err
}

func mount(g *guard.Guard, protected http.Handler) fiber.Handler {
	return func(c fiber.Ctx) error {
		before := c.Context()
		defer c.SetContext(before) // what runs later is not this act
		return serve(c, g, protected)
	}
}

// loader and handler leave nil to guard, which panics as mounting does.
func loader(load Loader) guard.Loader {
	if load == nil {
		return nil
	}
	return func(r *http.Request) (crmguard.Resource, error) {
		c := callOf(r).c
		c.SetContext(r.Context())
		resource, err := load(c)
		guard.Describe(r.Context(), keep)
		return kept(resource), translate(err)
	}
}

func handler(h HandlerFunc) guard.HandlerFunc {
	if h == nil {
		return nil
	}
	return func(_ http.ResponseWriter, r *http.Request) error {
		call := callOf(r)
		call.c.SetContext(r.Context())
		call.w.flush() // what guard has set, such as no-store, before the handler answers
		defer guard.Describe(r.Context(), keep)
		return translate(h(call.c))
	}
}

// kept copies strings, which may lie in memory that fiber uses again.
func kept(r crmguard.Resource) crmguard.Resource {
	for _, s := range []*string{&r.Tenant, &r.Kind, &r.ID, &r.Field, &r.Owner, &r.Unit} {
		*s = strings.Clone(*s)
	}
	return r
}

// keep does the same for what was described.
func keep(d *guard.Details) {
	d.Reason = strings.Clone(d.Reason)
	d.Fields = slices.Clone(d.Fields)
	for i, name := range d.Fields {
		d.Fields[i] = strings.Clone(name)
	}
	d.Private = slices.Clone(d.Private)
	for i, p := range d.Private {
		d.Private[i] = crmguard.Private{Client: strings.Clone(p.Client), Name: strings.Clone(p.Name), Value: slices.Clone(p.Value)}
	}
}

// translate makes an error with which fiber tells of a client's mistake one with which
// guard does.
func translate(err error) error {
	told, ok := errors.AsType[*fiber.Error](err)
	switch {
	case !ok || told.Code < 400 || told.Code > 499:
		return err
	case told.Code == fiber.StatusNotFound:
		return guard.ErrNotFound
	}
	return &guard.Problem{Status: told.Code, Title: http.StatusText(told.Code), Detail: told.Message}
}
