package calltoken

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/internal/racetest"
)

func TestResolve(t *testing.T) {
	r := newRig()
	token := r.issue(t)
	call, err := r.resolve(t, token.Show())
	require.NoError(t, err)
	require.Equal(t, Call{Tenant: "acme", ID: token.ID(), Person: "anna", State: Ringing, Begun: noon}, call)
	orders := r.line.dialled()
	require.Equal(t, []Order{{Tenant: "acme", CallID: token.ID(), Leg: "101", Number: Number{newSecret(e17)}, Expires: noon.Add(time.Minute)}}, orders)
	require.Equal(t, e17, orders[0].Number.Show())

	require.Equal(t, []string{"attempted", "done"}, r.outcomes())
	e := r.journal.Events()[1]
	require.Equal(t, token.ID(), e.ID)
	require.Equal(t, phoneOf17, e.Resource, "with the owner and department of this moment")
	require.Equal(t, []string{"phone"}, e.Fields)
	require.Equal(t, anna, e.Subject)

	require.Equal(t, anna, r.desk.subject, "the number is opened for the person")
	require.Len(t, r.desk.acts, 1)
	require.Equal(t, crmguard.Call, r.desk.acts[0].Action, "norms of calls count")
	require.Equal(t, phoneOf17, r.desk.acts[0].Resource)
}

// An attack resolves a token that it should not, and fails t when it is let
// through. The fault is planted in the rig; with it the attack must succeed.
var attacks = []struct {
	name  string
	run   func(t require.TestingT, r *rig)
	fault func(r *rig)
}{
	{"the token of another tenant", func(t require.TestingT, r *rig) {
		token := r.issue(t).Show()
		_, err := r.resolver(t).Resolve(context.Background(), "globex", token)
		require.Error(t, err)
		_, err = r.resolver(t).Resolve(context.Background(), "", token)
		requireDenied(t, err, "tenant")
		require.Empty(t, r.line.dialled())
	}, nil},
	{"a sealed value of another place", func(t require.TestingT, r *rig) {
		// Whoever can have something sealed of their own choice gets no call by it.
		c := Claims{CallID: newID(), Kind: "contacts", Record: "17", Field: "phone", Client: "c17", Subject: anna, Leg: "101", End: noon.Add(time.Hour)}
		c.Subject.Roles, c.Subject.Units = nil, nil
		plain, err := c.encode()
		require.NoError(t, err)
		for _, at := range []crmguard.Place{
			{Tenant: "acme", Kind: "note", Record: c.CallID, Field: "token"},
			{Tenant: "acme", Kind: "call", Record: newID(), Field: "token"},
			{Tenant: "acme", Client: "c17", Kind: "call", Record: c.CallID, Field: "token"},
		} {
			sealed, err := r.keys.Seal(acting(anna, crmguard.Call, phoneOf17), at, plain)
			require.NoError(t, err)
			_, err = r.resolve(t, Token{c.CallID, newSecret(string(sealed))}.Show())
			require.Error(t, err)
		}
		require.Empty(t, r.line.dialled())
	}, func(r *rig) { r.keys = placeless{r.keys} }},
	{"the id of another call", func(t require.TestingT, r *rig) {
		token := r.issue(t)
		_, err := r.resolve(t, Token{newID(), token.secret}.Show())
		require.Error(t, err)
		require.Empty(t, r.line.dialled())
	}, nil},
	{"an expired token", func(t require.TestingT, r *rig) {
		token := r.issue(t)
		r.clock.Advance(2 * time.Minute)
		_, err := r.resolve(t, token.Show())
		requireDenied(t, err, CodeExpired)
		require.Equal(t, []string{"denied expired"}, r.outcomes())
	}, func(r *rig) { r.keys = postdates{r.keys} }},
	{"a person dismissed meanwhile", func(t require.TestingT, r *rig) {
		token := r.issue(t)
		r.desk.closed["anna"] = true
		_, err := r.resolve(t, token.Show())
		requireDenied(t, err, "person-closed")
		require.Equal(t, []string{"denied person-closed"}, r.outcomes())
	}, func(r *rig) { r.host = trusting{r.desk} }},
	{"a session ended meanwhile", func(t require.TestingT, r *rig) {
		token := r.issue(t)
		r.desk.closed["s-1"] = true
		_, err := r.resolve(t, token.Show())
		requireDenied(t, err, "person-closed")
	}, func(r *rig) { r.host = trusting{r.desk} }},
	{"rights taken meanwhile", func(t require.TestingT, r *rig) {
		token := r.issue(t)
		r.own.taken = true
		_, err := r.resolve(t, token.Show())
		requireDenied(t, err, "no-rule")
		require.Equal(t, []string{"denied no-rule"}, r.outcomes())
	}, func(r *rig) { r.rights = crmguardtest.Allow() }},
	{"a client given to a colleague meanwhile", func(t require.TestingT, r *rig) {
		token := r.issue(t)
		r.desk.owner = "boris"
		_, err := r.resolve(t, token.Show())
		requireDenied(t, err, "no-rule")
	}, func(r *rig) { r.host = trusting{r.desk} }},
	{"a credential that was narrowed", func(t require.TestingT, r *rig) {
		r.subject.Scopes = []string{"view"}
		_, err := r.resolve(t, r.issue(t).Show())
		requireDenied(t, err, "no-rule")
		r.subject.Scopes = []string{} // nothing is not everything
		_, err = r.resolve(t, r.issue(t).Show())
		requireDenied(t, err, "no-rule")
	}, func(r *rig) { r.rights = unscoped{r.own} }},
	{"another person's token", func(t require.TestingT, r *rig) {
		token := r.issue(t).Show()
		boris := anna
		boris.ID = "boris"
		_, err := r.resolver(t).Resolve(crmguard.WithSubject(context.Background(), boris), "acme", token)
		requireDenied(t, err, CodePerson)
		boris.Tenant = "globex"
		_, err = r.resolver(t).Resolve(crmguard.WithSubject(context.Background(), boris), "acme", token)
		requireDenied(t, err, "tenant")
		boris.Tenant, boris.ID = "globex", "anna"
		_, err = r.resolver(t).Resolve(crmguard.WithSubject(context.Background(), boris), "acme", token)
		requireDenied(t, err, "tenant")
	}, nil},
	{"another person's token, to have its owner blamed", func(t require.TestingT, r *rig) {
		token, mallory := r.issue(t), anna
		mallory.ID, mallory.Session = "mallory", "s-2"
		ids := map[string]bool{}
		for range 5 {
			_, err := r.resolver(t).Resolve(crmguard.WithSubject(context.Background(), mallory), "acme", token.Show())
			requireDenied(t, err, CodePerson)
		}
		for _, e := range r.journal.Events() {
			require.Equal(t, mallory, e.Subject)
			require.Equal(t, token.ID(), e.Request, "which call it was about")
			ids[e.ID] = true
		}
		require.Len(t, ids, 5, "each attempt counts")
	}, nil},
	{"a refusal after the call", func(t require.TestingT, r *rig) {
		token := r.issue(t)
		_, err := r.resolve(t, token.Show())
		require.NoError(t, err)
		r.own.taken = true
		for range 2 {
			_, err = r.resolve(t, token.Show())
			requireDenied(t, err, "no-rule")
		}
		require.Equal(t, []string{"attempted", "done", "denied no-rule", "denied no-rule"}, r.outcomes())
		for i, e := range r.journal.Events() {
			require.Equal(t, i < 2, e.ID == token.ID(), "what the call came to is told by its own entries")
		}
	}, nil},
	{"a replay", func(t require.TestingT, r *rig) {
		token := r.issue(t)
		for range 3 {
			call, err := r.resolve(t, token.Show())
			require.NoError(t, err)
			require.Equal(t, token.ID(), call.ID)
			r.clock.Advance(time.Second)
		}
		require.NoError(t, r.resolver(t).Settle(context.Background(), "acme", token.ID(), Ended))
		call, err := r.resolve(t, token.Show())
		require.NoError(t, err)
		require.Equal(t, Ended, call.State)
		require.Len(t, r.line.dialled(), 1)
		require.Equal(t, 1, r.desk.opened, "the norm counts once")
	}, func(r *rig) { r.calls = forgetful{r.calls} }},
	{"fifty at once", func(t require.TestingT, r *rig) {
		token, resolver := r.issue(t).Show(), r.resolver(t)
		calls := racetest.Run(t, func(int) (Call, error) { return resolver.Resolve(context.Background(), "acme", token) })
		require.Len(t, slices.Compact(calls), 1, "all get the same call")
		require.Len(t, r.line.dialled(), 1)
		require.Equal(t, 1, r.desk.opened)
		require.Len(t, r.journal.Events(), 2)
	}, func(r *rig) { r.calls = forgetful{r.calls} }},
	{"another record than the token's", func(t require.TestingT, r *rig) {
		r.host = misdirected{r.desk}
		_, err := r.resolve(t, r.issue(t).Show())
		require.ErrorContains(t, err, "another record")
		require.Zero(t, r.desk.opened)
		require.Equal(t, []string{"undecided"}, r.outcomes())
	}, nil},
	{"the journal is down", func(t require.TestingT, r *rig) {
		token := r.issue(t)
		r.journal.Fail(errors.New("disk full"))
		call, err := r.resolve(t, token.Show())
		require.ErrorContains(t, err, "disk full")
		require.Equal(t, Failed, call.State)
		require.Zero(t, r.desk.opened, "nothing is opened that is not recorded")
	}, nil},
	{"the store is down", func(t require.TestingT, r *rig) {
		token := r.issue(t)
		r.calls = down{r.calls}
		_, err := r.resolve(t, token.Show())
		require.ErrorContains(t, err, "store down")
		require.Zero(t, r.desk.opened)
		require.Equal(t, []string{"undecided"}, r.outcomes())
	}, nil},
}

func TestAttacks(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { a.run(t, newRig()) })
		if a.fault != nil {
			t.Run(a.name+", planted fault", func(t *testing.T) {
				require.False(t, racetest.Passes(func(inner require.TestingT) {
					r := newRig()
					a.fault(r)
					a.run(inner, r)
				}), "the attack does not notice that it succeeds")
			})
		}
	}
}

// placeless keys bind nothing to its place.
type placeless struct{ crmguard.Sealer }

func (p placeless) Seal(ctx context.Context, _ crmguard.Place, b []byte) ([]byte, error) {
	return p.Sealer.Seal(ctx, crmguard.Place{Tenant: "acme"}, b)
}

func (p placeless) Open(ctx context.Context, _ crmguard.Place, b []byte) ([]byte, error) {
	return p.Sealer.Open(ctx, crmguard.Place{Tenant: "acme"}, b)
}

// postdates seals tokens that are good for an hour longer.
type postdates struct{ crmguard.Sealer }

func (p postdates) Seal(ctx context.Context, at crmguard.Place, b []byte) ([]byte, error) {
	c, err := decode(b)
	if err != nil {
		return nil, err
	}
	c.End = c.End.Add(time.Hour)
	if b, err = c.encode(); err != nil {
		return nil, err
	}
	return p.Sealer.Seal(ctx, at, b)
}

// trusting believes the token about person and owner.
type trusting struct{ *desk }

func (trusting) Person(context.Context, crmguard.Subject) (roles, units []string, err error) {
	return []string{"seller"}, nil, nil
}

func (trusting) Record(_ context.Context, c Claims) (crmguard.Resource, error) {
	r := c.resource()
	r.Owner = c.Subject.ID
	return r, nil
}

// misdirected loads something else.
type misdirected struct{ *desk }

func (m misdirected) Record(ctx context.Context, c Claims) (crmguard.Resource, error) {
	c.Record = "18"
	return m.desk.Record(ctx, c)
}

// unscoped rights do not look at scopes.
type unscoped struct{ rights crmguard.Checker }

func (u unscoped) Check(ctx context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	s.Scopes = nil
	return u.rights.Check(ctx, s, a, r)
}

// forgetful calls are always first.
type forgetful struct{ Store }

func (f forgetful) Begin(ctx context.Context, c Call, before time.Time) (Call, bool, error) {
	stored, _, err := f.Store.Begin(ctx, c, before)
	return stored, true, err
}

type down struct{ Store }

func (down) Begin(context.Context, Call, time.Time) (Call, bool, error) {
	return Call{}, false, errors.New("store down")
}

// Not one changed character of a token leaves it good.
func TestForgedTokens(t *testing.T) {
	r := newRig()
	good := r.issue(t).Show()
	for i := range good {
		forged := []byte(good)
		forged[i] = 'A'
		if good[i] == 'A' {
			forged[i] = 'B'
		}
		_, err := r.resolve(t, string(forged))
		require.Error(t, err, "changed at %d", i)
	}
	for _, text := range []string{"", "x", tokenPrefix, good[:len(good)-1], good + "A", good + "=", good + "\n", "\n" + good, good[:40] + "\r\n" + good[40:], tokenPrefix + strings.Repeat("A", maxToken)} {
		_, err := r.resolve(t, text)
		require.Error(t, err, "%q", text)
	}
	require.Empty(t, r.line.dialled())
	require.Empty(t, r.journal.Events(), "what is no token fills no journal")

	stolen := newRig() // another key
	_, err := stolen.resolve(t, good)
	require.Error(t, err)
	_, err = r.resolve(t, good)
	require.NoError(t, err)
}

// Whatever goes wrong, the number is told to nobody but the exchange.
func TestNumberIsToldToNobody(t *testing.T) {
	for name, breaks := range map[string]func(r *rig){
		"nothing":                func(*rig) {},
		"the line names it":      func(r *rig) { r.line.err = errors.New("busy: " + e17) },
		"the line groups it":     func(r *rig) { r.line.err = errors.New("busy: 8 916 123-45-67") },
		"wrapped in a denial":    func(r *rig) { r.line.err = &crmguard.Denial{By: "line", Code: "busy " + e17} },
		"the line fails":         func(r *rig) { r.line.err = errors.New("no trunk") },
		"it is no number":        func(r *rig) { r.desk.number = typed + "x" },
		"it has no calling code": func(r *rig) { r.desk.number = "9161234567" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig()
			breaks(r)
			token := r.issue(t)
			call, err := r.resolve(t, token.Show())
			require.False(t, namesNumber(r.told(t, call, err)), r.told(t, call, err))
			if name == "nothing" {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			require.Equal(t, []string{"attempted", "failed"}, r.outcomes())
			require.Equal(t, Failed, call.State)
			stored, err := r.calls.Find(t.Context(), "acme", token.ID())
			require.NoError(t, err)
			require.Equal(t, Failed, stored.State)
			again, err := r.resolve(t, token.Show())
			require.NoError(t, err)
			require.Equal(t, call, again, "it is not dialled again")
		})
	}
	// The planted faults: what looks for the number finds it.
	for _, text := range []string{"to " + typed, "to 89161234567", `{"number":"9161234567"}`, "٩١٦١٢٣٤٥٦٧"} {
		require.True(t, namesNumber(text), text)
	}
	require.False(t, namesNumber("call 17 of 2026-03-02"))
}

// A norm that is used up refuses the number, and the call is over.
func TestNormRefuses(t *testing.T) {
	r := newRig()
	r.desk.err = &crmguard.Denial{By: "quota", Code: "norm", Status: crmguard.Exhausted}
	call, err := r.resolve(t, r.issue(t).Show())
	requireDenied(t, err, "norm")
	require.Equal(t, Failed, call.State)
	require.Equal(t, []string{"attempted", "denied norm"}, r.outcomes())
	require.Empty(t, r.line.dialled())
}

// A caller who leaves does not leave a call without outcome.
func TestCallerLeaves(t *testing.T) {
	r := newRig()
	ctx, cancel := context.WithCancel(t.Context())
	resolver, err := NewResolver(r.keys, r.calls, r.rights, r.journal, r.host, DialerFunc(func(ctx context.Context, _ Order) error {
		cancel()
		return ctx.Err()
	}), &ResolverOptions{Clock: r.clock.Now, Logger: r.logger()})
	require.NoError(t, err)
	call, err := resolver.Resolve(ctx, "acme", r.issue(t).Show())
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, Failed, call.State)
	require.Equal(t, []string{"attempted", "failed"}, r.outcomes())
}

func TestCallAndSettle(t *testing.T) {
	r := newRig()
	token := r.issue(t)
	_, err := r.resolve(t, token.Show())
	require.NoError(t, err)
	resolver := r.resolver(t)
	ctx := crmguard.WithSubject(t.Context(), anna)
	call, err := resolver.Call(ctx, token.ID())
	require.NoError(t, err)
	require.Equal(t, Ringing, call.State)

	require.ErrorIs(t, resolver.Settle(t.Context(), "globex", token.ID(), Ended), ErrNotFound)
	require.ErrorIs(t, resolver.Settle(t.Context(), "acme", newID(), Ended), ErrNotFound)
	require.Error(t, resolver.Settle(t.Context(), "", token.ID(), Ended))
	require.Error(t, resolver.Settle(t.Context(), "acme", token.ID(), Ringing))
	require.NoError(t, resolver.Settle(t.Context(), "acme", token.ID(), Ended))
	require.NoError(t, resolver.Settle(t.Context(), "acme", token.ID(), Failed), "the first report stands")
	call, err = resolver.Call(ctx, token.ID())
	require.NoError(t, err)
	require.Equal(t, Ended, call.State)

	for _, other := range []crmguard.Subject{{Tenant: "acme", ID: "boris", Kind: crmguard.KindEmployee}, {Tenant: "globex", ID: "anna", Kind: crmguard.KindEmployee}} {
		_, err = resolver.Call(crmguard.WithSubject(t.Context(), other), token.ID())
		require.ErrorIs(t, err, ErrNotFound)
	}
	_, err = resolver.Call(t.Context(), token.ID())
	requireDenied(t, err, "subject")
}
