package guardtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
)

// secret is in every error of the host; no client may be told of it.
const secret = "secret-detail"

// bodyLimit is what the route update accepts.
const bodyLimit = 64 << 10

// host is a CRM with a few records, most of them anna's.
type host struct {
	guard   *guard.Guard
	journal *crmguardtest.Recorder
	started chan struct{} // the handler of the route wait runs
	release chan struct{} // it may go on

	mu    sync.Mutex
	ran   []sight
	edges []edge
}

// sight is what a handler saw when it ran.
type sight struct {
	route, id string
	subject   crmguard.Subject
	act       *crmguard.Act
	request   string
	events    []crmguard.Event
	body      string
}

// edge is what the edge saw of a request.
type edge struct {
	remote, host, path, method string
	forwarded                  []string
	header                     http.Header
}

// records are what the host knows.
var records = map[string]crmguard.Resource{
	"1":        {Tenant: "acme", Owner: "anna"},
	"2":        {Tenant: "acme", Owner: "boris"},
	"3":        {Tenant: "other", Owner: "anna"},
	"norm":     {Tenant: "acme", Owner: "anna"},
	"closed":   {Tenant: "acme", Owner: "anna"},
	"step-up":  {Tenant: "acme", Owner: "anna"},
	"down":     {Tenant: "acme", Owner: "anna"},
	"conflict": {Tenant: "acme", Owner: "anna"},
	"theirs":   {Tenant: "acme", Owner: "boris"}, // in conflict too
}

// newHost returns a host and its routes.
func newHost() (*host, []Route, error) {
	h := &host{journal: crmguardtest.NewRecorder(), started: make(chan struct{}, 1), release: make(chan struct{})}
	g, err := guard.New(sessions{}, rights{}, directory{}, h.journal, &guard.Options{
		Edge:   h.edge,
		Page:   page,
		Logger: slog.New(slog.DiscardHandler),
	})
	h.guard = g
	return h, h.routes(), err
}

// edge believes the last line of X-Forwarded-For, as behind one trusted proxy.
func (h *host) edge(r *http.Request) (netip.Addr, error) {
	e := edge{r.RemoteAddr, r.Host, r.URL.Path, r.Method, r.Header.Values("X-Forwarded-For"), r.Header.Clone()}
	h.mu.Lock()
	h.edges = append(h.edges, e)
	h.mu.Unlock()
	connection, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !connection.Addr().Unmap().IsLoopback() {
		return netip.Addr{}, fmt.Errorf("not a loopback connection: %q", r.RemoteAddr)
	}
	if len(e.forwarded) == 0 {
		return connection.Addr().Unmap(), nil
	}
	return netip.ParseAddr(e.forwarded[len(e.forwarded)-1])
}

func page(w http.ResponseWriter, _ *http.Request, p guard.Problem) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(p.Status)
	_, _ = fmt.Fprintf(w, "<h1>%s</h1>", p.Code)
}

type sessions struct{}

func (sessions) Authenticate(_ context.Context, token string) (crmguard.Subject, error) {
	id, ok := strings.CutSuffix(token, "-token")
	switch {
	case token == "store-down":
		return crmguard.Subject{}, errors.New(secret)
	case !ok:
		return crmguard.Subject{}, &crmguard.Denial{By: "session", Code: "unknown", Status: crmguard.Unauthenticated, Detail: secret}
	}
	return crmguard.Subject{
		Tenant: "acme", ID: id, Kind: crmguard.KindEmployee, Session: "s-" + id, Assurance: crmguard.AssurancePassword,
	}, nil
}

type directory struct{}

func (directory) Resolve(context.Context, string, string) (roles, units []string, err error) {
	return []string{"seller"}, []string{"sales"}, nil
}

// rights let people do everything but Delete to their own records.
type rights struct{}

func (rights) Check(_ context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	no := &crmguard.Denial{By: "rights", Code: "no-rule", Detail: secret}
	switch {
	case r.Owner != s.ID || a == crmguard.Delete:
		return no
	case r.ID == "norm":
		no.Code, no.Status, no.RetryAfter = "norm", crmguard.Exhausted, 89500*time.Millisecond
	case r.ID == "closed":
		no.Code, no.Status, no.RetryAfter = "lockdown", crmguard.Closed, time.Minute
	case r.ID == "step-up":
		no.Code, no.Status, no.Need = "factor", crmguard.StepUp, crmguard.AssuranceSecondFactor
	case r.ID == "down":
		return errors.New(secret)
	default:
		return nil
	}
	return no
}

// load finds a record; of-anna is one of anna's.
func load(x Exchange) (crmguard.Resource, error) {
	id := x.ID()
	if id == "broken" {
		return crmguard.Resource{}, errors.New(secret)
	}
	r, ok := records[id]
	if owner, isOwned := strings.CutPrefix(id, "of-"); isOwned {
		r, ok = crmguard.Resource{Tenant: "acme", Owner: owner}, true
	}
	r.Kind, r.ID, r.Unit = "contacts", id, "sales"
	switch {
	case !ok:
		return r, guard.ErrNotFound
	case id == "conflict" || id == "theirs":
		return r, &guard.Problem{Status: http.StatusConflict, Title: "Changed meanwhile", Code: "changed"}
	}
	return r, nil
}

func (h *host) routes() []Route {
	answer := func(x Exchange, _ []byte) error { return x.Answer("card " + x.ID()) }
	fail := func(err error) func(Exchange, []byte) error {
		return func(Exchange, []byte) error { return err }
	}
	routes := []Route{
		{Name: "show", Method: "GET", Path: "/contacts/{id}", Action: crmguard.View},
		{Name: "head", Method: "HEAD", Path: "/contacts/{id}", Action: crmguard.View},
		{Name: "reveal", Method: "POST", Path: "/contacts/{id}/phone", Action: crmguard.Reveal, Acts: true},
		{Name: "delete", Method: "DELETE", Path: "/contacts/{id}", Action: crmguard.Delete, Acts: true},
	}
	for i := range routes {
		routes[i].Handle = h.handler(routes[i].Name, answer)
	}
	add := func(name string, a crmguard.Action, acts bool, then func(Exchange, []byte) error) {
		routes = append(routes, Route{
			Name: name, Method: "POST", Path: "/" + name + "/{id}", Action: a, Acts: acts, Handle: h.handler(name, then),
		})
	}
	add("show-fails", crmguard.View, false, fail(errors.New(secret)))
	add("fails", crmguard.Call, true, fail(errors.New(secret)))
	add("refuses", crmguard.Call, true, fail(&guard.Problem{Status: http.StatusUnprocessableEntity, Title: "Reason missing", Code: "reason"}))
	add("erased", crmguard.Reveal, true, fail(fmt.Errorf("%s: %w", secret, crmguard.ErrErased)))
	add("opened", crmguard.Reveal, true, fail(fmt.Errorf("%s: %w", secret, &crmguard.Denial{
		By: "quota", Code: "norm", Status: crmguard.Exhausted, RetryAfter: time.Hour, Detail: secret,
	})))
	add("panics", crmguard.Call, true, func(Exchange, []byte) error { panic(secret) })
	add("update", crmguard.Update, true, func(x Exchange, body []byte) error { return x.Answer(fmt.Sprintf("%d bytes", len(body))) })
	add("wait", crmguard.Export, true, func(x Exchange, _ []byte) error {
		h.started <- struct{}{}
		<-h.release
		return x.Answer("exported")
	})
	for i := range routes {
		routes[i].Load = load
	}
	return append(routes,
		Route{Name: "public", Method: "GET", Path: "/public/{id}", Handle: h.handler("public", func(x Exchange, _ []byte) error {
			s, _ := crmguard.SubjectFrom(x.Context())
			return x.Answer("hello " + s.ID)
		})},
		Route{Name: "sign-in", Method: "POST", Path: "/sign-in/{id}", Handle: h.handler("sign-in", func(x Exchange, _ []byte) error {
			x.(Cookies).SetSession(x.ID() + "-token")
			return x.Answer("welcome")
		})},
		Route{Name: "sign-out", Method: "POST", Path: "/sign-out/{id}", Handle: h.handler("sign-out", func(x Exchange, _ []byte) error {
			x.(Cookies).ClearSession()
			return x.Answer("bye")
		})},
	)
}

// handler notes what the handler of a route sees, and goes on.
func (h *host) handler(route string, then func(x Exchange, body []byte) error) func(Exchange) error {
	return func(x Exchange) error {
		ctx := x.Context()
		s := sight{
			route: route, id: strings.Clone(x.ID()), act: crmguard.ActFrom(ctx), request: guard.RequestID(ctx),
			events: h.journal.Events(),
		}
		s.subject, _ = crmguard.SubjectFrom(ctx)
		var body []byte
		var err error
		if route == "update" {
			body, err = x.Body(bodyLimit)
			s.body = string(body)
		}
		h.mu.Lock()
		h.ran = append(h.ran, s)
		h.mu.Unlock()
		if err != nil {
			return err
		}
		return then(x, body)
	}
}

func (h *host) sights() []sight {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ran)
}

func (h *host) lastEdge() edge {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.edges) == 0 {
		return edge{}
	}
	return h.edges[len(h.edges)-1]
}

// short is the journal in words.
func (h *host) short() []string {
	short := []string{}
	for _, e := range h.journal.Events() {
		short = append(short, fmt.Sprintf("%s %s %s/%s %s %s", e.Subject.ID, e.Action, e.Resource.Kind, e.Resource.ID, e.Outcome, e.Reason))
	}
	return short
}

// settled waits for the journal to have n entries: that a client has its answer
// does not mean that the outcome is recorded.
func (h *host) settled(n int) []string {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if len(h.journal.Events()) >= n {
			break
		}
	}
	return h.short()
}

// patience is how long the suite waits for what has to come.
var patience = 10 * time.Second
