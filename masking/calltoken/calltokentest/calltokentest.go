// Package calltokentest tells whether a calltoken.Store keeps to its contract.
//
//	func TestStore(t *testing.T) {
//		calltokentest.Run(t, func(t *testing.T) calltoken.Store { return mystore.New(…) })
//	}
package calltokentest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/masking/calltoken"
)

// Run tests stores that open returns empty, one for each rule.
func Run(t *testing.T, open func(t *testing.T) calltoken.Store) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) { r.check(t.Context(), t, open(t)) })
	}
}

// A rule fails t when the store breaks it.
type rule struct {
	name  string
	check func(ctx context.Context, t require.TestingT, s calltoken.Store)
}

var rules = []rule{
	{"a call begins once", beginsOnce},
	{"tenants and ids are apart", apart},
	{"a call settles once", settlesOnce},
	{"a call that is not there is not found", nothing},
	{"what began before may go, what is younger stays", keeps},
	{"of many that begin a call at once, one is first", beginRace},
	{"of many that settle a call at once, one settles", settleRace},
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 123456000, time.UTC)

func call(tenant, id string) calltoken.Call {
	return calltoken.Call{Tenant: tenant, ID: id, Person: "anna", State: calltoken.Ringing, Begun: noon}
}

func begin(ctx context.Context, t require.TestingT, s calltoken.Store, c calltoken.Call) (calltoken.Call, bool) {
	stored, first, err := s.Begin(ctx, c, noon.Add(-time.Hour))
	require.NoError(t, err)
	return stored, first
}

func mustBegin(ctx context.Context, t require.TestingT, s calltoken.Store, c calltoken.Call) {
	stored, first := begin(ctx, t, s, c)
	require.True(t, first)
	require.Equal(t, c, stored)
}

func find(ctx context.Context, t require.TestingT, s calltoken.Store, tenant, id string) calltoken.Call {
	c, err := s.Find(ctx, tenant, id)
	require.NoError(t, err)
	return c
}

func settle(ctx context.Context, t require.TestingT, s calltoken.Store, tenant, id string, state calltoken.State) bool {
	settled, err := s.Settle(ctx, tenant, id, state)
	require.NoError(t, err)
	return settled
}

func beginsOnce(ctx context.Context, t require.TestingT, s calltoken.Store) {
	want := call("acme", "a")
	mustBegin(ctx, t, s, want)
	require.Equal(t, want, find(ctx, t, s, "acme", "a"))
	other := want
	other.Person, other.Begun, other.State = "boris", noon.Add(time.Hour), calltoken.Failed
	stored, first := begin(ctx, t, s, other)
	require.False(t, first)
	require.Equal(t, want, stored, "what is stored stays")
	require.True(t, settle(ctx, t, s, "acme", "a", calltoken.Ended))
	want.State = calltoken.Ended
	stored, first = begin(ctx, t, s, other)
	require.False(t, first, "a call that is over does not begin again")
	require.Equal(t, want, stored)
	require.Equal(t, want, find(ctx, t, s, "acme", "a"))
}

func apart(ctx context.Context, t require.TestingT, s calltoken.Store) {
	for _, c := range []calltoken.Call{call("acme", "a"), call("globex", "a"), call("acme", "A"), call("acme", "b"), call("acmea", "")} {
		mustBegin(ctx, t, s, c)
	}
	require.True(t, settle(ctx, t, s, "acme", "a", calltoken.Ended))
	require.Equal(t, calltoken.Ringing, find(ctx, t, s, "globex", "a").State)
	require.Equal(t, calltoken.Ringing, find(ctx, t, s, "acme", "A").State)
	require.Equal(t, calltoken.Ringing, find(ctx, t, s, "acme", "b").State)
}

func settlesOnce(ctx context.Context, t require.TestingT, s calltoken.Store) {
	for _, final := range []calltoken.State{calltoken.Ended, calltoken.Failed} {
		id := final.String()
		mustBegin(ctx, t, s, call("acme", id))
		require.True(t, settle(ctx, t, s, "acme", id, final))
		require.False(t, settle(ctx, t, s, "acme", id, calltoken.Ended))
		require.False(t, settle(ctx, t, s, "acme", id, calltoken.Failed))
		want := call("acme", id)
		want.State = final
		require.Equal(t, want, find(ctx, t, s, "acme", id))
	}
}

func nothing(ctx context.Context, t require.TestingT, s calltoken.Store) {
	mustBegin(ctx, t, s, call("globex", "a"))
	_, err := s.Find(ctx, "acme", "a")
	require.ErrorIs(t, err, calltoken.ErrNotFound)
	require.False(t, settle(ctx, t, s, "acme", "a", calltoken.Ended))
	_, err = s.Find(ctx, "acme", "a")
	require.ErrorIs(t, err, calltoken.ErrNotFound, "settling begins nothing")
}

// keeps does not ask whether older calls went: a store may be late with that.
func keeps(ctx context.Context, t require.TestingT, s calltoken.Store) {
	old, young, foreign := call("acme", "old"), call("acme", "young"), call("globex", "old")
	old.Begun, foreign.Begun = noon.Add(-2*time.Hour), noon.Add(-2*time.Hour)
	young.Begun = noon.Add(-time.Hour)
	for _, c := range []calltoken.Call{old, young, foreign} {
		_, first, err := s.Begin(ctx, c, noon.Add(-3*time.Hour))
		require.NoError(t, err)
		require.True(t, first)
	}
	mustBegin(ctx, t, s, call("acme", "a"))
	require.Equal(t, young, find(ctx, t, s, "acme", "young"), "as old as before says is not older")
	require.Equal(t, foreign, find(ctx, t, s, "globex", "old"), "of another tenant")
	_, first := begin(ctx, t, s, young)
	require.False(t, first)
}

func beginRace(ctx context.Context, t require.TestingT, s calltoken.Store) {
	require.Equal(t, 1, racetest.Winners(t, func(n int) (bool, error) {
		c := call("acme", "a")
		c.Begun = noon.Add(time.Duration(n) * time.Second)
		_, first, err := s.Begin(ctx, c, noon.Add(-time.Hour))
		return first, err
	}))
}

func settleRace(ctx context.Context, t require.TestingT, s calltoken.Store) {
	mustBegin(ctx, t, s, call("acme", "a"))
	require.Equal(t, 1, racetest.Winners(t, func(n int) (bool, error) {
		return s.Settle(ctx, "acme", "a", []calltoken.State{calltoken.Ended, calltoken.Failed}[n%2])
	}))
}
