package guardtest

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// fault is something that an adapter may do wrong. Zero: nothing.
type fault struct {
	early       bool // calls the handler, then asks
	dropsError  bool // tells guard that the handler succeeded
	dropsLoad   bool // the same for a loader
	oldContext  bool // gives the handler the context from before the decision
	recovers    bool // recovers from panics before guard sees them
	shows       bool // answers errors itself, with their text
	noHandler   bool // protects routes without finding out who asks
	firstLine   bool // passes on one line of each header
	trailers    bool // takes trailers for headers
	trusts      bool // takes the address from a header
	appends     bool // sends headers twice
	shares      bool // keeps ids in memory that it uses again
	losesHeader bool // does not pass on what guard sends
}

// start is an adapter of ServeMux with the fault.
func (f fault) start(t testing.TB, g *guard.Guard, routes []Route) string {
	var shared string
	var once sync.Once // what is shared is the fault, not a race in the test
	mux := http.NewServeMux()
	for _, route := range routes {
		load := func(r *http.Request) (crmguard.Resource, error) {
			resource, err := route.Load(HTTP(g, nil, r))
			if f.shares {
				once.Do(func() { shared = resource.ID })
				resource.ID = shared
			}
			if f.dropsLoad {
				err = nil
			}
			return resource, err
		}
		handle := func(w http.ResponseWriter, r *http.Request) (err error) {
			if f.recovers {
				defer func() {
					if recover() != nil {
						w.WriteHeader(http.StatusInternalServerError)
					}
				}()
			}
			err = route.Handle(HTTP(g, w, r))
			if f.dropsError {
				return nil
			}
			if f.shows && err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
			return err
		}
		var protected http.Handler
		switch {
		case route.Open():
			protected = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = handle(w, r) })
		case f.early:
			protected = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				err := handle(w, r)
				g.ProtectAct(route.Action, load, func(http.ResponseWriter, *http.Request) error { return err }).ServeHTTP(w, r)
			})
		case f.oldContext:
			protected = http.HandlerFunc(func(w http.ResponseWriter, before *http.Request) {
				g.ProtectAct(route.Action, load, func(w http.ResponseWriter, _ *http.Request) error { return handle(w, before) }).ServeHTTP(w, before)
			})
		case route.Acts:
			protected = g.ProtectAct(route.Action, load, handle)
		default:
			protected = g.Protect(route.Action, load, handle)
		}
		mux.Handle(route.Method+" "+route.Path, protected)
	}
	inner := g.Handler(mux)
	if f.noHandler {
		inner = mux
	}
	return Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.firstLine {
			for name, lines := range r.Header {
				r.Header[name] = lines[:1]
			}
		}
		if f.trailers {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			for name, lines := range r.Trailer {
				r.Header[name] = append(r.Header[name], lines...)
			}
		}
		if f.trusts && r.Header.Get("X-Real-Ip") != "" {
			r.RemoteAddr = r.Header.Get("X-Real-Ip") + ":1"
		}
		if f.appends || f.losesHeader {
			w = headerFault{w, f.appends}
		}
		inner.ServeHTTP(w, r)
	}))
}

type headerFault struct {
	http.ResponseWriter
	appends bool
}

func (h headerFault) WriteHeader(status int) {
	if h.appends {
		h.Header().Add("Cache-Control", "no-store")
	} else {
		h.Header().Del("Retry-After")
	}
	h.ResponseWriter.WriteHeader(status)
}

// failing returns the names of the cases that notice.
func failing(t *testing.T, start Start) []string {
	var names []string
	for _, c := range httpCases() {
		if c.check(t, start) != nil {
			names = append(names, c.name)
		}
	}
	for _, c := range callCases() {
		if c.check(t, callsOver(start)) != nil {
			names = append(names, c.name)
		}
	}
	return names
}

func TestPlantedFaultsAreNoticed(t *testing.T) {
	require.Empty(t, failing(t, fault{}.start))
	defer func(long time.Duration) { patience = long }(patience)
	patience = 100 * time.Millisecond // what a fault holds up does not come
	for name, c := range map[string]struct {
		fault fault
		by    []string // among others
	}{
		"handler first":         {fault{early: true}, []string{"another's record", "nobody acts", "act"}},
		"drops errors":          {fault{dropsError: true}, []string{"failed act", "failed view", "long body", "denied while it opens"}},
		"drops loaders' errors": {fault{dropsLoad: true}, []string{"conflict", "no record"}},
		"wrong context":         {fault{oldContext: true}, []string{"view", "act"}},
		"recovers too early":    {fault{recovers: true}, []string{"panic"}},
		"shows errors":          {fault{shows: true}, []string{"failed act", "erased"}},
		"without Handler":       {fault{noHandler: true}, []string{"view", "sessions down", "open route, somebody"}},
		"one line of a header":  {fault{firstLine: true}, []string{"header lines"}},
		"trailers as headers":   {fault{trailers: true}, []string{"trailers"}},
		"believes X-Real-IP":    {fault{trusts: true}, []string{"address"}},
		"sends headers twice":   {fault{appends: true}, []string{"headers"}},
		"loses headers":         {fault{losesHeader: true}, []string{"headers", "norm used up"}},
		"shared memory":         {fault{shares: true}, []string{"at the same time", "one connection"}},
	} {
		t.Run(name, func(t *testing.T) {
			noticed := failing(t, c.fault.start)
			require.Subset(t, noticed, c.by, strings.Join(noticed, ", "))
		})
	}
}
