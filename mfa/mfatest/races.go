package mfatest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/mfa"
)

func advanceRace(ctx context.Context, t require.TestingT, s mfa.Store) {
	with(ctx, t, s, "acme", "anna", row("a", true))
	require.Equal(t, 1, racetest.Winners(t, func(int) (bool, error) { return s.Advance(ctx, "acme", "anna", "a", 8) }))
}

func attemptRace(ctx context.Context, t require.TestingT, s mfa.Store) {
	with(ctx, t, s, "acme", "anna")
	require.Equal(t, 1, racetest.Winners(t, func(n int) (bool, error) {
		return s.Attempt(ctx, "acme", "anna", mfa.Budget{}, mfa.Budget{Empty: noon.Add(time.Duration(n) * time.Second), Last: noon})
	}))
}

func changeRace(ctx context.Context, t require.TestingT, s mfa.Store) {
	p := with(ctx, t, s, "acme", "anna")
	require.Equal(t, 1, racetest.Winners(t, func(n int) (bool, error) {
		return s.Change(ctx, p, person("acme", "anna", int64(n+8)), []mfa.Row{row(fmt.Sprint(n), true)}, nil)
	}))
	_, rows := load(ctx, t, s, "acme", "anna")
	require.Len(t, rows, 1)
}

func createRace(ctx context.Context, t require.TestingT, s mfa.Store) {
	require.Equal(t, 1, racetest.Winners(t, func(n int) (bool, error) {
		return s.Change(ctx, mfa.Person{Tenant: "acme", ID: "anna"}, person("acme", "anna", int64(n+1)), []mfa.Row{row(fmt.Sprint(n), true)}, nil)
	}))
	_, rows := load(ctx, t, s, "acme", "anna")
	require.Len(t, rows, 1)
}

func removeRace(ctx context.Context, t require.TestingT, s mfa.Store) {
	p := with(ctx, t, s, "acme", "anna", row("a", true))
	var removed atomic.Bool
	racetest.Run(t, func(n int) (bool, error) {
		if n == racetest.Racers/2 {
			changed, err := s.Change(ctx, p, person("acme", "anna", 8), nil, []string{"a"})
			removed.Store(true)
			return changed, err
		}
		before := removed.Load()
		advanced, err := s.Advance(ctx, "acme", "anna", "a", int64(n+8))
		if before && advanced {
			err = errors.Join(err, errors.New("advanced after it was removed"))
		}
		return advanced, err
	})
	advanced, err := s.Advance(ctx, "acme", "anna", "a", 1000)
	require.NoError(t, err)
	require.False(t, advanced)
}

// household is a person with an app and recovery codes on a store, and what the
// person has at hand.
type household struct {
	*mfa.Factors
	clock  *clock
	secret string
	id     string
}

func newHousehold(ctx context.Context, t require.TestingT, s mfa.Store) *household {
	h := &household{clock: &clock{}}
	var err error
	h.Factors, err = mfa.New(s, keys("suite"), "Acme CRM", &mfa.Options{Clock: h.clock.Now})
	require.NoError(t, err)
	e, err := h.Enrol(ctx, "acme", "anna", "anna")
	require.NoError(t, err)
	h.id, h.secret = e.ID, e.Secret()
	return h
}

// confirmed goes on to the step after the one that confirming used up.
func (h *household) confirmed(ctx context.Context, t require.TestingT) {
	require.NoError(t, h.Confirm(ctx, "acme", "anna", h.id, h.code(t)))
	h.clock.Advance(30 * time.Second)
}

func (h *household) code(t require.TestingT) string {
	code, err := totp.GenerateCode(h.secret, h.clock.Now())
	require.NoError(t, err)
	return code
}

// letIn tells a denial from an error.
func letIn(err error) (bool, error) {
	if _, denied := errors.AsType[*crmguard.Denial](err); denied {
		return false, nil
	}
	return err == nil, err
}

func verifyRace(ctx context.Context, t require.TestingT, s mfa.Store) {
	h := newHousehold(ctx, t, s)
	h.confirmed(ctx, t)
	code := h.code(t)
	require.Equal(t, 1, racetest.Winners(t, func(int) (bool, error) { return letIn(h.Verify(ctx, "acme", "anna", code)) }))
}

func recoverRace(ctx context.Context, t require.TestingT, s mfa.Store) {
	h := newHousehold(ctx, t, s)
	h.confirmed(ctx, t)
	codes, err := h.ReplaceRecovery(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, 1, racetest.Winners(t, func(int) (bool, error) { return letIn(h.Recover(ctx, "acme", "anna", codes.Show()[3])) }))
	status, err := h.Status(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, 9, status.Recovery)
}

func confirmRace(ctx context.Context, t require.TestingT, s mfa.Store) {
	h := newHousehold(ctx, t, s)
	code := h.code(t)
	require.Equal(t, 1, racetest.Winners(t, func(int) (bool, error) { return letIn(h.Confirm(ctx, "acme", "anna", h.id, code)) }))
	ok, err := letIn(h.Verify(ctx, "acme", "anna", code))
	require.NoError(t, err)
	require.False(t, ok, "confirming used the code up")
}

func guessRace(ctx context.Context, t require.TestingT, s mfa.Store) {
	h := newHousehold(ctx, t, s)
	h.confirmed(ctx, t)
	compared := racetest.Winners(t, func(int) (bool, error) {
		err := h.Recover(ctx, "acme", "anna", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA")
		denial, ok := errors.AsType[*crmguard.Denial](err)
		if !ok {
			return false, fmt.Errorf("want a denial, got %w", err)
		}
		return denial.Detail == mfa.ReasonWrong, nil
	})
	require.Equal(t, 5, compared)
}

// replaceRace looks at the promise that people rely on, through Factors.
func replaceRace(ctx context.Context, t require.TestingT, s mfa.Store) {
	h := newHousehold(ctx, t, s)
	h.confirmed(ctx, t)
	old, err := h.ReplaceRecovery(ctx, "acme", "anna")
	require.NoError(t, err)
	var replaced atomic.Bool
	racetest.Run(t, func(n int) (bool, error) {
		if n == racetest.Racers/2 {
			_, err := h.ReplaceRecovery(ctx, "acme", "anna")
			replaced.Store(true)
			return true, err
		}
		before := replaced.Load()
		ok, err := letIn(h.Recover(ctx, "acme", "anna", old.Show()[n%5])) // the others stay unused
		if before && ok {
			err = errors.Join(err, errors.New("let in with a code that was replaced"))
		}
		return ok, err
	})
	h.clock.Advance(24 * time.Hour)
	for _, code := range old.Show() {
		h.clock.Advance(time.Hour)
		ok, err := letIn(h.Recover(ctx, "acme", "anna", code))
		require.NoError(t, err)
		require.False(t, ok)
	}
}
