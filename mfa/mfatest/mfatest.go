// Package mfatest tells whether an mfa.Store keeps to its contract.
//
//	func TestStore(t *testing.T) {
//		mfatest.Run(t, func(t *testing.T) mfa.Store { return mystore.New(…) })
//	}
package mfatest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/mfa"
)

// Run tests stores that open returns empty, one for each rule.
func Run(t *testing.T, open func(t *testing.T) mfa.Store) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) { r.check(t.Context(), t, open(t)) })
	}
}

// A rule fails t when the store breaks it.
type rule struct {
	name  string
	check func(ctx context.Context, t require.TestingT, s mfa.Store)
}

var rules = []rule{
	{"of whom nothing is known, nothing is loaded or changed", nobody},
	{"what was put comes back in every field, in the order of ids", roundTrip},
	{"Change needs the person exactly as stored", changeNeedsPerson},
	{"Change puts, replaces and removes what it is told, and nothing else", changePuts},
	{"Change leaves the budget and the steps of other rows", changeLeaves},
	{"Attempt replaces exactly the budget that was expected", attempt},
	{"Advance goes forward only", advanceForward},
	{"Advance moves active rows only", advanceActive},
	{"Advance moves the row of this person only", advanceOwn},
	{"Clear removes everything of this person only, whatever is stored", clearAll},
	{"of many that Advance to one step, one does", advanceRace},
	{"of many that take the same Attempt, one does", attemptRace},
	{"of many that Change a person, one does", changeRace},
	{"of many that Change a person without a row, one does", createRace},
	{"no row advances after Change has removed it", removeRace},
	{"of many with one code, one is let in", verifyRace},
	{"of many with one recovery code, one is let in", recoverRace},
	{"of many that confirm an app, one does", confirmRace},
	{"of many wrong codes at once, no more than the free ones are compared", guessRace},
	{"no recovery code is good after ReplaceRecovery has returned", replaceRace},
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 123456000, time.UTC)

func person(tenant, id string, version int64) mfa.Person {
	return mfa.Person{Tenant: tenant, ID: id, Version: version, MAC: mfa.Opaque(fmt.Sprintf("mac of %d", version))}
}

func row(id string, active bool) mfa.Row {
	return mfa.Row{ID: id, Kind: mfa.KindApp, Active: active, Step: 7, Created: noon, Sealed: mfa.Opaque("sealed " + id + "\x00\xff")}
}

// change must succeed, and returns next.
func change(ctx context.Context, t require.TestingT, s mfa.Store, old, next mfa.Person, put []mfa.Row, remove ...string) mfa.Person {
	changed, err := s.Change(ctx, old, next, put, remove)
	require.NoError(t, err)
	require.True(t, changed, "the stored person is as expected")
	return next
}

// with stores a person with rows and returns it.
func with(ctx context.Context, t require.TestingT, s mfa.Store, tenant, id string, rows ...mfa.Row) mfa.Person {
	return change(ctx, t, s, mfa.Person{Tenant: tenant, ID: id}, person(tenant, id, 7), rows)
}

func load(ctx context.Context, t require.TestingT, s mfa.Store, tenant, id string) (mfa.Person, []mfa.Row) {
	p, rows, err := s.Load(ctx, tenant, id)
	require.NoError(t, err)
	return p, rows
}

func requireRows(ctx context.Context, t require.TestingT, s mfa.Store, p mfa.Person, want ...mfa.Row) {
	got, rows := load(ctx, t, s, p.Tenant, p.ID)
	require.Equal(t, p, got)
	if len(want) == 0 {
		require.Empty(t, rows)
		return
	}
	require.Equal(t, want, rows)
}

func nobody(ctx context.Context, t require.TestingT, s mfa.Store) {
	none := mfa.Person{Tenant: "acme", ID: "nobody"}
	requireRows(ctx, t, s, none)
	taken, err := s.Attempt(ctx, "acme", "nobody", mfa.Budget{}, mfa.Budget{Empty: noon, Last: noon})
	require.NoError(t, err)
	require.False(t, taken)
	advanced, err := s.Advance(ctx, "acme", "nobody", "a", 1)
	require.NoError(t, err)
	require.False(t, advanced)
	changed, err := s.Change(ctx, person("acme", "nobody", 7), person("acme", "nobody", 8), []mfa.Row{row("a", true)}, nil)
	require.NoError(t, err)
	require.False(t, changed)
	requireRows(ctx, t, s, none)
}

func roundTrip(ctx context.Context, t require.TestingT, s mfa.Store) {
	a, b, c := row("A", true), row("a", false), row("ab", true)
	c.Kind, c.Step, c.Sealed = mfa.KindRecovery, 0, mfa.Opaque("x")
	p := with(ctx, t, s, "acme", "анна", c, b, a)
	requireRows(ctx, t, s, p, a, b, c)
	budget := mfa.Budget{Empty: noon.Add(time.Hour), Last: noon.Add(time.Microsecond)}
	taken, err := s.Attempt(ctx, "acme", "анна", mfa.Budget{}, budget)
	require.NoError(t, err)
	require.True(t, taken)
	p.Budget = budget
	requireRows(ctx, t, s, p, a, b, c)
}

func changeNeedsPerson(ctx context.Context, t require.TestingT, s mfa.Store) {
	p := with(ctx, t, s, "acme", "anna", row("a", true))
	otherMAC, olderVersion := p, p
	otherMAC.MAC, olderVersion.Version = mfa.Opaque("other"), 6
	for name, wrong := range map[string]mfa.Person{
		"another MAC":       otherMAC,
		"an older version":  olderVersion,
		"said to be new":    {Tenant: "acme", ID: "anna"},
		"of another tenant": person("other", "anna", 7),
		"somebody else":     person("acme", "boris", 7),
	} {
		changed, err := s.Change(ctx, wrong, person(wrong.Tenant, wrong.ID, 8), []mfa.Row{row("b", true)}, []string{"a"})
		require.NoError(t, err, name)
		require.False(t, changed, name)
		requireRows(ctx, t, s, p, row("a", true))
	}
}

func changePuts(ctx context.Context, t require.TestingT, s mfa.Store) {
	other := with(ctx, t, s, "acme", "boris", row("a", true), row("b", true))
	namesake := with(ctx, t, s, "other", "anna", row("a", true))
	p := with(ctx, t, s, "acme", "anna", row("a", false), row("b", true), row("c", true))
	confirmed := row("a", true)
	confirmed.Step, confirmed.Sealed = 9, mfa.Opaque("again")
	p = change(ctx, t, s, p, person("acme", "anna", 8), []mfa.Row{row("d", true), confirmed}, "b", "nothing")
	requireRows(ctx, t, s, p, confirmed, row("c", true), row("d", true))
	p = change(ctx, t, s, p, person("acme", "anna", 9), nil, "a", "c", "d")
	requireRows(ctx, t, s, p)
	requireRows(ctx, t, s, other, row("a", true), row("b", true))
	requireRows(ctx, t, s, namesake, row("a", true))
}

func changeLeaves(ctx context.Context, t require.TestingT, s mfa.Store) {
	p := with(ctx, t, s, "acme", "anna", row("a", true))
	budget := mfa.Budget{Empty: noon.Add(time.Hour), Last: noon}
	taken, err := s.Attempt(ctx, "acme", "anna", mfa.Budget{}, budget)
	require.NoError(t, err)
	require.True(t, taken)
	advanced, err := s.Advance(ctx, "acme", "anna", "a", 8)
	require.NoError(t, err)
	require.True(t, advanced)
	p = change(ctx, t, s, p, person("acme", "anna", 8), []mfa.Row{row("b", true)})
	p.Budget = budget
	moved := row("a", true)
	moved.Step = 8
	requireRows(ctx, t, s, p, moved, row("b", true))
}

func attempt(ctx context.Context, t require.TestingT, s mfa.Store) {
	p, other := with(ctx, t, s, "acme", "anna"), with(ctx, t, s, "acme", "boris")
	first := mfa.Budget{Empty: noon, Last: noon.Add(time.Second)}
	second := mfa.Budget{Empty: noon.Add(time.Hour), Last: noon.Add(2 * time.Second)}
	for _, step := range []struct {
		old, next mfa.Budget
		want      bool
	}{
		{first, second, false},
		{mfa.Budget{}, first, true},
		{mfa.Budget{}, second, false},
		{mfa.Budget{Empty: first.Empty}, second, false},
		{mfa.Budget{Last: first.Last}, second, false},
		{first, second, true},
		{first, second, false},
	} {
		taken, err := s.Attempt(ctx, "acme", "anna", step.old, step.next)
		require.NoError(t, err)
		require.Equal(t, step.want, taken, "%v", step)
	}
	p.Budget = second
	requireRows(ctx, t, s, p)
	requireRows(ctx, t, s, other)
}

func advanceForward(ctx context.Context, t require.TestingT, s mfa.Store) {
	with(ctx, t, s, "acme", "anna", row("a", true))
	for _, try := range []struct {
		step int64
		want bool
	}{{7, false}, {6, false}, {8, true}, {8, false}, {7, false}, {59_000_000, true}, {9, false}} {
		advanced, err := s.Advance(ctx, "acme", "anna", "a", try.step)
		require.NoError(t, err)
		require.Equal(t, try.want, advanced, "to %d", try.step)
	}
	_, rows := load(ctx, t, s, "acme", "anna")
	require.EqualValues(t, 59_000_000, rows[0].Step)
}

func advanceActive(ctx context.Context, t require.TestingT, s mfa.Store) {
	p := with(ctx, t, s, "acme", "anna", row("a", false))
	advanced, err := s.Advance(ctx, "acme", "anna", "a", 8)
	require.NoError(t, err)
	require.False(t, advanced)
	requireRows(ctx, t, s, p, row("a", false))
}

func advanceOwn(ctx context.Context, t require.TestingT, s mfa.Store) {
	with(ctx, t, s, "acme", "anna", row("a", true))
	others := []mfa.Person{
		with(ctx, t, s, "acme", "boris", row("a", true), row("b", true)),
		with(ctx, t, s, "other", "anna", row("a", true), row("b", true)),
	}
	for _, id := range []string{"a", "b", "nothing"} {
		advanced, err := s.Advance(ctx, "acme", "anna", id, 8)
		require.NoError(t, err)
		require.Equal(t, id == "a", advanced, id)
	}
	for _, other := range others {
		requireRows(ctx, t, s, other, row("a", true), row("b", true))
	}
}

func clearAll(ctx context.Context, t require.TestingT, s mfa.Store) {
	with(ctx, t, s, "acme", "anna", row("a", true), row("b", false), row("c", true))
	others := []mfa.Person{with(ctx, t, s, "acme", "boris", row("a", true)), with(ctx, t, s, "other", "anna", row("a", true))}
	next := person("acme", "anna", 3) // no successor of what is stored
	next.Budget = mfa.Budget{Empty: noon, Last: noon}
	for _, want := range []int{3, 0} {
		removed, err := s.Clear(ctx, next)
		require.NoError(t, err)
		require.Equal(t, want, removed)
		requireRows(ctx, t, s, next)
	}
	newcomer := person("acme", "vera", 1)
	removed, err := s.Clear(ctx, newcomer)
	require.NoError(t, err)
	require.Zero(t, removed)
	requireRows(ctx, t, s, newcomer)
	for _, other := range others {
		requireRows(ctx, t, s, other, row("a", true))
	}
}
