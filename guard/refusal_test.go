package guard_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// norms has a norm of refusals, and notes what it is told.
type norms struct {
	crm   *crm
	no    error // what Check answers
	fail  error // what CountRefusal answers
	told  []string
	after []string // what was in the journal by then
	ended []error  // of the contexts
}

func (n *norms) Check(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error {
	return n.no
}

func (n *norms) CountRefusal(ctx context.Context, s crmguard.Subject) error {
	n.told, n.after, n.ended = append(n.told, s.ID), n.crm.outcomes(), append(n.ended, ctx.Err())
	return n.fail
}

func no(status crmguard.DenialStatus) *crmguard.Denial {
	return &crmguard.Denial{By: "test", Code: "no", Status: status}
}

func answers(err error) crmguard.Checker {
	return crmguard.CheckerFunc(func(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error { return err })
}

// newNormsCRM is a crm with norms, which options may wrap. Contact 3 is another tenant's.
func newNormsCRM(t *testing.T, n *norms, o guard.Options) *crm {
	if o.Norms == nil {
		o.Norms = n
	}
	c := newCRM(t, &o)
	n.crm = c
	load := func(r *http.Request) (crmguard.Resource, error) {
		resource, err := contactOf(r)
		if resource.ID == "3" {
			return crmguard.Resource{Tenant: "other", Kind: "contacts", ID: "3", Owner: "anna"}, nil
		}
		if r.URL.Query().Has("bad") && err == nil {
			err = &guard.Problem{Status: 422, Title: "A reason is needed"}
		}
		return resource, err
	}
	c.mux.Handle("GET /contacts/{id}", c.guard.Protect(crmguard.View, load, show))
	c.mux.Handle("POST /contacts/{id}/phone", c.guard.ProtectAct(crmguard.Reveal, load, show))
	c.mux.Handle("POST /contacts/{id}/delete", c.guard.ProtectAct(crmguard.Delete, load, show))
	c.mux.Handle("GET /staff", c.guard.Protect(crmguard.Access, func(*http.Request) (crmguard.Resource, error) {
		return crmguard.Resource{Tenant: "acme", Kind: "section:staff"}, nil
	}, show))
	c.mux.Handle("GET /broken", c.guard.Protect(crmguard.Access, func(*http.Request) (crmguard.Resource, error) {
		return crmguard.Resource{}, errors.New("down")
	}, show))
	return c
}

// What others than the norms deny is told to the norms, once, when the entry is
// there; nothing else is.
func TestRefusalsAreToldToTheNorms(t *testing.T) {
	get, post := "GET", "POST"
	for _, tt := range []struct {
		name         string
		method, path string
		o            guard.Options
		normsSay     error
		rightsDown   error
		status       int
		told         bool
	}{
		{name: "hidden", method: get, path: "/contacts/2", status: 404, told: true},
		{name: "hidden from another act", method: post, path: "/contacts/2/phone", status: 404, told: true},
		{name: "absent", method: get, path: "/contacts/999", status: 404, told: true},
		{name: "another tenant's", method: get, path: "/contacts/3", status: 404, told: true},
		{name: "hidden, and the form is wrong", method: post, path: "/contacts/2/phone?bad", status: 404, told: true},
		{name: "seen, and the act is not allowed", method: post, path: "/contacts/1/delete", status: 403, told: true},
		{name: "no record", method: get, path: "/staff", status: 403, told: true},
		{name: "address", method: get, path: "/contacts/1", o: guard.Options{Addresses: answers(no(crmguard.Forbidden))}, status: 404, told: true},
		{name: "allowed", method: get, path: "/contacts/1", status: 200},
		{name: "allowed, and the form is wrong", method: post, path: "/contacts/1/phone?bad", status: 422},
		{name: "a proof is wanted", method: get, path: "/contacts/1", o: guard.Options{StepUp: answers(no(crmguard.StepUp))}, status: 401},
		{name: "closed", method: get, path: "/contacts/1", o: guard.Options{Addresses: answers(no(crmguard.Closed))}, status: 503},
		{name: "closed, of the absent", method: get, path: "/contacts/999", o: guard.Options{Addresses: answers(no(crmguard.Closed))}, status: 503},
		{name: "the norm's own no", method: get, path: "/contacts/1", normsSay: no(crmguard.Exhausted), status: 429},
		{name: "the norm's own no in other words", method: get, path: "/contacts/1", normsSay: no(crmguard.Forbidden), status: 404},
		{name: "undecided", method: get, path: "/contacts/2", rightsDown: errors.New("down"), status: 503},
		{name: "the loader is down", method: get, path: "/broken", status: 500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &norms{no: tt.normsSay}
			c := newNormsCRM(t, n, tt.o)
			c.rights.err = tt.rightsDown
			require.Equal(t, tt.status, c.request(tt.method, tt.path, "anna-token").Code)
			if !tt.told {
				require.Empty(t, n.told)
				return
			}
			require.Equal(t, []string{"anna"}, n.told)
			require.Len(t, n.after, 1, "the entry is recorded first")
			require.Equal(t, c.outcomes(), n.after)
		})
	}
	t.Run("nobody", func(t *testing.T) {
		n := &norms{}
		c := newNormsCRM(t, n, guard.Options{})
		require.Equal(t, 401, c.request(get, "/contacts/2", "forged").Code)
		require.Empty(t, n.told)
	})
	t.Run("nothing is recorded", func(t *testing.T) {
		n := &norms{}
		c := newNormsCRM(t, n, guard.Options{})
		c.journal.Fail(errors.New("full"))
		for _, path := range []string{"/contacts/2", "/contacts/999"} {
			require.Equal(t, 503, c.request(get, path, "anna-token").Code)
		}
		require.Empty(t, n.told)
	})
}

// refused is how often the norms were told of one request for a hidden, a foreign
// and an absent record.
func refused(t *testing.T, wrap func(n *norms) crmguard.Checker) map[string]int {
	told := map[string]int{}
	for name, path := range map[string]string{"hidden": "/contacts/2/phone", "foreign": "/contacts/3/phone", "absent": "/contacts/999/phone"} {
		n := &norms{}
		c := newNormsCRM(t, n, guard.Options{Norms: wrap(n)})
		require.Equal(t, 404, c.request("POST", path, "anna-token").Code)
		told[name] = len(n.told)
	}
	return told
}

// Neither count nor cost tells what exists. The planted fault: norms behind a
// wrapper that forgets the method.
func TestHiddenForeignAndAbsentAreCountedAlike(t *testing.T) {
	alike := map[string]int{"hidden": 1, "foreign": 1, "absent": 1}
	require.Equal(t, alike, refused(t, func(n *norms) crmguard.Checker { return n }))
	require.NotEqual(t, alike, refused(t, func(n *norms) crmguard.Checker { return crmguard.CheckerFunc(n.Check) }))
}

// What a page asks to know what to offer is no attempt.
func TestAskingIsNoAttempt(t *testing.T) {
	n := &norms{}
	c := newNormsCRM(t, n, guard.Options{})
	ctx := crmguard.WithSubject(t.Context(), person("anna"))
	foreign := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "2", Owner: "boris"}
	require.Error(t, c.guard.Check(ctx, crmguard.View, foreign))
	require.Error(t, c.guard.CheckAll(ctx, crmguard.View, []crmguard.Resource{foreign})[0])
	require.Error(t, c.guard.Checker().Check(ctx, person("anna"), crmguard.View, foreign))
	require.Empty(t, n.told)
	require.Error(t, c.guard.Do(ctx, crmguard.View, foreign, func(context.Context) error { t.Error("done"); return nil }))
	require.Error(t, c.guard.Do(ctx, crmguard.View, crmguard.Resource{Tenant: "other", Kind: "contacts", ID: "2"}, nil))
	require.Len(t, n.told, 2)
}

// That a refusal could not be counted is the host's to know, and changes no answer.
func TestRefusalThatIsNotCounted(t *testing.T) {
	var log bytes.Buffer
	n := &norms{fail: errors.New("the norms do not answer")}
	c := newNormsCRM(t, n, guard.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for path, want := range map[string]int{"/contacts/2": 404, "/contacts/999": 404, "/staff": 403} {
		log.Reset()
		w := c.request("GET", path, "anna-token")
		require.Equal(t, want, w.Code)
		require.NotContains(t, w.Body.String(), "answer")
		require.Contains(t, log.String(), "a refusal was not counted")
		require.Contains(t, log.String(), "the norms do not answer")
	}
	require.Len(t, n.told, 3)
}

// Who hangs up at once is counted all the same.
func TestHangingUpIsCounted(t *testing.T) {
	n := &norms{}
	c := newNormsCRM(t, n, guard.Options{})
	ctx, hangUp := context.WithCancel(t.Context())
	hangUp()
	for _, path := range []string{"/contacts/2", "/contacts/999"} {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
		r.AddCookie(&http.Cookie{Name: "__Host-session", Value: "anna-token"})
		c.server.ServeHTTP(httptest.NewRecorder(), r)
	}
	require.Equal(t, []error{nil, nil}, n.ended)
}
