// Package guardtest checks adapters of package guard: it sends the same requests
// through each and expects what net/http answers, and the same journal.
//
// An adapter mounts the [Route]s of the suite with its own Handler, Protect and
// ProtectAct, and translates each framework's context into an [Exchange]:
//
//	func TestAdapter(t *testing.T) {
//		guardtest.Run(t, func(t testing.TB, g *guard.Guard, routes []guardtest.Route) (addr string) {
//			app := framework.New()
//			app.Use(adapter.Handler(g))
//			for _, route := range routes { ... }
//			return guardtest.Serve(t, app)
//		})
//	}
//
// What is not HTTP offers a [Client] and runs [RunCalls], which leaves out cookies,
// headers, paths and cancelled connections.
//
// # What is checked
//
//   - A handler runs only after the decision and after the event was recorded,
//     in a context that has the subject, the act and the id of the request.
//   - Every error of a loader or handler becomes guard's own answer: nothing of it
//     is dropped, nothing of it is shown that guard would not show.
//   - What may not be seen looks like what does not exist, byte for byte but for
//     the id of the request.
//   - A panic and a client that leaves do not lose the outcome.
//   - What was recorded does not change when the framework uses its memory again.
//   - Every line of every header reaches guard.Options.Edge under its canonical
//     name, the address is that of the connection, and what net/http refuses
//     as malformed is refused.
package guardtest

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// Route is what an adapter mounts.
type Route struct {
	Name   string
	Method string
	Path   string // as http.ServeMux wants it, with at most the parameter {id}
	Action crmguard.Action
	Acts   bool // mounted with ProtectAct; false: with Protect
	Load   func(x Exchange) (crmguard.Resource, error)
	Handle func(x Exchange) error
}

// Open reports whether the route is mounted without protection.
func (r Route) Open() bool { return r.Action == "" }

// Exchange is a request as a loader or handler of the framework sees it.
type Exchange interface {
	// Context returns the context that code in a handler would hand on.
	Context() context.Context
	// ID returns the path's parameter.
	ID() string
	// Body reads the body, an *http.MaxBytesError if it is longer than limit.
	Body(limit int64) ([]byte, error)
	// Answer sends text with status 200.
	Answer(text string) error
}

// Cookies is what the exchanges of adapters for HTTP have, too.
type Cookies interface {
	SetSession(token string)
	ClearSession()
}

// Start mounts routes and serves them on a loopback address, which it returns,
// until the test ends.
type Start func(t testing.TB, g *guard.Guard, routes []Route) (addr string)

// Call is a request to one of the routes.
type Call struct {
	Route string // its name
	ID    string
	Token string // of the session; empty: nobody is signed in
	Body  string
}

// Answer is what the client was told.
type Answer struct {
	Status     int    // of HTTP; others translate theirs back
	Code       string // of a guard.Problem
	Instance   string // likewise
	Need       string // likewise
	RetryAfter time.Duration
	Text       string // the body of a 200
	Raw        string // everything that was sent, status and headers too
}

// Client sends one call. Its error means that there was no answer.
type Client func(ctx context.Context, c Call) (Answer, error)

// StartCalls mounts routes and returns a client for them.
type StartCalls func(t testing.TB, g *guard.Guard, routes []Route) Client

// Run checks an adapter for HTTP.
func Run(t *testing.T, start Start) {
	for _, c := range httpCases() {
		t.Run(c.name, func(t *testing.T) { report(t, c.name, c.rule, c.check(t, start)) })
	}
	RunCalls(t, callsOver(start))
}

// RunCalls checks an adapter for something else than HTTP.
func RunCalls(t *testing.T, start StartCalls) {
	for _, c := range callCases() {
		t.Run(c.name, func(t *testing.T) { report(t, c.name, c.rule, c.check(t, start)) })
	}
}

func report(t *testing.T, name, rule string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v\nrule: %s", name, err, rule)
	}
}

// Serve serves h on a loopback address until the test ends.
func Serve(t testing.TB, h http.Handler) (addr string) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // planned panics
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// HTTP is the exchange of net/http, and of frameworks that are net/http inside:
// they set the path value "id". A loader has no w.
func HTTP(g *guard.Guard, w http.ResponseWriter, r *http.Request) Exchange { return exchange{g, w, r} }

type exchange struct {
	g *guard.Guard
	w http.ResponseWriter
	r *http.Request
}

func (x exchange) Context() context.Context { return x.r.Context() }
func (x exchange) ID() string               { return x.r.PathValue("id") }
func (x exchange) SetSession(token string)  { x.g.SetSession(x.w, token) }
func (x exchange) ClearSession()            { x.g.ClearSession(x.w) }

func (x exchange) Body(limit int64) ([]byte, error) {
	return io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, limit))
}

func (x exchange) Answer(text string) error {
	_, err := io.WriteString(x.w, text)
	return err
}

// Colon writes the parameter of a [Route]'s path as :id.
func Colon(path string) string { return strings.Replace(path, "{id}", ":id", 1) }
