package session

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// deputy is a session of Anna's that acts for Boris.
func (r *rig) deputy(t testing.TB) string {
	t.Helper()
	s := subject("anna")
	s.OnBehalfOf = "boris"
	token, err := r.Start(context.Background(), s)
	require.NoError(t, err)
	return token
}

// Who acts for somebody does so no longer than that somebody has access.
func TestSessionsOnBehalfOfSomebodyEndWithThem(t *testing.T) {
	closing := func(r *rig) { require.NoError(t, r.ClosePerson(t.Context(), "acme", "boris")) }
	reopening := func(r *rig) {
		closing(r)
		require.NoError(t, r.OpenPerson(t.Context(), "acme", "boris"))
	}
	revoking := func(r *rig) {
		_, err := r.Revoke(t.Context(), "acme", "boris")
		require.NoError(t, err)
	}
	forging := func(r *rig) { r.writePerson("boris", func(p *Person) { p.Epoch++ }) }
	for name, tt := range map[string]struct {
		do   func(*rig)
		code string
		anew bool // whether another one can start
	}{
		"closed":              {closing, CodeClosed, false},
		"closed and reopened": {reopening, CodeEnded, true},
		"revoked":             {revoking, CodeEnded, true},
		"forged":              {forging, CodeClosed, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			deputy := r.deputy(t)
			own, _ := r.start(t, "anna")
			require.Equal(t, "boris", requireLive(t, r, deputy).OnBehalfOf)
			list, err := r.List(t.Context(), "acme", "anna")
			require.NoError(t, err)
			require.Len(t, list, 2)

			tt.do(r)
			_, err = r.Authenticate(t.Context(), deputy)
			requireDenied(t, tt.code, err)
			_, err = r.Raise(t.Context(), deputy, crmguard.AssuranceSecondFactor)
			requireDenied(t, tt.code, err)
			requireLive(t, r, own)
			list, err = r.List(t.Context(), "acme", "anna")
			require.NoError(t, err)
			require.Len(t, list, 1)
			s := subject("anna")
			s.OnBehalfOf = "boris"
			_, err = r.Start(t.Context(), s)
			if tt.anew {
				require.NoError(t, err)
			} else {
				requireDenied(t, CodeClosed, err)
			}
			require.NoError(t, r.End(t.Context(), deputy))
		})
	}
}

func TestSessionsOnBehalfOfSomebodyEndWithTheirOwnPerson(t *testing.T) {
	r := newRig(t)
	deputy := r.deputy(t)
	parsed, _ := parseToken(deputy)
	row := r.store.sessions[parsed.id()]
	_, err := r.Revoke(t.Context(), "acme", "anna")
	require.NoError(t, err)
	r.store.sessions[row.ID] = row // somebody puts it back
	_, err = r.Authenticate(t.Context(), deputy)
	requireDenied(t, CodeEnded, err)
}

func TestNobodyActsForWhoWasNeverOpened(t *testing.T) {
	r := newRig(t)
	s := subject("anna")
	for _, principal := range []string{"nobody", "system:import"} {
		s.OnBehalfOf = principal
		_, err := r.Start(t.Context(), s)
		requireDenied(t, CodeClosed, err)
	}
	s.OnBehalfOf = "anna" // for herself
	token, err := r.Start(t.Context(), s)
	require.NoError(t, err)
	requireLive(t, r, token)
}

// beforeStart does something between what Start reads and what it writes.
type beforeStart struct {
	*Memory
	do func()
}

func (s *beforeStart) Start(ctx context.Context, p Person, row Row, keep int) (bool, error) {
	s.do()
	return s.Memory.Start(ctx, p, row, keep)
}

// Whoever is closed while a session for them starts has ended it: it is dead from
// the first request.
func TestClosedWhileASessionOnTheirBehalfStarts(t *testing.T) {
	r := newRig(t)
	m, err := New(&beforeStart{r.store, func() {
		require.NoError(t, r.ClosePerson(t.Context(), "acme", "boris"))
		require.NoError(t, r.OpenPerson(t.Context(), "acme", "boris"))
	}}, r.keys, &Options{Clock: r.clock.Now})
	require.NoError(t, err)
	s := subject("anna")
	s.OnBehalfOf = "boris"
	token, err := m.Start(t.Context(), s)
	require.NoError(t, err)
	_, err = r.Authenticate(t.Context(), token)
	requireDenied(t, CodeEnded, err)
}

// frozen is a store that knows only what Boris was once.
type frozen struct {
	*Memory
	boris Person
}

func (s frozen) Person(context.Context, string, string) (Person, []Row, error) {
	return s.boris, nil, nil
}

// The planted fault: without a fresh look at whom it acts for, the session lives on.
func TestWhomASessionActsForIsLookedAt(t *testing.T) {
	r := newRig(t)
	deputy := r.deputy(t)
	stale, err := New(frozen{r.store, r.store.persons[personKey{"acme", "boris"}].state}, r.keys, &Options{Clock: r.clock.Now})
	require.NoError(t, err)
	require.NoError(t, r.ClosePerson(t.Context(), "acme", "boris"))
	_, err = r.Authenticate(t.Context(), deputy)
	requireDenied(t, CodeClosed, err)
	_, err = stale.Authenticate(t.Context(), deputy)
	require.NoError(t, err)
}

// noPersons is a store that finds sessions but not those for whom they act.
type noPersons struct {
	*Memory
	err error
}

func (s noPersons) Person(context.Context, string, string) (Person, []Row, error) {
	return Person{}, nil, s.err
}

func TestWhoeverCannotBeLookedUpIsNotActedFor(t *testing.T) {
	down := errors.New("down")
	r := newRig(t)
	deputy := r.deputy(t)
	own, _ := r.start(t, "anna")
	m, err := New(noPersons{r.store, down}, r.keys, &Options{Clock: r.clock.Now})
	require.NoError(t, err)
	_, err = m.Authenticate(t.Context(), deputy)
	require.ErrorIs(t, err, down)
	_, denied := errors.AsType[*crmguard.Denial](err)
	require.False(t, denied)
	_, err = m.Authenticate(t.Context(), own)
	require.NoError(t, err, "others need no second look")
}
