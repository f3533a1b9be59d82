package guardtest_test

import (
	"net/http"
	"testing"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/guardtest"
)

// http.ServeMux needs no adapter.
func TestServeMux(t *testing.T) {
	guardtest.Run(t, func(t testing.TB, g *guard.Guard, routes []guardtest.Route) string {
		mux := http.NewServeMux()
		for _, route := range routes {
			load := func(r *http.Request) (crmguard.Resource, error) { return route.Load(guardtest.HTTP(g, nil, r)) }
			handle := func(w http.ResponseWriter, r *http.Request) error { return route.Handle(guardtest.HTTP(g, w, r)) }
			pattern := route.Method + " " + route.Path
			switch {
			case route.Open():
				mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
					if err := handle(w, r); err != nil {
						g.WriteError(w, r, err)
					}
				})
			case route.Acts:
				mux.Handle(pattern, g.ProtectAct(route.Action, load, handle))
			default:
				mux.Handle(pattern, g.Protect(route.Action, load, handle))
			}
		}
		return guardtest.Serve(t, g.Handler(mux))
	})
}
