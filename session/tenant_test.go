package session

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func requireLocked(t testing.TB, want bool, m *Manager) {
	t.Helper()
	locked, err := m.LockedDown(context.Background(), "acme")
	require.NoError(t, err)
	require.Equal(t, want, locked)
}

// restarted is a Manager of another process on the same store.
func (r *rig) restarted(t testing.TB) *Manager {
	t.Helper()
	m, err := New(r.store, r.keys, &Options{Clock: r.clock.Now})
	require.NoError(t, err)
	return m
}

func (r *rig) tenant() *Person { return &r.store.persons[personKey{"acme", ""}].state }

func TestLockDown(t *testing.T) {
	r := newRig(t)
	token, _ := r.start(t, "anna")
	other := r.restarted(t)
	requireLocked(t, true, r.Manager) // nobody has set the tenant up
	require.NoError(t, r.Reopen(t.Context(), "acme"))
	requireLocked(t, false, r.Manager)
	requireLocked(t, false, other)

	require.NoError(t, other.LockDown(t.Context(), "acme"))
	requireLocked(t, true, r.Manager)
	requireLocked(t, true, other)
	state := *r.tenant()
	require.NoError(t, r.LockDown(t.Context(), "acme"))
	require.Equal(t, state, *r.tenant(), "idempotent")
	requireLive(t, r, token)
	r.start(t, "anna") // sessions go on: others decide what may be done in them

	require.NoError(t, r.Reopen(t.Context(), "acme"))
	state = *r.tenant()
	require.NoError(t, r.Reopen(t.Context(), "acme"))
	require.Equal(t, state, *r.tenant(), "idempotent")
	requireLocked(t, false, other)
	requireLive(t, r, token)

	locked, err := r.LockedDown(t.Context(), "other")
	require.NoError(t, err)
	require.True(t, locked, "each tenant has a state of its own")
}

func TestLockDownBeforeAnythingElse(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.LockDown(t.Context(), "acme"))
	requireLocked(t, true, r.Manager)
	require.NoError(t, r.Reopen(t.Context(), "acme"))
	requireLocked(t, false, r.Manager)
}

func TestLockDownNames(t *testing.T) {
	r := newRig(t)
	foreign := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "other", ID: "eve", Kind: crmguard.KindEmployee})
	for _, call := range []func(context.Context, string) error{
		r.LockDown, r.Reopen,
		func(ctx context.Context, tenant string) error {
			locked, err := r.LockedDown(ctx, tenant)
			require.True(t, locked || err == nil, "beside an error it is locked down")
			return err
		},
	} {
		for _, tenant := range []string{"", "\xff", "a\x00b"} {
			require.Error(t, call(t.Context(), tenant))
		}
		denial, ok := errors.AsType[*crmguard.Denial](call(foreign, "acme"))
		require.True(t, ok)
		require.Equal(t, "tenant", denial.Code)
		require.NoError(t, call(crmguard.System(t.Context(), "acme", "job"), "acme"))
	}
}

func TestLockDownThatCannotBeDecided(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.Reopen(t.Context(), "acme"))
	down := errors.New("down")
	r.keys.Fail(down)
	locked, err := r.LockedDown(t.Context(), "acme")
	require.ErrorIs(t, err, down)
	require.True(t, locked)
	require.ErrorIs(t, r.LockDown(t.Context(), "acme"), down)
	require.ErrorIs(t, r.Reopen(t.Context(), "acme"), down)
	r.keys.Fail(nil)
	requireLocked(t, false, r.Manager)
}

// reopenings are what a writer of the database tries after LockDown, who has seen
// every state from before.
var reopenings = map[string]func(r *rig){
	"opened":          func(r *rig) { r.tenant().Closed = false },
	"no MAC":          func(r *rig) { r.tenant().Closed, r.tenant().MAC = false, nil },
	"next epoch":      func(r *rig) { r.tenant().Closed = false; r.tenant().Epoch++ },
	"all zero":        func(r *rig) { *r.tenant() = Person{Tenant: "acme"} },
	"row gone":        func(r *rig) { delete(r.store.persons, personKey{"acme", ""}) },
	"state of anna":   func(r *rig) { r.copyState("acme", "anna") },
	"of other's anna": func(r *rig) { r.copyState("other", "anna") },
	"of other tenant": func(r *rig) { r.copyState("other", "") },
}

// copyState makes the tenant's state what an open person's or tenant's is.
func (r *rig) copyState(tenant, person string) {
	from := r.store.persons[personKey{tenant, person}].state
	own := r.tenant()
	own.Closed, own.Epoch, own.MAC = from.Closed, from.Epoch, from.MAC
}

func TestForgedStateIsLockedDown(t *testing.T) {
	for name, forge := range reopenings {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			require.NoError(t, r.Reopen(t.Context(), "acme"))
			require.NoError(t, r.Reopen(t.Context(), "other"))
			require.NoError(t, r.LockDown(t.Context(), "acme"))
			forge(r)
			restarted := r.restarted(t)
			requireLocked(t, true, r.Manager)
			requireLocked(t, true, restarted)
			if name != "row gone" && name != "all zero" {
				require.ErrorIs(t, restarted.Reopen(t.Context(), "acme"), ErrState)
			}
			require.NoError(t, r.LockDown(t.Context(), "acme"))
			requireLocked(t, true, restarted)
			require.NoError(t, r.Reopen(t.Context(), "acme"))
			requireLocked(t, false, restarted)
		})
	}
}

// believesTenants is an Authenticator that does not look at the state of tenants.
type believesTenants struct{ crmguard.Authenticator }

func (b believesTenants) Verify(ctx context.Context, at crmguard.Place, data, mac []byte) error {
	if at.Kind == kindTenant {
		return nil
	}
	return b.Authenticator.Verify(ctx, at, data, mac)
}

// The planted fault: without the MAC the states of others would do.
func TestReopeningSucceedsWithoutTheMACOfTenants(t *testing.T) {
	for _, name := range []string{"opened", "no MAC", "next epoch"} {
		r := newRig(t)
		r.Manager.keys = believesTenants{r.keys}
		require.NoError(t, r.Reopen(t.Context(), "acme"))
		require.NoError(t, r.LockDown(t.Context(), "acme"))
		reopenings[name](r)
		requireLocked(t, false, r.Manager)
	}
}

// A tenant's state is no person's: whoever has seen an open tenant cannot open a
// person with it.
func TestStatesOfTenantsAndPersonsDiffer(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.Reopen(t.Context(), "acme"))
	require.NoError(t, r.ClosePerson(t.Context(), "acme", "anna"))
	open := *r.tenant()
	r.writePerson("anna", func(p *Person) { p.Closed, p.Epoch, p.MAC = open.Closed, open.Epoch, open.MAC })
	_, err := r.State(t.Context(), "acme", "anna")
	require.ErrorIs(t, err, ErrState)

	// Not even if places were not told apart.
	person := Person{Tenant: "acme", ID: "anna", Epoch: 7}
	tenant := Person{Tenant: "acme", Epoch: 7}
	require.False(t, bytes.HasPrefix(personBytes(&tenant), personBytes(&person)[:4+len("crmguard person v1")]))
	require.NotEqual(t, person.place().Kind, tenant.place().Kind)
}

// A state from before the lockdown is genuine. Every process that has seen the
// lockdown knows it for what it is; one that started since does not, as the
// package documentation says.
func TestReplayOfAnOpenState(t *testing.T) {
	var heard bytes.Buffer
	r := newRig(t)
	r.log = slog.New(slog.NewTextHandler(&heard, nil))
	require.NoError(t, r.Reopen(t.Context(), "acme"))
	node, sleeping := r.restarted(t), r.restarted(t)
	requireLocked(t, false, node)
	requireLocked(t, false, sleeping)
	open := *r.tenant()

	require.NoError(t, r.LockDown(t.Context(), "acme"))
	requireLocked(t, true, node)
	*r.tenant() = open
	requireLocked(t, true, r.Manager) // who has written it
	requireLocked(t, true, node)      // who has read it
	require.Contains(t, heard.String(), "older state")
	requireLocked(t, false, sleeping)       // who was not asked meanwhile
	requireLocked(t, false, r.restarted(t)) // who has just started

	require.ErrorIs(t, node.Reopen(t.Context(), "acme"), ErrState)
	r.clock.Advance(-time.Hour) // a clock that was set back makes no epoch that was there before
	require.NoError(t, node.LockDown(t.Context(), "acme"))
	for _, m := range []*Manager{r.Manager, node, sleeping, r.restarted(t)} {
		requireLocked(t, true, m)
	}
	require.NoError(t, node.Reopen(t.Context(), "acme"))
	for _, m := range []*Manager{r.Manager, node, sleeping, r.restarted(t)} {
		requireLocked(t, false, m)
	}
}

// The planted fault: without what it has seen, a process believes the old state.
func TestReplaySucceedsAgainstAForgetfulProcess(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.Reopen(t.Context(), "acme"))
	open := *r.tenant()
	require.NoError(t, r.LockDown(t.Context(), "acme"))
	r.seen.all = nil
	*r.tenant() = open
	requireLocked(t, false, r.Manager)
}

// A read that began before a change and ends after it is no replay.
func TestSlowReadIsNoReplay(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.Reopen(t.Context(), "acme"))
	slow := &afterPerson{Memory: r.store}
	m, err := New(slow, r.keys, &Options{Clock: r.clock.Now})
	require.NoError(t, err)
	requireLocked(t, false, m)
	slow.do = func() { // both through the same process
		require.NoError(t, m.LockDown(t.Context(), "acme"))
		require.NoError(t, m.Reopen(t.Context(), "acme"))
	}
	requireLocked(t, false, m)
}

// afterPerson does something after a person was read.
type afterPerson struct {
	*Memory
	do func()
}

func (s *afterPerson) Person(ctx context.Context, tenant, person string) (Person, []Row, error) {
	p, rows, err := s.Memory.Person(ctx, tenant, person)
	if do := s.do; do != nil {
		s.do = nil
		do()
	}
	return p, rows, err
}

func BenchmarkLockedDown(b *testing.B) {
	r := newRig(b)
	require.NoError(b, r.Reopen(b.Context(), "acme"))
	b.ReportAllocs()
	for b.Loop() {
		if locked, err := r.LockedDown(b.Context(), "acme"); err != nil || locked {
			b.Fatal(locked, err)
		}
	}
}

func BenchmarkRaise(b *testing.B) {
	r := newRig(b)
	token, _ := r.start(b, "anna")
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if token, err = r.Raise(b.Context(), token, crmguard.AssuranceSecondFactor); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLockedDownAllocates(t *testing.T) {
	r := newRig(t)
	r.Manager.keys = free{}
	require.NoError(t, r.Reopen(t.Context(), "acme"))
	allocs := testing.AllocsPerRun(100, func() {
		if locked, err := r.LockedDown(context.Background(), "acme"); err != nil || locked {
			t.Fatal(locked, err)
		}
	})
	require.LessOrEqual(t, allocs, 5.0, "without those of the keys")
}
