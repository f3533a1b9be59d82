package rbac

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/uptime"
)

// hostOrg is a host's, with tables: it counts what it is asked, can fail, panic and hang.
type hostOrg struct {
	*StaticOrg
	versions, loads atomic.Int64
	fail            atomic.Pointer[error]
	hold            atomic.Pointer[chan struct{}] // until it is closed nobody is answered
}

func (o *hostOrg) answer(ctx context.Context) error {
	if hold := o.hold.Load(); hold != nil {
		select {
		case <-*hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := o.fail.Load(); err != nil {
		return *err
	}
	return nil
}

func (o *hostOrg) Version(ctx context.Context, tenant string) (int64, error) {
	o.versions.Add(1)
	version, _ := o.StaticOrg.Version(ctx, tenant) // before it hangs: what it tells then may be old
	return version, o.answer(ctx)
}

func (o *hostOrg) Load(ctx context.Context, tenant string) (Units, error) {
	o.loads.Add(1)
	units, _ := o.StaticOrg.Load(ctx, tenant)
	return units, o.answer(ctx)
}

func (o *hostOrg) move(person, unit string) {
	o.Set("acme", Units{Members: map[string][]string{person: {unit}}})
}

func page(n int) []crmguard.Resource {
	rs := make([]crmguard.Resource, n)
	for i := range rs {
		rs[i] = crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "anna", Unit: []string{"north", "north-1", "sales", ""}[i%4]}
	}
	return rs
}

// hostEngine lets vera view what is of her departments, by a clock that after moves.
func hostEngine(t *testing.T) (e *Engine, org *hostOrg, after func(d time.Duration)) {
	t.Helper()
	var now atomic.Int64
	t.Cleanup(uptime.Move(func() time.Duration { return time.Hour + time.Duration(now.Load()) }))
	org = &hostOrg{StaticOrg: &StaticOrg{}}
	org.move("vera", "north")
	return engineFromCSV(t, "p, u:vera, acme, contacts, view, dept, allow", org), org, func(d time.Duration) { now.Add(int64(d)) }
}

func inNorth(t *testing.T, e *Engine) bool {
	t.Helper()
	err := e.Check(t.Context(), person("vera"), crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Unit: "north"})
	if err != nil {
		requireDenied(t, err, "no-rule")
	}
	return err == nil
}

// settled waits until the look that is under way has ended.
func settled(e *Engine) { <-of(&e.org.tenants)["acme"].last.Load().done }

func TestDecisionsDoNotPayForTheHostsDepartments(t *testing.T) {
	e, org, after := hostEngine(t)
	for range 100 {
		require.True(t, inNorth(t, e))
		require.NoError(t, e.CheckAll(t.Context(), person("vera"), crmguard.View, page(4))[0])
	}
	require.EqualValues(t, 1, org.versions.Load())
	after(DefaultEvery)
	for range 100 {
		require.True(t, inNorth(t, e))
	}
	settled(e)
	require.EqualValues(t, 2, org.versions.Load())
	require.EqualValues(t, 1, org.loads.Load(), "the tree is read again only when its version changed")
}

func TestAChangeOfTheDepartmentsShowsWithinTheBound(t *testing.T) {
	e, org, after := hostEngine(t)
	require.True(t, inNorth(t, e))
	org.move("vera", "south")
	require.True(t, inNorth(t, e))
	after(DefaultEvery)
	inNorth(t, e) // this one starts the look and does not wait
	settled(e)
	require.False(t, inNorth(t, e))

	org.move("vera", "north")
	after(DefaultMaxAge)
	require.True(t, inNorth(t, e), "what is too old is not decided by")
}

func TestAfterInvalidateAChangeShowsAtOnce(t *testing.T) {
	e, org, _ := hostEngine(t)
	e.Invalidate("acme") // nothing is known yet
	require.True(t, inNorth(t, e))
	org.move("vera", "south")
	e.Invalidate("other")
	require.True(t, inNorth(t, e), "planted fault: the wrong tenant")
	e.Invalidate("acme")
	require.False(t, inNorth(t, e))
}

// A look that began before Invalidate has seen what was there before.
func TestALookFromBeforeInvalidateCountsForNothing(t *testing.T) {
	e, org, after := hostEngine(t)
	require.True(t, inNorth(t, e))
	hold := make(chan struct{})
	org.hold.Store(&hold)
	after(DefaultEvery)
	require.True(t, inNorth(t, e))
	before := of(&e.org.tenants)["acme"].last.Load()
	for org.versions.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	org.move("vera", "south")
	e.Invalidate("acme")
	org.hold.Store(nil)
	require.False(t, inNorth(t, e))
	close(hold)
	<-before.done
	require.False(t, inNorth(t, e))
}

func TestASignHasTheDepartmentsLookedAt(t *testing.T) {
	e, org, _ := hostEngine(t)
	require.True(t, inNorth(t, e))
	org.move("vera", "south")
	e.org.signal()
	inNorth(t, e)
	settled(e)
	require.False(t, inNorth(t, e))
	require.EqualValues(t, 2, org.versions.Load())
}

// Decisions go on without the host until what they know is too old, and then stop until
// somebody can look again; who fails is not asked more often than who does not.
func TestWithoutTheDepartmentsNothingIsDecidedForLong(t *testing.T) {
	e, org, after := hostEngine(t)
	require.True(t, inNorth(t, e))
	away := errors.New("the database of departments is away")
	org.fail.Store(&away)
	for range 4 {
		after(DefaultEvery)
		for range 10 {
			require.True(t, inNorth(t, e))
			settled(e)
		}
	}
	require.EqualValues(t, 5, org.versions.Load())
	after(DefaultEvery + 1)
	for range 10 {
		var stale *StaleError
		err := e.Check(t.Context(), person("vera"), crmguard.View, card)
		require.ErrorAs(t, err, &stale)
		require.ErrorIs(t, err, away)
		require.Equal(t, StaleError{"the departments", DefaultMaxAge + 1, DefaultMaxAge, stale.Err}, *stale)
		for _, err := range e.CheckAll(t.Context(), person("vera"), crmguard.View, page(2)) {
			require.ErrorIs(t, err, away)
		}
		_, err = e.Filter(t.Context(), person("vera"), crmguard.View, "contacts")
		require.ErrorIs(t, err, away)
		_, _, err = e.Resolve(t.Context(), "acme", "vera")
		require.ErrorIs(t, err, away)
	}
	require.EqualValues(t, 6, org.versions.Load())
	e.org.maxAge = time.Hour
	require.True(t, inNorth(t, e), "planted fault: it goes on with what is old")
	e.org.maxAge = DefaultMaxAge
	org.fail.Store(nil)
	after(DefaultEvery)
	require.True(t, inNorth(t, e))

	org.fail.Store(&away)
	e.Invalidate("acme")
	require.ErrorIs(t, e.Check(t.Context(), person("vera"), crmguard.View, card), away)
}

// Fifty ask while the host hangs: one asks it. Whoever has something to decide by does
// not wait, and whoever waits goes when they are called away.
func TestOneAsksForTheDepartments(t *testing.T) {
	e, org, after := hostEngine(t)
	hold := make(chan struct{})
	org.hold.Store(&hold)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	require.ErrorIs(t, e.Check(ctx, person("vera"), crmguard.View, card), gone)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { inNorth(t, e) })
	}
	close(hold)
	all.Wait()
	require.EqualValues(t, 1, org.versions.Load())
	require.EqualValues(t, 1, org.loads.Load())

	hold = make(chan struct{})
	org.hold.Store(&hold)
	after(DefaultEvery)
	for range 50 {
		require.True(t, inNorth(t, e))
	}
	close(hold)
	settled(e)
	require.EqualValues(t, 2, org.versions.Load())
}

func TestAHostThatPanicsIsAnError(t *testing.T) {
	e := engineFromCSV(t, goodRule, struct{ Org }{})
	require.ErrorContains(t, e.Check(t.Context(), person("vera"), crmguard.View, card), "panic")
}

func TestTreesAreKeptPerTenantAndBounded(t *testing.T) {
	e, org, _ := hostEngine(t)
	for i := range maxTenants + 1 {
		_, err := e.org.tree(t.Context(), strconv.Itoa(i))
		require.NoError(t, err)
	}
	require.Len(t, of(&e.org.tenants), 1)
	a, err := e.org.tree(t.Context(), "acme")
	require.NoError(t, err)
	b, err := e.org.tree(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, []string{"north"}, a.Members["vera"])
	require.Empty(t, b.Members)
	require.NotNil(t, org)
}

func TestAStaticOrgShowsAtOnce(t *testing.T) {
	org := &StaticOrg{}
	e := engineFromCSV(t, "p, u:vera, acme, contacts, view, dept, allow", org)
	require.False(t, inNorth(t, e))
	for _, unit := range []string{"north", "south", "north"} {
		org.Set("acme", Units{Members: map[string][]string{"vera": {unit}}})
		require.Equal(t, unit == "north", inNorth(t, e))
	}
}
