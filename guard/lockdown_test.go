package guard_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/internal/uptime"
)

// mainSwitch is a switch that several guards share.
type mainSwitch struct {
	mu     sync.Mutex
	closed bool
	err    error
	asked  int
}

func (s *mainSwitch) set(closed bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = closed
	return s.err
}

func (s *mainSwitch) LockDown(context.Context, string) error { return s.set(true) }
func (s *mainSwitch) Reopen(context.Context, string) error   { return s.set(false) }
func (s *mainSwitch) LockedDown(context.Context, string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.closed, s.err
}

func (s *mainSwitch) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// moveTime puts the test on a clock of its own.
func moveTime(t *testing.T) (advance func(time.Duration)) {
	now := time.Hour
	t.Cleanup(uptime.Move(func() time.Duration { return now }))
	return func(d time.Duration) { now += d }
}

// ownerOnly lets boris do everything, reopening too, and anna everything else.
var ownerOnly = crmguard.CheckerFunc(func(_ context.Context, s crmguard.Subject, _ crmguard.Action, r crmguard.Resource) error {
	if s.ID == "boris" || r.Kind != guard.LockdownKind {
		return nil
	}
	return &crmguard.Denial{By: "rights", Code: "no-rule"}
})

func newLockable(t *testing.T, sw guard.Switch) *crm {
	c := newCRM(t, nil)
	g, err := guard.New(sessions{"anna-token": person("anna"), "boris-token": person("boris")}, ownerOnly, c.dir, c.journal, &guard.Options{Switch: sw})
	require.NoError(t, err)
	c.guard, c.server = g, g.Handler(c.mux)
	whole := func(kind string) guard.Loader {
		return func(*http.Request) (crmguard.Resource, error) {
			return crmguard.Resource{Tenant: "acme", Kind: kind}, nil
		}
	}
	done := func(http.ResponseWriter, *http.Request) error { return nil }
	c.mux.Handle("GET /contacts/{id}", g.Protect(crmguard.View, contactOf, show))
	c.mux.Handle("GET /journal", g.Protect(crmguard.Access, whole("section:journal"), show))
	c.mux.Handle("POST /settings", g.ProtectAct(crmguard.Configure, whole("settings"), done))
	c.mux.HandleFunc("GET /forgotten", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := crmguard.SubjectFrom(r.Context()); ok {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	c.mux.Handle("POST /lockdown", g.ProtectAct(crmguard.Revoke, whole(guard.LockdownKind), func(_ http.ResponseWriter, r *http.Request) error {
		return g.LockDown(r.Context(), "acme")
	}))
	c.mux.Handle("POST /reopen", g.ProtectAct(crmguard.Grant, whole(guard.LockdownKind), func(_ http.ResponseWriter, r *http.Request) error {
		return g.Reopen(r.Context(), "acme")
	}))
	return c
}

func TestLockdown(t *testing.T) {
	moveTime(t)
	c := newLockable(t, &mainSwitch{})
	code := func(method, path, token string) int { return c.request(method, path, token).Code }
	require.Equal(t, 200, code("GET", "/contacts/1", "anna-token"))
	require.Equal(t, 403, code("POST", "/lockdown", "anna-token"))
	require.Equal(t, 200, code("POST", "/lockdown", "boris-token"))

	for _, path := range []string{"/contacts/1", "/contacts/999", "/journal"} {
		w := c.request("GET", path, "anna-token")
		require.Equal(t, 503, w.Code, path)
		require.Contains(t, w.Body.String(), `"lockdown"`)
	}
	require.Equal(t, 200, code("GET", "/forgotten", "anna-token"), "nobody in the context, so that nothing sealed opens there")
	require.Equal(t, 503, code("POST", "/reopen", "anna-token"))
	require.Error(t, c.guard.CheckLockdown(t.Context(), person("anna")))
	require.NoError(t, c.guard.CheckLockdown(t.Context(), person("boris")))

	// Who may reopen follows the incident up, and opens nobody's data either.
	require.Equal(t, 200, code("GET", "/journal", "boris-token"))
	require.Equal(t, 200, code("POST", "/settings", "boris-token"))
	require.Equal(t, 503, code("GET", "/contacts/2", "boris-token"))
	require.Equal(t, 503, code("GET", "/contacts/999", "boris-token"))
	require.Equal(t, 200, code("POST", "/reopen", "boris-token"))
	require.Equal(t, 200, code("GET", "/contacts/1", "anna-token"))
	require.Equal(t, 418, code("GET", "/forgotten", "anna-token"))
	closed, err := c.guard.LockedDown(t.Context(), "acme")
	require.NoError(t, err)
	require.False(t, closed)
}

// Another node follows within two seconds, and one that cannot read the switch for
// as long refuses everybody.
func TestLockdownOnAnotherNode(t *testing.T) {
	advance := moveTime(t)
	sw := &mainSwitch{}
	here, there := newLockable(t, sw), newLockable(t, sw)
	code := func() int { return there.request("GET", "/contacts/1", "anna-token").Code }
	require.Equal(t, 200, code())
	asked := sw.asked
	require.Equal(t, 200, code())
	require.Equal(t, asked, sw.asked, "not asked for each request")
	require.Equal(t, 200, here.request("POST", "/lockdown", "boris-token").Code)
	advance(time.Second)
	require.Equal(t, 503, code())
	require.Equal(t, 200, here.request("POST", "/reopen", "boris-token").Code)
	advance(time.Second)
	require.Equal(t, 200, code())

	sw.fail(errors.New("down"))
	advance(1900 * time.Millisecond)
	require.Equal(t, 200, code(), "what was read is young enough")
	advance(100 * time.Millisecond)
	require.Equal(t, 503, code())
	sw.fail(nil)
	require.Equal(t, 200, code())
}

// A slow answer from before does not undo what this node did to the switch.
func TestSlowAnswerDoesNotReopen(t *testing.T) {
	advance := moveTime(t)
	sw := &slowSwitch{mainSwitch: &mainSwitch{}, asked: make(chan bool), answer: make(chan bool)}
	c := newLockable(t, sw)
	var slow sync.WaitGroup
	slow.Go(func() { c.request("GET", "/contacts/1", "anna-token") })
	<-sw.asked // it has read that the CRM is open
	advance(time.Millisecond)
	require.NoError(t, c.guard.LockDown(t.Context(), "acme"))
	sw.answer <- true
	slow.Wait()
	require.Equal(t, 503, c.request("GET", "/contacts/1", "anna-token").Code)
}

// An answer is as old as its question: one that took too long lets nobody in, and so
// does a failure that took long.
func TestLateAnswers(t *testing.T) {
	advance := moveTime(t)
	sw := &lateSwitch{mainSwitch: &mainSwitch{}}
	c := newLockable(t, sw)
	code := func() int { return c.request("GET", "/contacts/1", "anna-token").Code }
	sw.before = func() { advance(10 * time.Second) }
	require.Equal(t, 503, code())
	sw.before = func() {}
	require.Equal(t, 200, code())
	advance(1500 * time.Millisecond)
	sw.before = func() { advance(time.Second); sw.fail(errors.New("down")) }
	require.Equal(t, 503, code())
}

// lateSwitch does something before it answers.
type lateSwitch struct {
	*mainSwitch
	before func()
}

func (s *lateSwitch) LockedDown(ctx context.Context, tenant string) (bool, error) {
	s.before()
	return s.mainSwitch.LockedDown(ctx, tenant)
}

// However many requests come at once, the switch is asked once.
func TestSwitchIsAskedOnce(t *testing.T) {
	moveTime(t)
	sw := &mainSwitch{}
	c := newLockable(t, sw)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { c.request("GET", "/journal", "anna-token") })
	}
	all.Wait()
	require.Equal(t, 1, sw.asked)
}

// What is done later than its request asks the guard about the subject it has.
func TestChecker(t *testing.T) {
	advance := moveTime(t)
	sw := &mainSwitch{}
	g := newLockable(t, sw).guard
	mine := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1"}
	require.NoError(t, g.Checker().Check(t.Context(), person("anna"), crmguard.Call, mine))
	mine.Tenant = "other"
	require.Error(t, g.Checker().Check(t.Context(), person("anna"), crmguard.Call, mine))
	mine.Tenant = "acme"
	require.NoError(t, sw.set(true))
	advance(time.Second)
	require.Error(t, g.Checker().Check(t.Context(), person("anna"), crmguard.Call, mine))
}

// A switch that is deaf to its context holds nobody up for ever, and is asked again.
func TestDeafSwitch(t *testing.T) {
	release := make(chan bool)
	sw := &lateSwitch{mainSwitch: &mainSwitch{}, before: func() { <-release }}
	c := newLockable(t, sw)
	require.Equal(t, 503, c.request("GET", "/contacts/1", "anna-token").Code)
	close(release)
	require.Equal(t, 200, c.request("GET", "/contacts/1", "anna-token").Code)
}

// At the door nobody has roles yet: the directory is asked.
func TestCheckLockdownAsksForRoles(t *testing.T) {
	moveTime(t)
	byRole := crmguard.CheckerFunc(func(_ context.Context, s crmguard.Subject, _ crmguard.Action, _ crmguard.Resource) error {
		if slices.Contains(s.Roles, "seller") { // the role that directory gives
			return nil
		}
		return &crmguard.Denial{By: "rights", Code: "no-rule"}
	})
	g, err := guard.New(sessions{}, byRole, &directory{}, crmguardtest.NewRecorder(), &guard.Options{Switch: &mainSwitch{closed: true}})
	require.NoError(t, err)
	require.NoError(t, g.CheckLockdown(t.Context(), person("anna")))
	g, err = guard.New(sessions{}, byRole, &directory{err: errors.New("down")}, crmguardtest.NewRecorder(), &guard.Options{Switch: &mainSwitch{closed: true}})
	require.NoError(t, err)
	require.Error(t, g.CheckLockdown(t.Context(), person("anna")))
}

// slowSwitch waits once between reading and answering.
type slowSwitch struct {
	*mainSwitch
	once          sync.Once
	asked, answer chan bool
}

func (s *slowSwitch) LockedDown(ctx context.Context, tenant string) (bool, error) {
	closed, err := s.mainSwitch.LockedDown(ctx, tenant)
	s.once.Do(func() { s.asked <- true; <-s.answer })
	return closed, err
}

// Ending access is not held up by a journal that is down; giving it is.
func TestLockdownWithAJammedJournal(t *testing.T) {
	moveTime(t)
	sw := &mainSwitch{}
	c := newLockable(t, sw)
	c.journal.Fail(errors.New("jammed"))
	require.Equal(t, 200, c.request("POST", "/lockdown", "boris-token").Code)
	require.True(t, sw.closed)
	require.Equal(t, 503, c.request("POST", "/reopen", "boris-token").Code)
	require.True(t, sw.closed)
	c.journal.Fail(nil)
	require.Equal(t, 200, c.request("POST", "/reopen", "boris-token").Code)
}

func TestWithoutSwitch(t *testing.T) {
	c := newCRM(t, nil)
	require.Error(t, c.guard.LockDown(t.Context(), "acme"))
	require.Error(t, c.guard.Reopen(t.Context(), "acme"))
}

// Recheck notices what has changed since an act began.
func TestRecheck(t *testing.T) {
	advance := moveTime(t)
	for name, tt := range map[string]struct {
		change func(c *crm, sw *mainSwitch, who sessions, rights *crmguardtest.Checker)
		want   string
	}{
		"nothing":       {func(*crm, *mainSwitch, sessions, *crmguardtest.Checker) {}, ""},
		"session ended": {func(_ *crm, _ *mainSwitch, who sessions, _ *crmguardtest.Checker) { delete(who, "anna-token") }, "unknown"},
		"somebody else": {func(_ *crm, _ *mainSwitch, who sessions, _ *crmguardtest.Checker) {
			who["anna-token"] = person("boris")
		}, "subject-changed"},
		"lockdown": {func(_ *crm, sw *mainSwitch, _ sessions, _ *crmguardtest.Checker) {
			_ = sw.set(true)
			advance(time.Second)
		}, "lockdown"},
		"directory down": {func(c *crm, _ *mainSwitch, _ sessions, _ *crmguardtest.Checker) { c.dir.err = errors.New("down") }, "undecided"},
	} {
		t.Run(name, func(t *testing.T) {
			c, sw, who := newCRM(t, nil), &mainSwitch{}, sessions{"anna-token": person("anna")}
			rights := crmguardtest.NewChecker().Allow("anna", crmguard.Export, "contacts")
			stale := false // asked when the act begins, and not again
			proof := crmguard.CheckerFunc(func(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error {
				if stale {
					return &crmguard.Denial{By: "mfa", Code: "stale", Status: crmguard.StepUp}
				}
				return nil
			})
			g, err := guard.New(who, rights, c.dir, c.journal, &guard.Options{Switch: sw, StepUp: proof})
			require.NoError(t, err)
			c.mux.Handle("POST /export", g.ProtectAct(crmguard.Export, func(*http.Request) (crmguard.Resource, error) {
				return crmguard.Resource{Tenant: "acme", Kind: "contacts"}, nil
			}, func(_ http.ResponseWriter, r *http.Request) error {
				require.NoError(t, g.Recheck(r.Context()))
				stale = true
				tt.change(c, sw, who, rights)
				return g.Recheck(r.Context())
			}))
			c.server = g.Handler(c.mux)
			w := c.request("POST", "/export", "anna-token")
			if tt.want == "" {
				require.Equal(t, 200, w.Code)
			} else {
				require.Contains(t, w.Body.String(), tt.want)
			}
		})
	}
	c := newCRM(t, nil)
	require.Error(t, c.guard.Recheck(crmguard.WithSubject(t.Context(), person("anna"))), "outside a request")
}

// Freshness is asked after rights: nobody is asked for a code in vain. Norms come
// last, once for each act, and not for what is merely offered.
func TestOrderOfStepUpAndNorms(t *testing.T) {
	c := newCRM(t, nil)
	var asked []string
	ask := func(name string, answer *crmguard.Denial) crmguard.Checker {
		return crmguard.CheckerFunc(func(_ context.Context, _ crmguard.Subject, a crmguard.Action, _ crmguard.Resource) error {
			asked = append(asked, name+" "+string(a))
			if answer != nil && a == crmguard.Reveal {
				return answer
			}
			return nil
		})
	}
	serve := func(o *guard.Options) {
		asked = nil
		g, err := guard.New(sessions{"anna-token": person("anna")}, c.rights, c.dir, c.journal, o)
		require.NoError(t, err)
		mux := http.NewServeMux()
		mux.Handle("GET /contacts/{id}", g.Protect(crmguard.View, contactOf, show))
		mux.Handle("POST /contacts/{id}/phone", g.ProtectAct(crmguard.Reveal, contactOf, show))
		c.guard, c.server = g, g.Handler(mux)
	}
	stepUp := &crmguard.Denial{By: "mfa", Code: "stale", Status: crmguard.StepUp, Need: crmguard.AssuranceSecondFactor}
	serve(&guard.Options{StepUp: ask("proof", stepUp), Norms: ask("norm", nil)})
	w := c.request("POST", "/contacts/1/phone", "anna-token")
	require.Equal(t, 401, w.Code)
	require.Contains(t, w.Body.String(), `"need":"second-factor"`)
	require.NotContains(t, asked, "norm reveal")
	for _, id := range []string{"2", "999"} { // not anna's, and nobody's
		asked = nil
		require.Equal(t, 404, c.request("POST", "/contacts/"+id+"/phone", "anna-token").Code)
		require.Empty(t, asked)
	}
	require.Contains(t, c.outcomes()[0], "denied mfa:stale")

	full := &crmguard.Denial{By: "quota", Code: "norm", Status: crmguard.Exhausted}
	serve(&guard.Options{StepUp: ask("proof", nil), Norms: ask("norm", full)})
	require.Equal(t, 429, c.request("POST", "/contacts/1/phone", "anna-token").Code)
	require.Equal(t, []string{"proof reveal", "norm reveal"}, asked, "once")
	asked = nil
	require.Equal(t, 200, c.request("GET", "/contacts/1", "anna-token").Code)
	require.Equal(t, []string{"proof view", "norm view"}, asked)
	asked = nil
	ctx := crmguard.WithSubject(t.Context(), person("anna"))
	mine := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "anna"}
	require.NoError(t, c.guard.Check(ctx, crmguard.Reveal, mine))
	require.NoError(t, c.guard.CheckAll(ctx, crmguard.Reveal, []crmguard.Resource{mine})[0])
	require.NotContains(t, asked, "norm reveal")
}
