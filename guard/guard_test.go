package guard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
)

// crm is a host with two records: anna owns 1 and may view and reveal it; boris
// owns 2.
type crm struct {
	t       *testing.T
	guard   *guard.Guard
	rights  *ownerRights
	journal *crmguardtest.Recorder
	dir     *directory
	mux     *http.ServeMux
	server  http.Handler
	seen    int // events that were there when the handler ran
}

// ownerRights lets people do what is listed to their own records.
type ownerRights struct {
	own   map[crmguard.Action]bool
	err   error
	asked int
}

func (o *ownerRights) Check(_ context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	o.asked++
	switch {
	case o.err != nil:
		return o.err
	case r.Owner == s.ID && o.own[a]:
		return nil
	}
	return &crmguard.Denial{By: "rights", Code: "no-rule", Detail: "secret detail"}
}

func (*ownerRights) Version() string { return "v7" }

type sessions map[string]crmguard.Subject

func (s sessions) Authenticate(_ context.Context, token string) (crmguard.Subject, error) {
	if token == "store-down" {
		return crmguard.Subject{}, errors.New("store down")
	}
	if subject, ok := s[token]; ok {
		return subject, nil
	}
	return crmguard.Subject{}, &crmguard.Denial{By: "session", Code: "unknown", Status: crmguard.Unauthenticated}
}

type directory struct{ err error }

func (d *directory) Resolve(context.Context, string, string) ([]string, []string, error) {
	return []string{"seller"}, []string{"sales"}, d.err
}

func person(id string) crmguard.Subject {
	return crmguard.Subject{Tenant: "acme", ID: id, Kind: crmguard.KindEmployee, Session: "s-" + id, Assurance: crmguard.AssurancePassword}
}

func newCRM(t *testing.T, o *guard.Options) *crm {
	t.Helper()
	c := &crm{
		t:       t,
		rights:  &ownerRights{own: map[crmguard.Action]bool{crmguard.View: true, crmguard.Reveal: true}},
		journal: crmguardtest.NewRecorder(),
		dir:     &directory{},
		mux:     http.NewServeMux(),
	}
	if o == nil {
		o = &guard.Options{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	g, err := guard.New(sessions{"anna-token": person("anna"), "boris-token": person("boris")}, c.rights, c.dir, c.journal, o)
	require.NoError(t, err)
	c.guard, c.server = g, g.Handler(c.mux)
	return c
}

func contactOf(r *http.Request) (crmguard.Resource, error) {
	owners := map[string]string{"1": "anna", "2": "boris"}
	id := r.PathValue("id")
	resource := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: id, Owner: owners[id], Unit: "sales"}
	if owners[id] == "" {
		return resource, guard.ErrNotFound
	}
	return resource, nil
}

func (c *crm) request(method, target, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	if token != "" {
		r.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
	}
	w := httptest.NewRecorder()
	c.server.ServeHTTP(w, r)
	return w
}

// outcomes is the journal in short.
func (c *crm) outcomes() (short []string) {
	for _, e := range c.journal.Events() {
		short = append(short, fmt.Sprintf("%s %s/%s %s %s", e.Action, e.Resource.Kind, e.Resource.ID, e.Outcome, e.Reason))
	}
	return short
}

func show(w http.ResponseWriter, _ *http.Request) error {
	_, err := io.WriteString(w, "the card")
	return err
}

func TestProtectRecordsBeforeItAnswers(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("GET /contacts/{id}", c.guard.Protect(crmguard.View, contactOf, func(w http.ResponseWriter, r *http.Request) error {
		require.Len(t, c.journal.Events(), 1, "the event is there before the handler runs")
		s, ok := crmguard.SubjectFrom(r.Context())
		require.True(t, ok)
		require.Equal(t, []string{"seller"}, s.Roles)
		require.Equal(t, netip.MustParseAddr("192.0.2.1"), s.Addr)
		act := crmguard.ActFrom(r.Context())
		require.Equal(t, crmguard.View, act.Action)
		require.Equal(t, "1", act.Resource.ID)
		return show(w, r)
	}))
	w := c.request("GET", "/contacts/1", "anna-token")
	require.Equal(t, "the card", w.Body.String())
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	require.Equal(t, []string{"view contacts/1 done "}, c.outcomes())
	e := c.journal.Events()[0]
	require.Equal(t, "v7", e.Policy)
	require.NotEmpty(t, e.Request)
	require.NotEmpty(t, e.ID)
}

func TestProtectActOutcomes(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name   string
		act    guard.HandlerFunc
		status int
		want   []string
	}{
		{"done", show, 200, []string{"reveal contacts/1 attempted ", "reveal contacts/1 done "}},
		{"failed", func(http.ResponseWriter, *http.Request) error { return boom }, 500,
			[]string{"reveal contacts/1 attempted ", "reveal contacts/1 failed error"}},
		{"a client's mistake", func(http.ResponseWriter, *http.Request) error {
			return &guard.Problem{Status: 422, Title: "Reason missing", Code: "reason"}
		}, 422, []string{"reveal contacts/1 attempted ", "reveal contacts/1 failed error"}},
		{"erased", func(http.ResponseWriter, *http.Request) error { return fmt.Errorf("open: %w", crmguard.ErrErased) }, 410,
			[]string{"reveal contacts/1 attempted ", "reveal contacts/1 failed error"}},
		{"described", func(w http.ResponseWriter, r *http.Request) error {
			guard.Describe(r.Context(), func(d *guard.Details) {
				d.Reason, d.Fields, d.Count = "callback", []string{"phone"}, 1
			})
			return show(w, r)
		}, 200, []string{"reveal contacts/1 attempted ", "reveal contacts/1 done callback"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCRM(t, nil)
			c.mux.Handle("POST /contacts/{id}/phone", c.guard.ProtectAct(crmguard.Reveal, contactOf, tt.act))
			require.Equal(t, tt.status, c.request("POST", "/contacts/1/phone", "anna-token").Code)
			require.Equal(t, tt.want, c.outcomes())
			events := c.journal.Events()
			require.Equal(t, events[0].ID, events[1].ID)
			require.Equal(t, "anna", events[1].Subject.ID)
		})
	}
}

func TestPanicIsAFailedAct(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("POST /contacts/{id}/phone", c.guard.ProtectAct(crmguard.Reveal, contactOf, func(http.ResponseWriter, *http.Request) error {
		panic("handler")
	}))
	require.PanicsWithValue(t, "handler", func() { c.request("POST", "/contacts/1/phone", "anna-token") })
	require.Equal(t, []string{"reveal contacts/1 attempted ", "reveal contacts/1 failed panic"}, c.outcomes())
}

func TestSettledActIsRecordedOnce(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name          string
		commit, after error
		want          string
	}{
		{"committed", nil, nil, "reveal contacts/1 done in the transaction"},
		{"committed, then the page fails", nil, boom, "reveal contacts/1 done in the transaction"},
		{"rolled back", boom, nil, "reveal contacts/1 failed error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCRM(t, nil)
			c.mux.Handle("POST /contacts/{id}/phone", c.guard.ProtectAct(crmguard.Reveal, contactOf, func(w http.ResponseWriter, r *http.Request) error {
				err := guard.Settle(r.Context(), func(done crmguard.Event) error {
					if tt.commit != nil {
						return tt.commit
					}
					require.Equal(t, crmguard.Done, done.Outcome)
					done.Reason = "in the transaction"
					return c.journal.Record(r.Context(), done)
				})
				if err == nil {
					require.Error(t, guard.Settle(r.Context(), func(crmguard.Event) error { return nil }), "once")
				}
				return errors.Join(err, tt.after)
			}))
			c.request("POST", "/contacts/1/phone", "anna-token")
			require.Equal(t, []string{"reveal contacts/1 attempted ", tt.want}, c.outcomes())
		})
	}
	require.Error(t, guard.Settle(t.Context(), func(crmguard.Event) error { t.Error("called"); return nil }), "outside an act")
}

// Under Protect the event is in the journal before the handler runs; nothing can
// be settled or added any more, and a handler that tries to settle is told so.
func TestProtectCannotBeSettled(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("GET /contacts/{id}", c.guard.Protect(crmguard.View, contactOf, func(_ http.ResponseWriter, r *http.Request) error {
		guard.Describe(r.Context(), func(d *guard.Details) { d.Reason = "too late" })
		return guard.Settle(r.Context(), func(crmguard.Event) error { t.Error("called"); return nil })
	}))
	require.Equal(t, 500, c.request("GET", "/contacts/1", "anna-token").Code)
	require.Equal(t, []string{"view contacts/1 done ", "view contacts/1 failed error"}, c.outcomes())
}

// What cannot be decided or recorded is refused, and the handler is not called.
func TestRefusesWhenAPartIsDown(t *testing.T) {
	down := errors.New("down")
	for _, tt := range []struct {
		name     string
		token    string
		sabotage func(c *crm)
		want     int
	}{
		{"journal", "anna-token", func(c *crm) { c.journal.Fail(down) }, 503},
		{"rights", "anna-token", func(c *crm) { c.rights.err = down }, 503},
		{"directory", "anna-token", func(c *crm) { c.dir.err = down }, 503},
		{"session store", "store-down", func(*crm) {}, 503},
		{"forged cookie", "forged", func(*crm) {}, 401},
		{"no cookie", "", func(*crm) {}, 401},
	} {
		for _, protect := range []string{"Protect", "ProtectAct"} {
			t.Run(tt.name+"/"+protect, func(t *testing.T) {
				c := newCRM(t, nil)
				handler := func(http.ResponseWriter, *http.Request) error { t.Error("the handler ran"); return nil }
				if protect == "Protect" {
					c.mux.Handle("GET /contacts/{id}", c.guard.Protect(crmguard.View, contactOf, handler))
				} else {
					c.mux.Handle("GET /contacts/{id}", c.guard.ProtectAct(crmguard.View, contactOf, handler))
				}
				tt.sabotage(c)
				w := c.request("GET", "/contacts/1", tt.token)
				require.Equal(t, tt.want, w.Code)
				require.NotContains(t, w.Body.String(), "down")
			})
		}
	}
}

// hides reports whether a guard answers for a foreign record as for an absent one.
func hides(c *crm) bool {
	return c.request("GET", "/contacts/2", "anna-token").Code == c.request("GET", "/contacts/999", "anna-token").Code
}

// recordsFirst reports whether the event was in the journal before the handler ran.
func recordsFirst(c *crm) bool {
	c.seen = -1
	c.request("GET", "/contacts/1", "anna-token")
	return c.seen == 1
}

// The two properties hold, and a guard that lacks one of them is noticed.
func TestPlantedFaults(t *testing.T) {
	build := func(rights crmguard.Checker, journal func(c *crm) crmguard.Recorder) *crm {
		c := newCRM(t, nil)
		if rights == nil {
			rights = c.rights
		}
		g, err := guard.New(sessions{"anna-token": person("anna")}, rights, c.dir, journal(c), nil)
		require.NoError(t, err)
		c.mux.Handle("GET /contacts/{id}", g.Protect(crmguard.View, contactOf, func(w http.ResponseWriter, r *http.Request) error {
			c.seen = len(c.journal.Events())
			return show(w, r)
		}))
		c.server = g.Handler(c.mux)
		return c
	}
	honest := func(c *crm) crmguard.Recorder { return c.journal }
	dropping := func(*crm) crmguard.Recorder {
		return crmguard.RecorderFunc(func(context.Context, crmguard.Event) error { return nil })
	}
	require.True(t, hides(build(nil, honest)))
	require.False(t, hides(build(crmguardtest.Allow(), honest)), "rights that say yes to everything")
	require.True(t, recordsFirst(build(nil, honest)))
	require.False(t, recordsFirst(build(nil, dropping)), "a journal that drops")
}

func TestMountingNonsensePanics(t *testing.T) {
	c := newCRM(t, nil)
	require.Panics(t, func() { c.guard.Protect(crmguard.Delete, contactOf, show) })
	require.Panics(t, func() { c.guard.Protect("veiw", contactOf, show) })
	require.Panics(t, func() { c.guard.ProtectAct(crmguard.Delete, nil, show) })
	require.Panics(t, func() { c.guard.ProtectAct(crmguard.Delete, contactOf, nil) })
	require.Panics(t, func() { c.guard.ProtectAct("", contactOf, show) })
}

// What rights answer wrongly is no yes and no panic.
func TestRightsThatAnswerNonsense(t *testing.T) {
	c := newCRM(t, nil)
	var none *crmguard.Denial
	for name, rights := range map[string]crmguard.Checker{
		"typed nil": crmguard.CheckerFunc(func(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error { return none }),
		"short":     shortRights{},
	} {
		g, err := guard.New(sessions{}, rights, c.dir, c.journal, nil)
		require.NoError(t, err)
		ctx := crmguard.WithSubject(t.Context(), person("anna"))
		rs := []crmguard.Resource{{Tenant: "acme", Kind: "contacts", ID: "1"}, {Tenant: "acme", Kind: "contacts", ID: "2"}}
		for _, err := range g.CheckAll(ctx, crmguard.View, rs) {
			require.Error(t, err, name)
		}
		require.Error(t, g.Do(ctx, crmguard.View, rs[0], func(context.Context) error { t.Error("done"); return nil }), name)
	}
}

// shortRights answers fewer questions than were asked.
type shortRights struct{}

func (shortRights) Check(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error {
	return errors.New("down")
}

func (shortRights) CheckAll(context.Context, crmguard.Subject, crmguard.Action, []crmguard.Resource) []error {
	return []error{nil}
}

func TestPrivateIsHandedOverOnce(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("POST /contacts/{id}/phone", c.guard.ProtectAct(crmguard.Reveal, func(r *http.Request) (crmguard.Resource, error) {
		guard.Describe(r.Context(), func(d *guard.Details) {
			d.Private = append(d.Private, crmguard.Private{Client: "1", Name: "why", Value: []byte("wants a callback")})
		})
		return contactOf(r)
	}, show))
	c.request("POST", "/contacts/1/phone", "anna-token")
	events := c.journal.Events()
	require.Len(t, events[0].Private, 1)
	require.Empty(t, events[1].Private)
}

func TestOutcomeIsRecordedAfterTheClientLeft(t *testing.T) {
	c := newCRM(t, nil)
	var recorded error
	journal := crmguard.RecorderFunc(func(ctx context.Context, e crmguard.Event) error {
		recorded = ctx.Err()
		return c.journal.Record(ctx, e)
	})
	g, err := guard.New(sessions{}, crmguardtest.Allow(), c.dir, journal, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(crmguard.WithSubject(t.Context(), person("anna")))
	err = g.Do(ctx, crmguard.Export, crmguard.Resource{Tenant: "acme", Kind: "contacts"}, func(context.Context) error {
		cancel()
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, recorded)
	require.Equal(t, []string{"export contacts/ attempted ", "export contacts/ done "}, c.outcomes())
}

func TestAddressRulesComeBeforeRights(t *testing.T) {
	rights := crmguardtest.NewChecker()
	c := newCRM(t, nil)
	g, err := guard.New(sessions{}, rights, c.dir, c.journal, &guard.Options{Addresses: crmguardtest.Deny("foreign-address")})
	require.NoError(t, err)
	ctx := crmguard.WithSubject(t.Context(), person("anna"))
	err = g.Check(ctx, crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts"})
	denial, ok := errors.AsType[*crmguard.Denial](err)
	require.True(t, ok)
	require.Equal(t, "foreign-address", denial.Code)
	require.Empty(t, rights.Calls())
}

func TestNewWantsEveryPart(t *testing.T) {
	_, err := guard.New(nil, crmguardtest.Allow(), &directory{}, crmguardtest.NewRecorder(), nil)
	require.Error(t, err)
	_, err = guard.New(sessions{}, nil, &directory{}, crmguardtest.NewRecorder(), nil)
	require.Error(t, err)
	_, err = guard.New(sessions{}, crmguardtest.Allow(), &directory{}, nil, nil)
	require.Error(t, err)
}

func TestCheckDoesNotAllocate(t *testing.T) {
	g, err := guard.New(sessions{}, crmguardtest.Allow(), &directory{}, crmguardtest.NewRecorder(), nil)
	require.NoError(t, err)
	ctx := crmguard.WithSubject(t.Context(), person("anna"))
	r := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "anna"}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if g.Check(ctx, crmguard.View, r) != nil {
			t.Fail()
		}
	}))
}

func BenchmarkCheck(b *testing.B) {
	g, err := guard.New(sessions{}, crmguardtest.Allow(), &directory{}, crmguardtest.NewRecorder(), nil)
	require.NoError(b, err)
	ctx := crmguard.WithSubject(b.Context(), person("anna"))
	r := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "anna"}
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Check(ctx, crmguard.View, r); err != nil {
			b.Fatal(err)
		}
	}
}
