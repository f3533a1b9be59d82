package session

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
)

// rig is a manager on a store that the test writes past it, as somebody with
// access to the database does.
type rig struct {
	*Manager
	store *Memory
	clock *crmguardtest.Clock
	keys  *crmguardtest.Keys
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{store: NewMemory(), clock: crmguardtest.NewClock(noon), keys: crmguardtest.NewKeys()}
	var err error
	r.Manager, err = New(r.store, r.keys, &Options{Clock: r.clock.Now})
	require.NoError(t, err)
	for _, name := range []string{"anna", "boris"} {
		require.NoError(t, r.OpenPerson(context.Background(), "acme", name))
	}
	require.NoError(t, r.OpenPerson(context.Background(), "other", "anna"))
	return r
}

func subject(id string) crmguard.Subject {
	return crmguard.Subject{
		Tenant: "acme", ID: id, Kind: crmguard.KindIntegration, Assurance: crmguard.AssurancePassword,
		Device: "laptop", Addr: netip.MustParseAddr("192.0.2.7"), Scopes: []string{"contacts:view"},
	}
}

func (r *rig) start(t testing.TB, id string) (token, session string) {
	t.Helper()
	token, err := r.Start(context.Background(), subject(id))
	require.NoError(t, err)
	parsed, ok := parseToken(token)
	require.True(t, ok)
	return token, parsed.id()
}

// write changes a stored session past the manager.
func (r *rig) write(id string, change func(*Row)) {
	row := r.store.sessions[id]
	change(&row)
	r.store.sessions[id] = row
}

func (r *rig) writePerson(person string, change func(*Person)) {
	change(&r.store.persons[personKey{"acme", person}].state)
}

func requireDenied(t testing.TB, code string, err error) {
	t.Helper()
	denial, ok := errors.AsType[*crmguard.Denial](err)
	require.True(t, ok, "want a denial, got %v", err)
	require.Equal(t, "session", denial.By)
	require.Equal(t, crmguard.Unauthenticated, denial.Status)
	require.Equal(t, code, denial.Code)
}

// upgrades are what a writer of the database would like a row to say. Each value
// is one that is not refused for another reason.
var upgrades = map[string]func(*Row){
	"another person":          func(r *Row) { r.Person = "boris" },
	"on behalf of themselves": func(r *Row) { r.OnBehalfOf = r.Person },
	"a person":                func(r *Row) { r.Kind = crmguard.KindEmployee },
	"higher assurance":        func(r *Row) { r.Assurance = crmguard.AssurancePhishingResistant },
	"fresher authentication":  func(r *Row) { r.AuthenticatedAt = noon.Add(time.Hour) },
	"a trusted device":        func(r *Row) { r.Device = "phone" },
	"another address":         func(r *Row) { r.Addr = netip.MustParseAddr("10.0.0.1") },
	"no address":              func(r *Row) { r.Addr = netip.Addr{} },
	"not narrowed":            func(r *Row) { r.Scopes = nil },
	"another scope":           func(r *Row) { r.Scopes = []string{"contacts:export"} },
	"one scope more":          func(r *Row) { r.Scopes = []string{"contacts:view", "x"} },
	"scope split differently": func(r *Row) { r.Scopes = []string{"contacts", ":view"} },
	"a later end":             func(r *Row) { r.End = r.End.Add(time.Hour * 1000) },
	"used just now":           func(r *Row) { r.Used = noon.Add(time.Minute) },
	"started later":           func(r *Row) { r.Started = noon.Add(time.Minute) },
}

func TestUpgradedRowIsRefused(t *testing.T) {
	for name, upgrade := range upgrades {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			token, id := r.start(t, "anna")
			_, err := r.Authenticate(t.Context(), token)
			require.NoError(t, err)
			r.write(id, upgrade)
			_, err = r.Authenticate(t.Context(), token)
			requireDenied(t, CodeUnknown, err)
			requireDenied(t, CodeUnknown, r.End(t.Context(), token))
		})
		t.Run(name+", planted fault", func(t *testing.T) {
			r := newRig(t)
			// A verifier that does not depend on the field.
			r.encode = func(row *Row, digest [32]byte) []byte {
				blind := *row
				upgrade(&blind)
				return sessionBytes(&blind, digest)
			}
			if name == "a later end" {
				r.encode = func(row *Row, digest [32]byte) []byte {
					blind := *row
					blind.End = noon
					return sessionBytes(&blind, digest)
				}
			}
			token, id := r.start(t, "anna")
			r.write(id, upgrade)
			_, err := r.Authenticate(t.Context(), token)
			require.NoError(t, err, "the attack must succeed against a verifier without the field, or the test above proves nothing")
		})
	}
}

func TestRowsCannotBeExchanged(t *testing.T) {
	t.Run("the victim's row under the thief's id", func(t *testing.T) {
		r := newRig(t)
		_, victim := r.start(t, "anna")
		token, thief := r.start(t, "boris")
		row := r.store.sessions[victim]
		r.write(thief, func(mine *Row) { *mine = row })
		_, err := r.Authenticate(t.Context(), token)
		requireDenied(t, CodeUnknown, err)
		r.write(thief, func(mine *Row) { *mine = row; mine.ID = thief })
		_, err = r.Authenticate(t.Context(), token)
		requireDenied(t, CodeUnknown, err)
	})
	t.Run("the thief's verifier in the victim's row", func(t *testing.T) {
		r := newRig(t)
		_, victim := r.start(t, "anna")
		token, thief := r.start(t, "boris")
		verifier := r.store.sessions[thief].Verifier
		r.write(thief, func(mine *Row) { *mine = r.store.sessions[victim]; mine.ID, mine.Verifier = thief, verifier })
		_, err := r.Authenticate(t.Context(), token)
		requireDenied(t, CodeUnknown, err)
	})
	t.Run("into another tenant", func(t *testing.T) {
		r := newRig(t)
		token, id := r.start(t, "anna")
		r.write(id, func(row *Row) { row.Tenant = "other" })
		_, err := r.Authenticate(t.Context(), token)
		requireDenied(t, CodeUnknown, err)
		r.write(id, func(row *Row) { row.Tenant = "" })
		_, err = r.Authenticate(t.Context(), token)
		requireDenied(t, CodeUnknown, err)
	})
	t.Run("without a verifier", func(t *testing.T) {
		r := newRig(t)
		token, id := r.start(t, "anna")
		r.write(id, func(row *Row) { row.Verifier = nil })
		_, err := r.Authenticate(t.Context(), token)
		requireDenied(t, CodeUnknown, err)
	})
	t.Run("another secret for a known id", func(t *testing.T) {
		r := newRig(t)
		token, _ := r.start(t, "anna")
		parsed, _ := parseToken(token)
		parsed[len(parsed)-1] ^= 1
		_, err := r.Authenticate(t.Context(), parsed.text())
		requireDenied(t, CodeUnknown, err)
		requireDenied(t, CodeUnknown, r.End(t.Context(), parsed.text()))
		_, err = r.Authenticate(t.Context(), token)
		require.NoError(t, err)
	})
}

func TestForgedPersonIsRefused(t *testing.T) {
	for name, forge := range map[string]func(*rig){
		"reopened": func(r *rig) { r.writePerson("anna", func(p *Person) { p.Closed = false }) },
		"reopened with the older epoch": func(r *rig) {
			r.writePerson("anna", func(p *Person) { p.Closed = false; p.Epoch-- })
		},
		"state of a colleague": func(r *rig) {
			boris := r.store.persons[personKey{"acme", "boris"}].state
			r.writePerson("anna", func(p *Person) { p.Closed, p.Epoch, p.MAC = boris.Closed, boris.Epoch, boris.MAC })
		},
		"no MAC":   func(r *rig) { r.writePerson("anna", func(p *Person) { p.Closed, p.MAC = false, nil }) },
		"all zero": func(r *rig) { r.writePerson("anna", func(p *Person) { p.Closed, p.Epoch, p.MAC = false, 0, nil }) },
		"row gone": func(r *rig) { delete(r.store.persons, personKey{"acme", "anna"}) },
		"the other tenant's": func(r *rig) {
			anna := r.store.persons[personKey{"other", "anna"}].state
			r.writePerson("anna", func(p *Person) { p.Closed, p.Epoch, p.MAC = anna.Closed, anna.Epoch, anna.MAC })
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			token, id := r.start(t, "anna")
			row := r.store.sessions[id]
			require.NoError(t, r.ClosePerson(t.Context(), "acme", "anna"))
			r.store.sessions[id] = row // the row comes back
			forge(r)

			_, err := r.Authenticate(t.Context(), token)
			requireDenied(t, CodeClosed, err)
			_, err = r.Start(t.Context(), subject("anna"))
			requireDenied(t, CodeClosed, err)

			// Closing and opening write a state that is genuine again, and the
			// session of before stays dead.
			require.NoError(t, r.ClosePerson(t.Context(), "acme", "anna"))
			require.NoError(t, r.OpenPerson(t.Context(), "acme", "anna"))
			r.store.sessions[id] = row
			_, err = r.Authenticate(t.Context(), token)
			requireDenied(t, CodeEnded, err)
			r.start(t, "anna")
		})
	}
}

// Raising the epoch of an old row to the person's is an upgrade too.
func TestOldEpochCannotBeRaised(t *testing.T) {
	attack := func(t *testing.T, encode func(*Row, [32]byte) []byte) error {
		r := newRig(t)
		r.encode = encode
		token, id := r.start(t, "anna")
		row := r.store.sessions[id]
		_, err := r.Revoke(t.Context(), "acme", "anna")
		require.NoError(t, err)
		row.Epoch = r.store.persons[personKey{"acme", "anna"}].state.Epoch
		r.store.sessions[id] = row
		_, err = r.Authenticate(t.Context(), token)
		return err
	}
	requireDenied(t, CodeUnknown, attack(t, sessionBytes))
	require.NoError(t, attack(t, func(row *Row, digest [32]byte) []byte { // the planted fault
		blind := *row
		blind.Epoch = 0
		return sessionBytes(&blind, digest)
	}))
}

// believesPersons is an Authenticator that does not look at the state of persons.
type believesPersons struct{ crmguard.Authenticator }

func (b believesPersons) Verify(ctx context.Context, at crmguard.Place, data, mac []byte) error {
	if at.Kind == kindPerson {
		return nil
	}
	return b.Authenticator.Verify(ctx, at, data, mac)
}

func TestReopeningSucceedsWithoutTheMACOfPersons(t *testing.T) {
	attack := func(t *testing.T, wrap func(crmguard.Authenticator) crmguard.Authenticator) error {
		r := newRig(t)
		r.Manager.keys = wrap(r.keys)
		token, id := r.start(t, "anna")
		row := r.store.sessions[id]
		require.NoError(t, r.ClosePerson(t.Context(), "acme", "anna"))
		r.store.sessions[id] = row
		r.writePerson("anna", func(p *Person) { p.Closed = false; p.Epoch = row.Epoch })
		_, err := r.Authenticate(t.Context(), token)
		return err
	}
	requireDenied(t, CodeClosed, attack(t, func(a crmguard.Authenticator) crmguard.Authenticator { return a }))
	require.NoError(t, attack(t, func(a crmguard.Authenticator) crmguard.Authenticator { return believesPersons{a} })) // the planted fault
}

func TestForgedStateIsReported(t *testing.T) {
	r := newRig(t)
	r.writePerson("anna", func(p *Person) { p.Epoch++ })
	_, err := r.State(t.Context(), "acme", "anna")
	require.ErrorIs(t, err, ErrState)
	require.ErrorIs(t, r.OpenPerson(t.Context(), "acme", "anna"), ErrState)
	_, err = r.Revoke(t.Context(), "acme", "anna")
	require.ErrorIs(t, err, ErrState)
	require.NoError(t, r.ClosePerson(t.Context(), "acme", "anna"))
	state, err := r.State(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.True(t, state.Closed)
}

// Who deletes a person's row gains nothing: the epoch that the next opening
// begins with is later than every one before.
func TestDeletedPersonDoesNotReuseAnEpoch(t *testing.T) {
	r := newRig(t)
	token, id := r.start(t, "anna")
	row := r.store.sessions[id]
	for range 5 {
		_, err := r.Revoke(t.Context(), "acme", "anna")
		require.NoError(t, err)
	}
	r.clock.Advance(time.Millisecond)
	delete(r.store.persons, personKey{"acme", "anna"})
	require.NoError(t, r.OpenPerson(t.Context(), "acme", "anna"))
	r.store.sessions[id] = row
	_, err := r.Authenticate(t.Context(), token)
	requireDenied(t, CodeEnded, err)
}

// What is not noticed when old rows come back, as the package documentation says.
func TestReplay(t *testing.T) {
	t.Run("after Revoke the row alone is dead", func(t *testing.T) {
		r := newRig(t)
		token, id := r.start(t, "anna")
		row := r.store.sessions[id]
		_, err := r.Revoke(t.Context(), "acme", "anna")
		require.NoError(t, err)
		r.store.sessions[id] = row
		_, err = r.Authenticate(t.Context(), token)
		requireDenied(t, CodeEnded, err)
	})
	t.Run("a session that was ended singly comes back for its token, until its end", func(t *testing.T) {
		r := newRig(t)
		token, id := r.start(t, "anna")
		row := r.store.sessions[id]
		require.NoError(t, r.End(t.Context(), token))
		r.store.sessions[id] = row
		_, err := r.Authenticate(t.Context(), token)
		require.NoError(t, err)
		r.clock.Advance(13 * time.Hour)
		_, err = r.Authenticate(t.Context(), token)
		requireDenied(t, CodeExpired, err)
	})
	t.Run("so does a row together with the person's state of that time", func(t *testing.T) {
		r := newRig(t)
		token, id := r.start(t, "anna")
		row, state := r.store.sessions[id], r.store.persons[personKey{"acme", "anna"}].state
		require.NoError(t, r.ClosePerson(t.Context(), "acme", "anna"))
		r.store.sessions[id] = row
		r.writePerson("anna", func(p *Person) { *p = state })
		_, err := r.Authenticate(t.Context(), token)
		require.NoError(t, err)
		r.clock.Advance(13 * time.Hour)
		_, err = r.Authenticate(t.Context(), token)
		requireDenied(t, CodeExpired, err)
	})
}

// A store that lets anybody start: the epoch in the row still keeps the session
// from living, and sessiontest names the fault.
type startsAnybody struct{ *Memory }

func (s startsAnybody) Start(_ context.Context, p Person, r Row, _ int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[r.ID] = r
	return true, nil
}

func TestStartThatDoesNotCheckTheState(t *testing.T) {
	r := newRig(t)
	slow := &changesBeforeStart{startsAnybody{r.store}, func() { require.NoError(t, r.ClosePerson(t.Context(), "acme", "anna")) }}
	m, err := New(slow, r.keys, &Options{Clock: r.clock.Now})
	require.NoError(t, err)
	token, err := m.Start(t.Context(), subject("anna"))
	require.NoError(t, err, "the planted fault")
	_, err = m.Authenticate(t.Context(), token)
	requireDenied(t, CodeClosed, err)
	require.NoError(t, m.OpenPerson(t.Context(), "acme", "anna"))
	_, err = m.Authenticate(t.Context(), token)
	require.Error(t, err, "the session is of an older epoch, or gone")

	// The same moment with the real store.
	careful := &changesBeforeStart{r.store, func() { require.NoError(t, r.ClosePerson(t.Context(), "acme", "anna")) }}
	m, err = New(careful, r.keys, &Options{Clock: r.clock.Now})
	require.NoError(t, err)
	_, err = m.Start(t.Context(), subject("anna"))
	requireDenied(t, CodeEnded, err)
}

type changesBeforeStart struct {
	Store
	change func()
}

func (s *changesBeforeStart) Start(ctx context.Context, p Person, r Row, keep int) (bool, error) {
	s.change()
	return s.Store.Start(ctx, p, r, keep)
}
