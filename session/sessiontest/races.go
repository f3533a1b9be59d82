package sessiontest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/session"
)

func swapRace(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	r := row(p, 0)
	start(ctx, t, s, p, r)
	won := racetest.Winners(t, func(n int) (bool, error) {
		next := r
		next.Used, next.Verifier = r.Used.Add(time.Minute), session.MAC(fmt.Sprint("next ", n))
		return s.Swap(ctx, r.ID, r.Verifier, &next)
	})
	require.Equal(t, 1, won)
}

func removeRace(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	r := row(p, 0)
	start(ctx, t, s, p, r)
	won := racetest.Winners(t, func(int) (bool, error) { return s.Swap(ctx, r.ID, r.Verifier, nil) })
	require.Equal(t, 1, won)
}

func createRace(ctx context.Context, t require.TestingT, s session.Store) {
	won := racetest.Winners(t, func(n int) (bool, error) {
		_, changed, err := s.Change(ctx, session.Person{Tenant: "acme", ID: "anna"}, person("acme", "anna", int64(n+1)))
		return changed, err
	})
	require.Equal(t, 1, won)
}

func changeRace(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	won := racetest.Winners(t, func(n int) (bool, error) {
		_, changed, err := s.Change(ctx, p, person("acme", "anna", int64(n+8)))
		return changed, err
	})
	require.Equal(t, 1, won)
}

func startRace(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	won := racetest.Winners(t, func(n int) (bool, error) { return s.Start(ctx, p, row(p, n), 5) })
	require.Equal(t, racetest.Racers, won)
	require.Len(t, rowsOf(ctx, t, s, p), 5)
}

func startChangeRace(ctx context.Context, t require.TestingT, s session.Store) {
	p := opened(ctx, t, s, "acme", "anna")
	next := person("acme", "anna", 8)
	next.Closed = true
	racetest.Run(t, func(n int) (bool, error) {
		if n != racetest.Racers/2 {
			return s.Start(ctx, p, row(p, n), 1000)
		}
		_, changed, err := s.Change(ctx, p, next)
		if err == nil && !changed {
			err = errors.New("Start changed the person")
		}
		return changed, err
	})
	require.Empty(t, rowsOf(ctx, t, s, p), "each Start came before Change, and was removed, or failed")
}

// closeRace looks at the promise that people rely on, through a Manager.
func closeRace(ctx context.Context, t require.TestingT, s session.Store) {
	m, err := session.New(s, macs("suite"), nil)
	require.NoError(t, err)
	require.NoError(t, m.OpenPerson(ctx, "acme", "anna"))
	var mu sync.Mutex
	var tokens []string
	racetest.Run(t, func(n int) (bool, error) {
		if n == racetest.Racers/2 {
			err := m.ClosePerson(ctx, "acme", "anna")
			mu.Lock()
			defer mu.Unlock()
			for _, token := range tokens {
				err = errors.Join(err, mustBeDenied(m.Authenticate(ctx, token)))
			}
			return true, err
		}
		token, err := m.Start(ctx, crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
		if _, denied := errors.AsType[*crmguard.Denial](err); denied {
			return false, nil
		}
		mu.Lock()
		defer mu.Unlock()
		tokens = append(tokens, token)
		return true, err
	})
	for _, token := range tokens {
		require.NoError(t, mustBeDenied(m.Authenticate(ctx, token)))
	}
	_, err = m.Start(ctx, crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
	require.NoError(t, mustBeDenied(crmguard.Subject{}, err), "a closed person starts nothing")
}

// raiseRace also notes uses meanwhile, which are no reason for anybody to lose.
func raiseRace(ctx context.Context, t require.TestingT, s session.Store) {
	clock := atomic.Int64{}
	now := func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	m, err := session.New(s, macs("suite"), &session.Options{Clock: now, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.NoError(t, m.OpenPerson(ctx, "acme", "anna"))
	old, err := m.Start(ctx, crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, Assurance: crmguard.AssurancePassword})
	require.NoError(t, err)
	clock.Store(int64(2 * time.Minute)) // each request would like to note its use
	tokens := racetest.Run(t, func(n int) (string, error) {
		if n%2 == 0 {
			_, err := m.Authenticate(ctx, old)
			return "", unlessDenied(err)
		}
		raised, err := m.Raise(ctx, old, crmguard.AssuranceSecondFactor)
		return raised, unlessDenied(err)
	})
	tokens = slices.DeleteFunc(tokens, func(token string) bool { return token == "" })
	require.Len(t, tokens, 1)
	raised, err := m.Authenticate(ctx, tokens[0])
	require.NoError(t, err)
	require.Equal(t, crmguard.AssuranceSecondFactor, raised.Assurance)
	require.NoError(t, mustBeDenied(m.Authenticate(ctx, old)))
}

// lockDownRace has a node for each goroutine: half lock down, half reopen, and
// then all lock down.
func lockDownRace(ctx context.Context, t require.TestingT, s session.Store) {
	node := func() *session.Manager {
		m, err := session.New(s, macs("suite"), &session.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		return m
	}
	require.NoError(t, node().Reopen(ctx, "acme"))
	nodes := racetest.Run(t, func(n int) (*session.Manager, error) {
		m := node()
		if n%2 == 0 {
			return m, m.LockDown(ctx, "acme")
		}
		return m, m.Reopen(ctx, "acme")
	})
	racetest.Run(t, func(n int) (bool, error) {
		if err := nodes[n].LockDown(ctx, "acme"); err != nil {
			return false, err
		}
		locked, err := node().LockedDown(ctx, "acme")
		if err == nil && !locked {
			err = errors.New("LockDown has returned, and the tenant is open")
		}
		return locked, err
	})
	require.NoError(t, nodes[0].Reopen(ctx, "acme"))
	for _, m := range nodes {
		locked, err := m.LockedDown(ctx, "acme")
		require.NoError(t, err)
		require.False(t, locked)
	}
}

func unlessDenied(err error) error {
	if _, denied := errors.AsType[*crmguard.Denial](err); denied {
		return nil
	}
	return err
}

func mustBeDenied(s crmguard.Subject, err error) error {
	if _, denied := errors.AsType[*crmguard.Denial](err); denied {
		return nil
	}
	return fmt.Errorf("not denied: %q, %w", s.ID, err)
}

// macs is an Authenticator good enough to look at stores with.
type macs string

func (m macs) MAC(_ context.Context, at crmguard.Place, data []byte) ([]byte, error) {
	h := hmac.New(sha256.New, []byte(m))
	h.Write(fmt.Appendf(nil, "%q", at))
	h.Write(data)
	return h.Sum(nil), nil
}

func (m macs) Verify(ctx context.Context, at crmguard.Place, data, mac []byte) error {
	want, err := m.MAC(ctx, at, data)
	if err == nil && !hmac.Equal(want, mac) {
		err = crmguard.ErrMAC
	}
	return err
}
