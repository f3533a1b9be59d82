package session_test

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/session"
)

func TestTheOldestOfTooManyEnds(t *testing.T) {
	f := newFixture(t, session.Options{})
	var tokens []string
	for range session.MaxSessions + 2 {
		tokens = append(tokens, f.start(t))
		f.clock.Advance(time.Second)
	}
	for i, token := range tokens {
		_, err := f.Authenticate(t.Context(), token)
		if i < 2 {
			requireDenied(t, session.CodeUnknown, err)
		} else {
			require.NoError(t, err)
		}
	}
}

func TestEnd(t *testing.T) {
	f := newFixture(t, session.Options{})
	token, other := f.start(t), f.start(t)
	require.NoError(t, f.End(t.Context(), token))
	_, err := f.Authenticate(t.Context(), token)
	requireDenied(t, session.CodeUnknown, err)
	require.NoError(t, f.End(t.Context(), token), "ended already")
	requireDenied(t, session.CodeMalformed, f.End(t.Context(), "x"))
	_, err = f.Authenticate(t.Context(), other)
	require.NoError(t, err)
}

func TestEndByIDNeedsTheRightPerson(t *testing.T) {
	f := newFixture(t, session.Options{})
	token := f.start(t)
	list, err := f.List(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.NoError(t, f.EndByID(t.Context(), "acme", "boris", list[0].ID))
	require.NoError(t, f.EndByID(t.Context(), "other", "anna", list[0].ID))
	_, err = f.Authenticate(t.Context(), token)
	require.NoError(t, err)
	require.NoError(t, f.EndByID(t.Context(), "acme", "anna", list[0].ID))
	_, err = f.Authenticate(t.Context(), token)
	requireDenied(t, session.CodeUnknown, err)
}

func TestList(t *testing.T) {
	f := newFixture(t, session.Options{})
	f.start(t)
	f.clock.Advance(time.Minute)
	f.start(t)
	list, err := f.List(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, session.Info{
		ID: list[0].ID, Device: "laptop", Addr: netip.MustParseAddr("192.0.2.7"), Assurance: crmguard.AssuranceSecondFactor,
		AuthenticatedAt: noon.Add(-time.Minute), Started: noon, Used: noon, End: noon.Add(12 * time.Hour),
	}, list[0])
	require.Equal(t, noon.Add(time.Minute), list[1].Started)
}

func TestRevokeAndState(t *testing.T) {
	f := newFixture(t, session.Options{})
	before, err := f.State(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.False(t, before.Closed)
	tokens := []string{f.start(t), f.start(t)}

	revoked, err := f.Revoke(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, crmguard.Revoked{What: "sessions", Count: 2}, revoked)
	for _, token := range tokens {
		_, err = f.Authenticate(t.Context(), token)
		requireDenied(t, session.CodeUnknown, err)
	}
	revoked, err = f.Revoke(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, crmguard.Revoked{What: "sessions"}, revoked)
	revoked, err = f.Revoke(t.Context(), "acme", "nobody")
	require.NoError(t, err)
	require.Zero(t, revoked.Count)

	f.start(t) // may sign in again
	require.NoError(t, f.ClosePerson(t.Context(), "acme", "anna"))
	require.NoError(t, f.ClosePerson(t.Context(), "acme", "anna"), "idempotent")
	_, err = f.Start(t.Context(), anna())
	requireDenied(t, session.CodeClosed, err)
	after, err := f.State(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, session.State{Closed: true, Epoch: before.Epoch + 3}, after)
	_, err = f.Revoke(t.Context(), "acme", "anna")
	require.NoError(t, err)
	after, err = f.State(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.True(t, after.Closed, "Revoke does not open")

	require.NoError(t, f.OpenPerson(t.Context(), "acme", "anna"))
	token := f.start(t)
	require.NoError(t, f.OpenPerson(t.Context(), "acme", "anna"))
	_, err = f.Authenticate(t.Context(), token)
	require.NoError(t, err, "opening who is open ends nothing")

	never, err := f.State(t.Context(), "acme", "nobody")
	require.NoError(t, err)
	require.Equal(t, session.State{Closed: true}, never)
}

func TestManyRevokeAtOnce(t *testing.T) {
	f := newFixture(t, session.Options{})
	before, err := f.State(t.Context(), "acme", "anna")
	require.NoError(t, err)
	for range 10 {
		f.start(t)
	}
	var wg sync.WaitGroup
	var ended atomic.Int64
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() {
			revoked, err := f.Revoke(t.Context(), "acme", "anna")
			ended.Add(int64(revoked.Count))
			errs[i] = err
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.EqualValues(t, 10, ended.Load(), "each session is revoked once")
	after, err := f.State(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, before.Epoch+50, after.Epoch)
}

func TestClosingSomebodyWhoWasNeverOpened(t *testing.T) {
	f := newFixture(t, session.Options{})
	require.NoError(t, f.ClosePerson(t.Context(), "acme", "new"))
	state, err := f.State(t.Context(), "acme", "new")
	require.NoError(t, err)
	require.True(t, state.Closed)
	require.NotZero(t, state.Epoch)
}
