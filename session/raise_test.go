package session

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func TestRaise(t *testing.T) {
	r := newRig(t)
	old, id := r.start(t, "anna")
	other, _ := r.start(t, "anna")
	before, row := requireLive(t, r, old), r.store.sessions[id]
	r.clock.Advance(10 * time.Minute)

	token, err := r.Raise(t.Context(), old, crmguard.AssuranceSecondFactor)
	require.NoError(t, err)
	want := before
	want.Assurance, want.AuthenticatedAt = crmguard.AssuranceSecondFactor, r.clock.Now()
	require.Equal(t, want, requireLive(t, r, token), "all else stays, the id too")
	_, err = r.Authenticate(t.Context(), old)
	requireDenied(t, CodeUnknown, err)
	requireDenied(t, CodeUnknown, r.End(t.Context(), old))
	_, err = r.Raise(t.Context(), old, crmguard.AssuranceSecondFactor)
	requireDenied(t, CodeUnknown, err)
	require.NotEqual(t, old[len(tokenPrefix)+20:], token[len(tokenPrefix)+20:])
	require.Equal(t, crmguard.AssurancePassword, requireLive(t, r, other).Assurance, "each session proves for itself")

	raised := r.store.sessions[id]
	row.Used, row.Assurance, row.AuthenticatedAt, row.Verifier = raised.Used, raised.Assurance, raised.AuthenticatedAt, raised.Verifier
	require.Equal(t, row, raised)
	require.Equal(t, r.clock.Now(), raised.Used)

	r.clock.Advance(time.Minute)
	again, err := r.Raise(t.Context(), token, crmguard.AssuranceSecondFactor)
	require.NoError(t, err, "the same once more makes it fresh")
	require.Equal(t, r.clock.Now(), requireLive(t, r, again).AuthenticatedAt)

	for r.clock.Now().Before(noon.Add(12*time.Hour - 20*time.Minute)) {
		r.clock.Advance(20 * time.Minute)
		again, err = r.Raise(t.Context(), again, crmguard.AssuranceSecondFactor)
		require.NoError(t, err)
	}
	r.clock.Advance(20 * time.Minute)
	_, err = r.Raise(t.Context(), again, crmguard.AssuranceSecondFactor)
	requireDenied(t, CodeExpired, err) // no proof prolongs a session
}

func requireLive(t testing.TB, r *rig, token string) crmguard.Subject {
	t.Helper()
	s, err := r.Authenticate(context.Background(), token)
	require.NoError(t, err)
	return s
}

func TestRaiseNeverLowers(t *testing.T) {
	for _, assurance := range []crmguard.Assurance{crmguard.AssuranceNone, crmguard.AssuranceRecovered, 19, 33} {
		r := newRig(t)
		token, _ := r.start(t, "anna")
		before := requireLive(t, r, token)
		r.clock.Advance(time.Second)
		_, err := r.Raise(t.Context(), token, assurance)
		require.Error(t, err)
		_, denied := errors.AsType[*crmguard.Denial](err)
		require.False(t, denied, "the caller is wrong, not the person: %v", err)
		require.Equal(t, before, requireLive(t, r, token))
	}
}

func TestRaiseNeedsAGoodToken(t *testing.T) {
	for code, spoil := range map[string]func(r *rig, token string){
		CodeExpired: func(r *rig, _ string) { r.clock.Advance(13 * time.Hour) },
		CodeIdle:    func(r *rig, _ string) { r.clock.Advance(time.Hour) },
		CodeUnknown: func(r *rig, token string) { require.NoError(t, r.End(t.Context(), token)) },
		CodeClosed: func(r *rig, token string) {
			comesBack(r, token, func() { require.NoError(t, r.ClosePerson(t.Context(), "acme", "anna")) })
		},
		CodeEnded: func(r *rig, token string) {
			comesBack(r, token, func() {
				_, err := r.Revoke(t.Context(), "acme", "anna")
				require.NoError(t, err)
			})
		},
	} {
		r := newRig(t)
		token, id := r.start(t, "anna")
		spoil(r, token)
		row := r.store.sessions[id]
		_, err := r.Raise(t.Context(), token, crmguard.AssuranceSecondFactor)
		requireDenied(t, code, err)
		require.Equal(t, row, r.store.sessions[id], "nothing was written")
	}
	r := newRig(t)
	_, err := r.Raise(t.Context(), "x", crmguard.AssuranceSecondFactor)
	requireDenied(t, CodeMalformed, err)
}

// comesBack puts the row of a token back after something removed it.
func comesBack(r *rig, token string, after func()) {
	parsed, _ := parseToken(token)
	row := r.store.sessions[parsed.id()]
	after()
	r.store.sessions[row.ID] = row
}

// beforeSwap does something between what Raise reads and what it writes.
type beforeSwap struct {
	*Memory
	do   func()
	fail error
}

func (s *beforeSwap) Swap(ctx context.Context, id string, verifier MAC, next *Row) (bool, error) {
	if do := s.do; do != nil {
		s.do = nil
		do()
	}
	if s.fail != nil {
		return false, s.fail
	}
	return s.Memory.Swap(ctx, id, verifier, next)
}

func TestWhatHappensWhileRaising(t *testing.T) {
	raise := func(t *testing.T, meanwhile func(r *rig, token string)) (*rig, string, error) {
		r := newRig(t)
		old, _ := r.start(t, "anna")
		m, err := New(&beforeSwap{Memory: r.store, do: func() { meanwhile(r, old) }}, r.keys, &Options{Clock: r.clock.Now})
		require.NoError(t, err)
		r.clock.Advance(2 * time.Minute)
		token, err := m.Raise(t.Context(), old, crmguard.AssuranceSecondFactor)
		return r, token, err
	}
	t.Run("another request notes its use", func(t *testing.T) {
		r, token, err := raise(t, func(r *rig, old string) { requireLive(t, r, old) })
		require.NoError(t, err)
		requireLive(t, r, token)
	})
	t.Run("the person is closed", func(t *testing.T) {
		r, _, err := raise(t, func(r *rig, _ string) { require.NoError(t, r.ClosePerson(t.Context(), "acme", "anna")) })
		requireDenied(t, CodeUnknown, err)
		require.Empty(t, r.store.sessions)
	})
	t.Run("somebody else raises it", func(t *testing.T) {
		var theirs string
		r, _, err := raise(t, func(r *rig, old string) {
			var err error
			theirs, err = r.Raise(t.Context(), old, crmguard.AssuranceSecondFactor)
			require.NoError(t, err)
		})
		requireDenied(t, CodeUnknown, err)
		requireLive(t, r, theirs)
	})
}

func TestRaiseThatCannotBeDecided(t *testing.T) {
	down := errors.New("down")
	r := newRig(t)
	token, _ := r.start(t, "anna")
	m, err := New(&beforeSwap{Memory: r.store, fail: down}, r.keys, &Options{Clock: r.clock.Now})
	require.NoError(t, err)
	_, err = m.Raise(t.Context(), token, crmguard.AssuranceSecondFactor)
	require.ErrorIs(t, err, down)
	r.keys.Fail(down)
	_, err = r.Raise(t.Context(), token, crmguard.AssuranceSecondFactor)
	require.ErrorIs(t, err, down)
	r.keys.Fail(nil)
	require.Equal(t, crmguard.AssurancePassword, requireLive(t, r, token).Assurance)
}

// Whoever had stolen the token before the step-up is left behind: the verifier
// holds the secret of the new one only.
func TestAStolenTokenIsLeftBehind(t *testing.T) {
	attack := func(t *testing.T, encode func(*Row, [32]byte) []byte) error {
		r := newRig(t)
		r.encode = encode
		stolen, _ := r.start(t, "anna")
		_, err := r.Raise(t.Context(), stolen, crmguard.AssuranceSecondFactor)
		require.NoError(t, err)
		_, err = r.Authenticate(t.Context(), stolen)
		return err
	}
	requireDenied(t, CodeUnknown, attack(t, sessionBytes))
	require.NoError(t, attack(t, func(r *Row, _ [32]byte) []byte { return sessionBytes(r, [32]byte{}) })) // the planted fault
}

// Putting back the row of before a step-up takes the step-up away, as the package
// documentation says, and gives nobody more than they had.
func TestReplayOfARowFromBeforeTheStepUp(t *testing.T) {
	r := newRig(t)
	old, id := r.start(t, "anna")
	row := r.store.sessions[id]
	token, err := r.Raise(t.Context(), old, crmguard.AssuranceSecondFactor)
	require.NoError(t, err)
	raised := r.store.sessions[id]
	r.store.sessions[id] = row
	_, err = r.Authenticate(t.Context(), token)
	requireDenied(t, CodeUnknown, err)
	require.Equal(t, crmguard.AssurancePassword, requireLive(t, r, old).Assurance)

	row.Assurance, row.AuthenticatedAt = raised.Assurance, raised.AuthenticatedAt
	r.store.sessions[id] = row
	_, err = r.Authenticate(t.Context(), old)
	requireDenied(t, CodeUnknown, err)
}
