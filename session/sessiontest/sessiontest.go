// Package sessiontest tells whether a session.Store keeps to its contract.
//
//	func TestStore(t *testing.T) {
//		sessiontest.Run(t, func(t *testing.T) session.Store { return mystore.New(…) })
//	}
package sessiontest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/session"
)

// Run tests stores that open returns empty, one for each rule.
func Run(t *testing.T, open func(t *testing.T) session.Store) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) { r.check(t.Context(), t, open(t)) })
	}
}

// A rule fails t when the store breaks it.
type rule struct {
	name  string
	check func(ctx context.Context, t require.TestingT, s session.Store)
}

var rules = []rule{
	{"what does not exist is not found", notFound},
	{"what was started comes back in every field", roundTrip},
	{"Start needs the person exactly as stored, and open", startNeedsPerson},
	{"Start keeps the newest sessions of the person only", startKeeps},
	{"Start removes ended sessions, a bounded number", startSweeps},
	{"Swap changes what a use and a proof change, for the right verifier only", swap},
	{"Swap with nil removes, whatever the row holds", swapRemoves},
	{"what a caller changes afterwards is not stored", ownership},
	{"Change replaces the person exactly as expected", change},
	{"Change removes the sessions of this person only", changeRemoves},
	{"the tenant's own state, of the empty person, is one like others", tenantState},
	{"of many that Swap one verifier, one wins", swapRace},
	{"of many that remove one session, one wins", removeRace},
	{"of many that make a person, one wins", createRace},
	{"of many that Change a person, one wins", changeRace},
	{"many that Start leave as many as are kept", startRace},
	{"no session started before Change is there after it", startChangeRace},
	{"no token lives after ClosePerson has returned", closeRace},
	{"of many that raise a session, one gets a token, the only good one", raiseRace},
	{"a tenant is locked down when the last LockDown has returned", lockDownRace},
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 123456000, time.UTC)

func person(tenant, id string, epoch int64) session.Person {
	return session.Person{Tenant: tenant, ID: id, Epoch: epoch, MAC: session.MAC(fmt.Sprintf("mac of %d", epoch))}
}

// opened stores a person and returns it.
func opened(ctx context.Context, t require.TestingT, s session.Store, tenant, id string) session.Person {
	p := person(tenant, id, 7)
	_, changed, err := s.Change(ctx, session.Person{Tenant: tenant, ID: id}, p)
	require.NoError(t, err)
	require.True(t, changed, "a person without a row is made")
	return p
}

// row is a session of p that starts n minutes after noon and lasts an hour.
func row(p session.Person, n int) session.Row {
	start := noon.Add(time.Duration(n) * time.Minute)
	return session.Row{
		ID: rand.Text()[:20], Tenant: p.Tenant, Person: p.ID, OnBehalfOf: "boss",
		Kind: crmguard.KindIntegration, Assurance: crmguard.AssuranceSecondFactor, AuthenticatedAt: start.Add(-time.Second),
		Device: "Annas Gerät", Addr: netip.MustParseAddr("2001:db8::7"), Scopes: []string{"contacts:view", ""},
		Started: start, Used: start.Add(time.Microsecond), End: start.Add(time.Hour), Epoch: p.Epoch, Verifier: session.MAC(rand.Text()),
	}
}

func start(ctx context.Context, t require.TestingT, s session.Store, p session.Person, r session.Row) {
	started, err := s.Start(ctx, p, r, 1000)
	require.NoError(t, err)
	require.True(t, started, "an open person as stored can start")
}

func rowsOf(ctx context.Context, t require.TestingT, s session.Store, p session.Person) []session.Row {
	_, rows, err := s.Person(ctx, p.Tenant, p.ID)
	require.NoError(t, err)
	return rows
}

func notFound(ctx context.Context, t require.TestingT, s session.Store) {
	_, _, err := s.Session(ctx, "nothing")
	require.ErrorIs(t, err, session.ErrNotFound)
	p, rows, err := s.Person(ctx, "acme", "nobody")
	require.NoError(t, err)
	require.Equal(t, session.Person{Tenant: "acme", ID: "nobody"}, p)
	require.Empty(t, rows)
	swapped, err := s.Swap(ctx, "nothing", session.MAC("x"), nil)
	require.NoError(t, err)
	require.False(t, swapped)
}

func roundTrip(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	plain := row(p, 1)
	plain.Scopes, plain.Addr, plain.OnBehalfOf, plain.Device = nil, netip.Addr{}, "", ""
	narrow := row(p, 2)
	narrow.Scopes = []string{} // narrowed to nothing, where nil is not narrowed
	want := []session.Row{row(p, 0), plain, narrow}
	for _, r := range want {
		start(ctx, t, s, p, r)
	}
	for _, r := range want {
		got, gotPerson, err := s.Session(ctx, r.ID)
		require.NoError(t, err)
		require.Equal(t, r, got)
		require.Equal(t, p, gotPerson)
	}
	gotPerson, rows, err := s.Person(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, p, gotPerson)
	require.Equal(t, want, rows, "oldest first")
}

func startNeedsPerson(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	closed := opened(ctx, t, s, "acme", "boris")
	next := closed
	next.Closed, next.Epoch = true, 8
	_, changed, err := s.Change(ctx, closed, next)
	require.NoError(t, err)
	require.True(t, changed)

	otherMAC, olderEpoch, shut := p, p, p
	otherMAC.MAC, olderEpoch.Epoch, shut.Closed = session.MAC("other"), 6, true
	for name, wrong := range map[string]session.Person{
		"another MAC":          otherMAC,
		"an older epoch":       olderEpoch,
		"said to be closed":    shut,
		"closed":               next,
		"before it was closed": closed,
		"without a row":        {Tenant: "acme", ID: "nobody"},
		"of another tenant":    person("other", "anna", 7),
	} {
		r := row(wrong, 0)
		started, err := s.Start(ctx, wrong, r, 1000)
		require.NoError(t, err, name)
		require.False(t, started, name)
		_, _, err = s.Session(ctx, r.ID)
		require.ErrorIs(t, err, session.ErrNotFound, name)
	}
}

func startKeeps(ctx context.Context, t require.TestingT, s session.Store) {
	p, other := opened(ctx, t, s, "acme", "anna"), opened(ctx, t, s, "acme", "boris")
	start(ctx, t, s, other, row(other, 0))
	var all []session.Row
	for n := range 6 {
		r := row(p, n)
		started, err := s.Start(ctx, p, r, 3)
		require.NoError(t, err)
		require.True(t, started)
		all = append(all, r)
	}
	require.Equal(t, all[3:], rowsOf(ctx, t, s, p))
	require.Len(t, rowsOf(ctx, t, s, other), 1)
}

func startSweeps(ctx context.Context, t require.TestingT, s session.Store) {
	p, other := opened(ctx, t, s, "acme", "anna"), opened(ctx, t, s, "other", "boris")
	for n := range session.SweepRows + 5 {
		r := row(p, 0)
		r.End = noon.Add(time.Duration(n) * time.Second)
		start(ctx, t, s, p, r)
	}
	alive := row(p, 0)
	start(ctx, t, s, p, alive)
	late := row(other, 59) // alive has not ended, all others have
	start(ctx, t, s, other, late)
	require.Len(t, rowsOf(ctx, t, s, p), 6, "%d are removed at a time", session.SweepRows)
	start(ctx, t, s, other, row(other, 59))
	require.Equal(t, []session.Row{alive}, rowsOf(ctx, t, s, p))
	require.Len(t, rowsOf(ctx, t, s, other), 2)
}

func swap(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	r, bystander := row(p, 0), row(p, 1)
	start(ctx, t, s, p, r)
	start(ctx, t, s, p, bystander)
	next := r
	next.Used, next.Verifier = r.Used.Add(time.Minute), session.MAC("next")
	next.Assurance, next.AuthenticatedAt = crmguard.AssurancePhishingResistant, r.AuthenticatedAt.Add(time.Hour)
	want := next
	next.Person, next.Device, next.End, next.Epoch = "boris", "phone", r.End.Add(time.Hour), 99

	swapped, err := s.Swap(ctx, r.ID, session.MAC("wrong"), &next)
	require.NoError(t, err)
	require.False(t, swapped)
	require.Equal(t, []session.Row{r, bystander}, rowsOf(ctx, t, s, p))

	swapped, err = s.Swap(ctx, r.ID, r.Verifier, &next)
	require.NoError(t, err)
	require.True(t, swapped)
	require.Equal(t, []session.Row{want, bystander}, rowsOf(ctx, t, s, p))

	swapped, err = s.Swap(ctx, r.ID, r.Verifier, &next)
	require.NoError(t, err)
	require.False(t, swapped, "the old verifier is used up")
}

func swapRemoves(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	r, bystander := row(p, 0), row(p, 1)
	start(ctx, t, s, p, r)
	start(ctx, t, s, p, bystander)
	for _, want := range []bool{true, false} {
		swapped, err := s.Swap(ctx, r.ID, nil, nil)
		require.NoError(t, err)
		require.Equal(t, want, swapped)
	}
	require.Equal(t, []session.Row{bystander}, rowsOf(ctx, t, s, p))
	swapped, err := s.Swap(ctx, bystander.ID, session.MAC("any"), nil)
	require.NoError(t, err)
	require.True(t, swapped)
	require.Empty(t, rowsOf(ctx, t, s, p))
}

func ownership(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	given := row(p, 0)
	want := given
	want.Scopes = slices.Clone(given.Scopes)
	start(ctx, t, s, p, given)
	given.Scopes[0] = "changed"
	for range 2 {
		got, _, err := s.Session(ctx, want.ID)
		require.NoError(t, err)
		rows := rowsOf(ctx, t, s, p)
		require.Equal(t, []session.Row{want, want}, append(rows, got))
		got.Scopes[0], rows[0].Scopes[1] = "changed", "changed"
	}
}

func change(ctx context.Context, t require.TestingT, s session.Store) {
	none := session.Person{Tenant: "acme", ID: "anna"}
	p := opened(ctx, t, s, "acme", "anna")
	next := person("acme", "anna", 8)
	next.Closed = true
	wrongMAC, wrongEpoch, wrongState := p, p, p
	wrongMAC.MAC, wrongEpoch.Epoch, wrongState.Closed = session.MAC("x"), 6, true
	for _, old := range []session.Person{none, wrongMAC, wrongEpoch, wrongState} {
		_, changed, err := s.Change(ctx, old, next)
		require.NoError(t, err)
		require.False(t, changed, "%+v is not stored", old)
	}
	_, changed, err := s.Change(ctx, p, next)
	require.NoError(t, err)
	require.True(t, changed)
	got, _, err := s.Person(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, next, got)
	_, changed, err = s.Change(ctx, person("acme", "nobody", 7), person("acme", "nobody", 8))
	require.NoError(t, err)
	require.False(t, changed, "there is no such row")
}

func tenantState(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	start(ctx, t, s, p, row(p, 0))
	own := opened(ctx, t, s, "acme", "")
	opened(ctx, t, s, "other", "")
	next := person("acme", "", 8)
	next.Closed = true
	ended, changed, err := s.Change(ctx, own, next)
	require.NoError(t, err)
	require.True(t, changed)
	require.Zero(t, ended)
	got, rows, err := s.Person(ctx, "acme", "")
	require.NoError(t, err)
	require.Equal(t, next, got)
	require.Empty(t, rows)
	other, _, err := s.Person(ctx, "other", "")
	require.NoError(t, err)
	require.False(t, other.Closed)
	require.Len(t, rowsOf(ctx, t, s, p), 1)
}

func changeRemoves(ctx context.Context, t require.TestingT, s session.Store) {
	p, colleague, namesake := opened(ctx, t, s, "acme", "anna"), opened(ctx, t, s, "acme", "boris"), opened(ctx, t, s, "other", "anna")
	for n := range 3 {
		for _, who := range []session.Person{p, colleague, namesake} {
			start(ctx, t, s, who, row(who, n))
		}
	}
	next := person("acme", "anna", 8)
	ended, changed, err := s.Change(ctx, p, next)
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, 3, ended)
	require.Empty(t, rowsOf(ctx, t, s, p))
	require.Len(t, rowsOf(ctx, t, s, colleague), 3)
	require.Len(t, rowsOf(ctx, t, s, namesake), 3)
	start(ctx, t, s, next, row(next, 4))
}
