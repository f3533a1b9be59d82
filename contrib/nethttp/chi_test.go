package nethttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/guardtest"
)

func TestChi(t *testing.T) {
	for name, outside := range map[string][]func(http.Handler) http.Handler{
		"as it comes":     nil,
		"with middleware": {middleware.RequestID, middleware.Compress(5)},
	} {
		t.Run(name, func(t *testing.T) {
			guardtest.Run(t, func(t testing.TB, g *guard.Guard, routes []guardtest.Route) string {
				r := chi.NewRouter()
				r.Use(outside...)
				r.Use(g.Handler)
				for _, route := range routes {
					load := func(r *http.Request) (crmguard.Resource, error) { return route.Load(guardtest.HTTP(g, nil, r)) }
					handle := func(w http.ResponseWriter, r *http.Request) error { return route.Handle(guardtest.HTTP(g, w, r)) }
					var h http.Handler
					switch {
					case route.Open():
						h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = handle(w, r) })
					case route.Acts:
						h = g.ProtectAct(route.Action, load, handle)
					default:
						h = g.Protect(route.Action, load, handle)
					}
					r.Method(route.Method, route.Path, h)
				}
				return guardtest.Serve(t, r)
			})
		})
	}
}

// byCookie takes each token for a person's name. Hosts have session.Manager.
type byCookie struct{}

func (byCookie) Authenticate(_ context.Context, token string) (crmguard.Subject, error) {
	return crmguard.Subject{Tenant: "acme", ID: token, Kind: crmguard.KindEmployee}, nil
}

func (byCookie) Resolve(context.Context, string, string) (roles, units []string, err error) {
	return []string{"seller"}, []string{"sales"}, nil
}

func Example_chi() {
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts")
	g, err := guard.New(byCookie{}, rights, byCookie{}, crmguardtest.NewRecorder(), nil)
	if err != nil {
		panic(err)
	}
	contactOf := func(r *http.Request) (crmguard.Resource, error) { // owner and department come from the host's own data
		return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: r.PathValue("id"), Owner: "anna", Unit: "sales"}, nil
	}
	phoneOf := contactOf
	show := func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, "the card of client "+r.PathValue("id"))
		return err
	}
	reveal := show

	r := chi.NewRouter()
	r.Use(g.Handler)
	r.Method("GET", "/contacts/{id}", g.Protect(crmguard.View, contactOf, show))
	r.Method("POST", "/contacts/{id}/phone", g.ProtectAct(crmguard.Reveal, phoneOf, reveal))

	for _, person := range []string{"anna", "boris"} {
		request := httptest.NewRequest("GET", "/contacts/17", nil)
		request.AddCookie(&http.Cookie{Name: "__Host-session", Value: person})
		w := httptest.NewRecorder()
		r.ServeHTTP(w, request)
		fmt.Println(person, w.Code)
	}
	// Output:
	// anna 200
	// boris 404
}
