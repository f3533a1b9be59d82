package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/crmguard/crmguard"
)

// ErrState says that the stored state of a person or tenant is not genuine:
// somebody wrote it past this package. Such a person is refused until
// [Manager.ClosePerson] and then [Manager.OpenPerson] write it anew; such a tenant
// is locked down until [Manager.LockDown] and then [Manager.Reopen] do.
var ErrState = errors.New("session: the stored state is not genuine")

var errBusy = errors.New("session: the stored state keeps changing")

// changeTries bounds how often a change starts again because another one was
// first. Each time one of them gets through, so that this many have to compete.
const changeTries = 100

// State says whether a person may have sessions.
type State struct {
	Closed bool  `json:"closed"` // also before the person was ever opened
	Epoch  int64 `json:"epoch"`  // larger after each change and each Revoke; 0: never opened
}

// Info is a session as its person and administrators see it.
type Info struct {
	ID              string             `json:"id"`
	Device          string             `json:"device"`
	Addr            netip.Addr         `json:"addr"` // at the start
	Assurance       crmguard.Assurance `json:"assurance"`
	AuthenticatedAt time.Time          `json:"authenticated_at"`
	Started         time.Time          `json:"started"`
	Used            time.Time          `json:"used"` // to the minute
	End             time.Time          `json:"end"`
}

// OpenPerson lets a person have sessions, from being hired or from coming back.
// Sessions from before do not come back. It changes nothing for a person who is
// open, and returns [ErrState] for a state that is not genuine.
func (m *Manager) OpenPerson(ctx context.Context, tenant, person string) error {
	_, err := m.changePerson(ctx, tenant, person, open)
	return wrap("open person", err)
}

// ClosePerson ends all sessions of a person and lets none start: when it has
// returned, no token of the person is accepted, and none can be made. It works
// also on a stored state that is not genuine.
func (m *Manager) ClosePerson(ctx context.Context, tenant, person string) error {
	_, err := m.changePerson(ctx, tenant, person, shut)
	return wrap("close person", err)
}

// Revoke ends all sessions of a person, who can sign in again if they are open.
// It implements [crmguard.Revoker]. A state that is not genuine is [ErrState],
// because only [Manager.ClosePerson] ends what could come back with it.
func (m *Manager) Revoke(ctx context.Context, tenant, person string) (crmguard.Revoked, error) {
	ended, err := m.changePerson(ctx, tenant, person, func(p Person, _ int, genuine bool) (next Person, write bool, err error) {
		if p.exists() && !genuine {
			return p, false, ErrState
		}
		return p, genuine, nil
	})
	return crmguard.Revoked{What: "sessions", Count: ended}, wrap("revoke", err)
}

// decision says what is to be written of a person, or a tenant, with so many
// rows of sessions.
type decision func(p Person, rows int, genuine bool) (next Person, write bool, err error)

func open(p Person, _ int, genuine bool) (next Person, write bool, err error) {
	if p.exists() && !genuine {
		return p, false, ErrState
	}
	write = p.Closed || !genuine
	p.Closed = false
	return p, write, nil
}

func shut(p Person, rows int, genuine bool) (next Person, write bool, err error) {
	write = !p.Closed || !genuine || rows > 0
	p.Closed = true
	return p, write, nil
}

func (m *Manager) changePerson(ctx context.Context, tenant, person string, decide decision) (ended int, err error) {
	if err := checkNames(ctx, tenant, person); err != nil {
		return 0, err
	}
	return m.change(ctx, tenant, person, decide)
}

// change reads a state until what decide made of it could be written. Each write
// raises the epoch and ends all sessions of the person.
func (m *Manager) change(ctx context.Context, tenant, person string, decide decision) (ended int, err error) {
	for range changeTries {
		p, rows, genuine, err := m.read(ctx, tenant, person)
		if err != nil {
			return 0, err
		}
		next, write, err := decide(p, len(rows), genuine)
		if err != nil || !write {
			return 0, err
		}
		if genuine {
			next.Epoch = p.Epoch + 1
		} else {
			// Nothing is known of earlier epochs, except that none is later than now
			// or than those that were seen.
			next.Epoch = max(m.now().UnixMicro(), m.seen.of(&p)+1)
		}
		if next.MAC, err = m.keys.MAC(ctx, next.place(), personBytes(&next)); err != nil {
			return 0, err
		}
		ended, changed, err := m.store.Change(ctx, p, next)
		if changed && err == nil {
			m.seen.note(&next)
		}
		if err != nil || changed {
			return ended, err
		}
	}
	return 0, errBusy
}

// read returns a state and whether it is genuine.
func (m *Manager) read(ctx context.Context, tenant, person string) (p Person, rows []Row, genuine bool, err error) {
	least := m.seen.of(&Person{Tenant: tenant, ID: person}) // before reading: what is read then can only be later
	if p, rows, err = m.store.Person(ctx, tenant, person); err != nil {
		return Person{}, nil, false, err
	}
	if genuine, err = m.genuinePerson(ctx, &p); err != nil || !genuine {
		return p, rows, false, err
	}
	if p.Epoch < least {
		m.log.WarnContext(ctx, "session: an older state came back", "tenant", tenant, "epoch", p.Epoch, "seen", least)
		return p, rows, false, nil
	}
	m.seen.note(&p)
	return p, rows, true, nil
}

// State returns whether a person may have sessions, or [ErrState].
func (m *Manager) State(ctx context.Context, tenant, person string) (State, error) {
	if err := checkNames(ctx, tenant, person); err != nil {
		return State{}, err
	}
	p, _, err := m.store.Person(ctx, tenant, person)
	if err != nil {
		return State{}, wrap("read person", err)
	}
	if !p.exists() {
		return State{Closed: true}, nil
	}
	genuine, err := m.genuinePerson(ctx, &p)
	if err != nil {
		return State{}, wrap("verify person", err)
	}
	if !genuine {
		return State{}, ErrState
	}
	return State{Closed: p.Closed, Epoch: p.Epoch}, nil
}

// List returns the sessions of a person that rows say are alive, oldest first.
func (m *Manager) List(ctx context.Context, tenant, person string) ([]Info, error) {
	if err := checkNames(ctx, tenant, person); err != nil {
		return nil, err
	}
	p, rows, err := m.store.Person(ctx, tenant, person)
	if err != nil {
		return nil, wrap("list", err)
	}
	now := m.now()
	var list []Info
	for _, r := range rows {
		behind, err := m.behind(ctx, p, r.OnBehalfOf)
		if err != nil {
			return nil, err
		}
		if behind.closed() || r.Epoch != behind.epoch() || !now.Before(r.End) || now.Sub(r.Used) > m.idle {
			continue
		}
		list = append(list, Info{
			ID: r.ID, Device: r.Device, Addr: r.Addr, Assurance: r.Assurance, AuthenticatedAt: r.AuthenticatedAt,
			Started: r.Started, Used: r.Used, End: r.End,
		})
	}
	return list, nil
}

// End ends the session of a token, as signing out does. A session that has ended
// already is no error; a token that is malformed or does not fit its row is a
// *[crmguard.Denial], and nothing has ended.
func (m *Manager) End(ctx context.Context, token string) error {
	_, r, _, err := m.find(ctx, token)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = m.store.Swap(ctx, r.ID, nil, nil)
	return wrap("end", err)
}

// EndByID ends one session of a person, such as that of a lost phone; its id
// comes from [Manager.List]. A session that does not exist is no error.
func (m *Manager) EndByID(ctx context.Context, tenant, person, id string) error {
	if err := checkNames(ctx, tenant, person); err != nil {
		return err
	}
	_, rows, err := m.store.Person(ctx, tenant, person)
	if err != nil {
		return wrap("end", err)
	}
	for _, r := range rows {
		if r.ID == id {
			_, err = m.store.Swap(ctx, id, nil, nil)
			return wrap("end", err)
		}
	}
	return nil
}

// persons are those behind a session, which is good while they are as they were.
type persons struct {
	own    Person
	served *Person // for whom it acts, if that is somebody else
}

func (m *Manager) behind(ctx context.Context, own Person, onBehalfOf string) (persons, error) {
	if onBehalfOf == "" || onBehalfOf == own.ID {
		return persons{own: own}, nil
	}
	served, _, err := m.store.Person(ctx, own.Tenant, onBehalfOf)
	if err != nil {
		return persons{}, fmt.Errorf("session: read person: %w", err)
	}
	return persons{own, &served}, nil
}

// epoch is that of a session. Epochs only grow, so that whichever changes, their sum
// does.
func (ps *persons) epoch() int64 {
	if ps.served == nil {
		return ps.own.Epoch
	}
	return ps.own.Epoch + ps.served.Epoch
}

func (ps *persons) closed() bool {
	return ps.own.Closed || ps.served != nil && ps.served.Closed
}

// check returns nil for persons who may have sessions.
func (m *Manager) check(ctx context.Context, ps *persons) error {
	err := m.checkPerson(ctx, &ps.own)
	if err == nil && ps.served != nil {
		err = m.checkPerson(ctx, ps.served)
	}
	return err
}

// checkPerson returns nil for a person who may have sessions.
func (m *Manager) checkPerson(ctx context.Context, p *Person) error {
	if !p.exists() {
		return denied(CodeClosed, "the person was never opened, or their row is gone")
	}
	genuine, err := m.genuinePerson(ctx, p)
	if err != nil {
		return fmt.Errorf("session: verify person: %w", err)
	}
	if !genuine {
		return denied(CodeClosed, "the person's state is not genuine")
	}
	if p.Closed {
		return denied(CodeClosed, "the person is closed")
	}
	return nil
}

func (m *Manager) genuinePerson(ctx context.Context, p *Person) (bool, error) {
	if !p.exists() {
		return false, nil
	}
	genuine, err := m.verify(ctx, p.place(), personBytes(p), p.MAC)
	if err == nil && !genuine {
		m.log.WarnContext(ctx, "session: the state of a person is not genuine", "tenant", p.Tenant, "person", p.ID)
	}
	return genuine, err
}

// exists reports whether the store has a row of the person.
func (p *Person) exists() bool { return p.Epoch != 0 || len(p.MAC) != 0 || p.Closed }

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("session: %s: %w", what, err)
}
