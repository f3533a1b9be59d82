// Package session keeps people signed in with opaque tokens, and ends that when
// it must end: at once, everywhere, for a person who leaves.
//
//	sessions, err := session.New(store, keys, nil) // store: sessionsql.New(…) or session.NewMemory()
//	err = sessions.OpenPerson(ctx, "acme", "anna")    // once, when Anna is hired
//
//	// signed in: the caller has checked the password
//	token, err := sessions.Start(ctx, crmguard.Subject{
//		Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee,
//		Assurance: crmguard.AssurancePassword, Device: "laptop", Addr: addr,
//	})
//
//	subject, err := sessions.Authenticate(ctx, token) // each request
//	err = sessions.ClosePerson(ctx, "acme", "anna")   // Anna leaves: no token of hers works from here on
//
//	// stepped up: the caller has checked a code of her app
//	token, err = sessions.Raise(ctx, token, crmguard.AssuranceSecondFactor)
//
// A session ends after [Options.Lifetime], when it was not used for
// [Options.Idle], when it is the oldest of more than [MaxSessions] of its person,
// when somebody ends it, and when the person is closed. Where it acts on behalf of
// somebody else, revoking or closing that person ends it likewise. Rows of ended sessions
// are removed when later ones start, so that no goroutine runs.
//
// [Manager.LockDown] is the state of the emergency switch of a whole tenant. It ends
// no session; package guard asks for it, and remembers the answer for a second.
//
// # Security notes
//
// The store never sees a token. It keeps a verifier: a MAC, under a key that is
// not in the database, of the token's digest together with all that the session
// grants (person, kind, assurance, device, scopes, times, epoch). So whoever can
// read the database cannot sign in, and whoever can write it cannot make a
// session, move one to another person, or raise or prolong one.
//
// The state of a person, open or closed, and their epoch carry a MAC too. A
// person without such a row, or with one that is not genuine, is refused. Every
// change raises the epoch, and a session of an older epoch is dead even if its
// row survives or comes back from a backup.
//
// [Manager.Raise] gives a session another token, so that one that was stolen before
// a step-up is worth nothing after it. Requests that are still under way with the
// old token are refused.
//
// A tenant's state carries a MAC likewise, and the tenant is locked down without
// one that is genuine. An open state from before a lockdown is genuine when it is
// put back. Each Manager that has seen the lockdown, which the one that made it and
// all that were asked since have, goes on refusing; one that started later, or was
// not asked meanwhile, does not.
//
// What a writer of the database can still do: delete rows, which ends sessions or
// locks people out; put back the row of a session that was ended singly (by
// [Manager.End], [Manager.EndByID] or the limit) while its lifetime lasts, which
// helps only who holds the token; put back the row of before a Raise, with which the
// old token works again, and proves what it proved then; put back an old state of a
// person together with session rows of that epoch, or of somebody for whom sessions
// act, within their lifetime; and undo a lockdown for Managers that have not seen it.
// [Manager.List] shows what rows say, without proof: only the token's holder can have
// one checked.
//
// # Compatibility
//
// The forms of tokens and rows are specified in docs/formats/session.md. Tokens
// of version 1 stay valid as long as their sessions live.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/crmguard/crmguard"
)

// MaxSessions is how many sessions a person can have; one more ends the oldest.
const MaxSessions = 50

const (
	defaultIdle     = 30 * time.Minute
	defaultLifetime = 12 * time.Hour
	touchEvery      = time.Minute // how exactly the last use is known
)

// Options change how sessions end. The zero value is the recommended one.
type Options struct {
	Idle     time.Duration // without use, 0: 30 minutes; at least 2 minutes, because last use is noted once a minute
	Lifetime time.Duration // from the start, 0: 12 hours
	Clock    func() time.Time
	Logger   *slog.Logger // hears of rows that are not genuine; nil: slog.Default
}

// Manager starts, authenticates and ends sessions. It is safe for concurrent
// use, and any number of processes may share its store. It is a
// [crmguard.Revoker].
type Manager struct {
	store          Store
	keys           crmguard.Authenticator
	idle, lifetime time.Duration
	clock          func() time.Time
	log            *slog.Logger
	seen           epochs

	// encode is sessionBytes; a test breaks it to show that the attacks would
	// succeed.
	encode func(r *Row, digest [32]byte) []byte
}

var _ crmguard.Revoker = (*Manager)(nil)

// New returns a manager of the sessions in store, with verifiers made by keys.
func New(store Store, keys crmguard.Authenticator, o *Options) (*Manager, error) {
	if store == nil || keys == nil {
		return nil, errors.New("session: store and keys are needed")
	}
	if o == nil {
		o = &Options{}
	}
	m := &Manager{
		store: store, keys: keys, idle: o.Idle, lifetime: o.Lifetime, clock: o.Clock, log: o.Logger,
		encode: sessionBytes,
	}
	if m.idle == 0 {
		m.idle = defaultIdle
	}
	if m.lifetime == 0 {
		m.lifetime = defaultLifetime
	}
	if m.clock == nil {
		m.clock = time.Now
	}
	if m.log == nil {
		m.log = slog.Default()
	}
	if m.idle < 2*touchEvery || m.lifetime < m.idle {
		return nil, fmt.Errorf("session: idle %v, lifetime %v: want %v <= idle <= lifetime", m.idle, m.lifetime, 2*touchEvery)
	}
	return m, nil
}

// Start begins a session of s, whose identity and assurance the caller has
// proved, and returns its token, which is shown nowhere else. It keeps
// OnBehalfOf, Device, Addr and Scopes; an AuthenticatedAt that is zero or in the
// future becomes now. Roles and Units are not kept: they are resolved for each
// request. A person who is closed, was never opened, or changes state meanwhile
// is a *[crmguard.Denial], and so is OnBehalfOf. Each text is valid UTF-8 without NUL of at most 256
// bytes, so that a device name from a request is cut before; there are at most 64
// scopes.
func (m *Manager) Start(ctx context.Context, s crmguard.Subject) (string, error) {
	if err := checkSubject(s); err != nil {
		return "", err
	}
	if err := checkActor(ctx, s.Tenant); err != nil {
		return "", err
	}
	p, _, err := m.store.Person(ctx, s.Tenant, s.ID)
	if err != nil {
		return "", fmt.Errorf("session: read person: %w", err)
	}
	behind, err := m.behind(ctx, p, s.OnBehalfOf)
	if err != nil {
		return "", err
	}
	if err := m.check(ctx, &behind); err != nil {
		return "", err
	}
	t, now := newToken(), m.now()
	r := Row{
		ID: t.id(), Tenant: s.Tenant, Person: s.ID,
		OnBehalfOf: s.OnBehalfOf, Kind: s.Kind, Assurance: s.Assurance, AuthenticatedAt: micros(s.AuthenticatedAt),
		Device: s.Device, Addr: s.Addr, Scopes: s.Scopes,
		Started: now, Used: now, End: now.Add(m.lifetime), Epoch: behind.epoch(),
	}
	if s.AuthenticatedAt.IsZero() || r.AuthenticatedAt.After(now) {
		r.AuthenticatedAt = now
	}
	if r.Verifier, err = m.keys.MAC(ctx, r.place(), m.encode(&r, t.digest())); err != nil {
		return "", fmt.Errorf("session: make a verifier: %w", err)
	}
	started, err := m.store.Start(ctx, p, r, MaxSessions)
	if err != nil {
		return "", fmt.Errorf("session: start: %w", err)
	}
	if !started {
		return "", denied(CodeEnded, "the person's state changed while the session started")
	}
	return t.text(), nil
}

// Authenticate returns whose session a token is. Each no is a
// *[crmguard.Denial] with status Unauthenticated and one of this package's
// codes; any other error means that it could not be decided. The subject's Addr
// is empty: the edge knows where this request comes from.
func (m *Manager) Authenticate(ctx context.Context, token string) (crmguard.Subject, error) {
	t, r, now, err := m.alive(ctx, token)
	if err != nil {
		return crmguard.Subject{}, err
	}
	if now.Sub(r.Used) >= touchEvery {
		m.touch(ctx, t, r, now)
	}
	return crmguard.Subject{
		Tenant: r.Tenant, ID: r.Person, OnBehalfOf: r.OnBehalfOf, Kind: r.Kind,
		Session: r.ID, Device: r.Device, Assurance: r.Assurance, AuthenticatedAt: r.AuthenticatedAt,
		Scopes: r.Scopes,
	}, nil
}

// alive returns the row of a token's session if it is good at a moment, which it
// returns too.
func (m *Manager) alive(ctx context.Context, text string) (*token, Row, time.Time, error) {
	t, r, p, err := m.find(ctx, text)
	if errors.Is(err, ErrNotFound) {
		err = denied(CodeUnknown, "no session with this id")
	}
	var behind persons
	if err == nil {
		behind, err = m.behind(ctx, p, r.OnBehalfOf)
	}
	if err == nil {
		err = m.check(ctx, &behind)
	}
	if err != nil {
		return nil, Row{}, time.Time{}, err
	}
	now := m.now()
	switch {
	case r.Epoch != behind.epoch():
		err = denied(CodeEnded, "the session is of an older epoch of the person, or of whom it acts for")
	case !now.Before(r.End):
		err = denied(CodeExpired, "the session's lifetime is over")
	case now.Sub(r.Used) > m.idle:
		err = denied(CodeIdle, "the session was not used for too long")
	}
	return t, r, now, err
}

// find returns the genuine row of a token's session, and the person that was
// stored with it, not yet checked; ErrNotFound if the row is gone.
func (m *Manager) find(ctx context.Context, text string) (*token, Row, Person, error) {
	t, ok := parseToken(text)
	if !ok {
		return nil, Row{}, Person{}, denied(CodeMalformed, "not a token")
	}
	id := t.id()
	r, p, err := m.store.Session(ctx, id)
	if err != nil {
		return nil, Row{}, Person{}, fmt.Errorf("session: read session: %w", err)
	}
	genuine, err := m.verify(ctx, r.place(), m.encode(&r, t.digest()), r.Verifier)
	if err != nil {
		return nil, Row{}, Person{}, fmt.Errorf("session: verify session: %w", err)
	}
	if !genuine || r.ID != id || p.Tenant != r.Tenant || p.ID != r.Person {
		m.log.WarnContext(ctx, "session: wrong or old secret for a known id, or a row that is not genuine",
			"session", id)
		return nil, Row{}, Person{}, denied(CodeUnknown, "wrong secret, or the row is not genuine")
	}
	return t, r, p, nil
}

// touch notes that a session was used. That it fails ends the session earlier,
// never later, so that the request goes on.
func (m *Manager) touch(ctx context.Context, t *token, r Row, now time.Time) {
	next := r
	next.Used = now
	var err error
	next.Verifier, err = m.keys.MAC(ctx, next.place(), m.encode(&next, t.digest()))
	if err == nil {
		_, err = m.store.Swap(ctx, r.ID, r.Verifier, &next) // not swapped: another request was first
	}
	if err != nil {
		m.log.WarnContext(ctx, "session: could not note the use of a session", "session", r.ID, "error", err)
	}
}

// verify tells a MAC that is wrong from one that could not be looked at.
func (m *Manager) verify(ctx context.Context, at crmguard.Place, data []byte, mac MAC) (genuine bool, err error) {
	if at.Tenant == "" {
		return false, nil
	}
	err = m.keys.Verify(ctx, at, data, mac)
	if errors.Is(err, crmguard.ErrMAC) || errors.Is(err, crmguard.ErrErased) {
		return false, nil
	}
	return err == nil, err
}

func (m *Manager) now() time.Time { return micros(m.clock()) }

// micros drops what stores do not keep, and what == on times would trip over.
func micros(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }
