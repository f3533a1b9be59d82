package rbac

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// slowStore keeps rows in memory. Each write tells that it began and waits to be let go.
type slowStore struct {
	textSource
	began chan struct{}
	goOn  chan error
}

func newSlowStore(text string) *slowStore {
	return &slowStore{textSource{text: text}, make(chan struct{}), make(chan error)}
}

func (s *slowStore) wait() error {
	s.began <- struct{}{}
	return <-s.goOn
}

func (s *slowStore) AddPolicy(string, string, []string) error { return s.wait() }

func (s *slowStore) RemoveFilteredPolicy(string, string, int, ...string) error { return s.wait() }

func TestRevokeDoesNotWaitForTheStore(t *testing.T) {
	store := newSlowStore(teamPolicy)
	e, err := New(t.Context(), store, quiet())
	require.NoError(t, err)
	revoked := make(chan error)
	go func() {
		_, err := e.Revoke(context.Background(), "acme", "oleg")
		revoked <- err
	}()
	<-store.began // the first of five removals, and the store hangs
	requireDenied(t, e.Check(t.Context(), person("oleg"), crmguard.View, card), "no-rule")

	// Another one takes effect too, and waits no longer than its context.
	ended, end := context.WithCancel(t.Context())
	end()
	got, err := e.Revoke(ended, "acme", "api")
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, got.Count)
	requireDenied(t, e.Check(t.Context(), person("api"), crmguard.View, card), "no-rule")
	require.ErrorIs(t, e.Reload(ended), context.Canceled)
	require.ErrorIs(t, e.GrantRole(crmguard.System(ended, "acme", "x"), "acme", "boris", "seller"), context.Canceled)

	for range 4 {
		store.goOn <- nil
		<-store.began
	}
	store.goOn <- errors.New("disk full")
	require.ErrorContains(t, <-revoked, "disk full")
	requireDenied(t, e.Check(t.Context(), person("oleg"), crmguard.View, card), "no-rule")
}

// What was begun before a Revoke and ends during it must not bring back what is
// being taken away.
func TestARevokeOutlastsWhatWasBegunBefore(t *testing.T) {
	store := newSlowStore(teamPolicy)
	e, err := New(t.Context(), store, quiet())
	require.NoError(t, err)
	granted, revoked := make(chan error), make(chan error)
	go func() {
		granted <- e.GrantRole(crmguard.System(context.Background(), "acme", "x"), "acme", "oleg", "seller")
	}()
	<-store.began
	old := e.current.Load()
	go func() {
		_, err := e.Revoke(context.Background(), "acme", "oleg")
		revoked <- err
	}()
	require.Eventually(t, func() bool { return e.current.Load() != old }, 10*time.Second, time.Millisecond) // it is gone here
	store.goOn <- nil
	require.NoError(t, <-granted)
	<-store.began
	for _, r := range e.current.Load().rows.all() {
		require.NotEqual(t, "u:oleg", r.fields[0], "the grant that was on its way came back")
	}
	e.put(old) // and so would a policy that was read before
	requireDenied(t, e.Check(t.Context(), person("oleg"), crmguard.View, card), "no-rule")
	for range 4 {
		store.goOn <- nil
		<-store.began
	}
	store.goOn <- nil
	require.NoError(t, <-revoked)

	// planted fault: without the list of what leaves, both come back
	require.Empty(t, e.leaving)
	e.put(old)
	require.NoError(t, e.Check(t.Context(), person("oleg"), crmguard.View, card))
}

func TestARefusedReloadDropsWhatIsNoLongerStored(t *testing.T) {
	const before = `
p, role:seller, acme, contacts, view, all, allow
p, role:seller, acme, contacts, export, all, deny
p, u:boris, acme, contacts, export, all, allow
p, role:careful, acme, contacts, view, shared, deny
g, u:anna, role:seller, acme
g, u:boris, role:seller, acme
g, u:boris, role:careful, acme
`
	path := policyFile(t, before)
	e, err := FromCSV(t.Context(), path, quiet())
	require.NoError(t, err)
	shared := card
	shared.Shared = true
	require.NoError(t, e.Check(t.Context(), person("anna"), crmguard.View, card))

	// Anna's role is gone, two rules that bind Boris were mistyped, and Vera was added.
	require.NoError(t, os.WriteFile(path, []byte(`
p, role:seller, acme, contacts, view, all, allow
p, role:seller, acme, contacts, export, all, Deny
p, u:boris, acme, contacts, export, all, allow
p, role:careful, acme, contacts, view, shared, deny
g, u:boris, role:seller, acme
g, u:boris, role:car$$eful, acme
g, u:vera, role:seller, acme
g, "u:x
`), 0o600))
	for range 2 { // a second time nothing changes
		var refused *PolicyError
		require.ErrorAs(t, e.Reload(t.Context()), &refused)
		require.Len(t, refused.Findings, 3)
		requireDenied(t, e.Check(t.Context(), person("anna"), crmguard.View, card), "no-rule")
		requireDenied(t, e.Check(t.Context(), person("vera"), crmguard.View, card), "no-rule")
		require.NoError(t, e.Check(t.Context(), person("boris"), crmguard.View, card))
		requireDenied(t, e.Check(t.Context(), person("boris"), crmguard.Export, card), "deny-rule")
		requireDenied(t, e.Check(t.Context(), person("boris"), crmguard.View, shared), "deny-rule")
	}

	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.ErrorContains(t, e.Reload(t.Context()), "no rule")
	requireDenied(t, e.Check(t.Context(), person("boris"), crmguard.View, card), "no-rule")
	require.NoError(t, os.WriteFile(path, []byte(before), 0o600))
	require.NoError(t, e.Reload(t.Context()))
	require.NoError(t, e.Check(t.Context(), person("anna"), crmguard.View, card))
}

// A narrowed policy allows what the old one did and what is left of it would, with
// all of its denials, and nothing else.
func TestNarrowedPoliciesOnlyLose(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12)) //nolint:gosec // the same run every time
	kept, lost, gained := 0, 0, 0
	for range 40 {
		rows := rowSetOf(randomPolicy(rnd, 40, 3, 4)).all()
		old := snapshotOf(t, rows)
		stored := slices.DeleteFunc(slices.Clone(rows), func(row) bool { return rnd.IntN(4) == 0 })
		narrowed := newSnapshot(rowSetOf(old.narrowed(stored)))
		left := oracle{rows: slices.DeleteFunc(slices.Clone(stored), row.denies)}
		for range 200 {
			q := randomQuestion(rnd, oracle{rows: rows})
			before, after := old.decide(q), narrowed.decide(q)
			want := before == allowed && left.answer(q)
			require.Equal(t, want, after == allowed, "%+v", q)
			switch {
			case want:
				kept++
			case before == allowed:
				lost++
			}
			if before != allowed && (oracle{rows: stored}).answer(q) {
				gained++ // planted fault: the stored rows alone, whose denials may be gone
			}
		}
	}
	require.Greater(t, min(kept, lost), 500)
	require.NotZero(t, gained)
	t.Logf("%d kept, %d lost; without the denials %d would have been gained", kept, lost, gained)
}
