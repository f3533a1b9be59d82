package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/session"
)

func Example() {
	ctx := context.Background()
	sessions, err := session.New(session.NewMemory(), crmguardtest.NewKeys(), nil) // in a host: sessionsql, *encrypt.Keyring
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := sessions.OpenPerson(ctx, "acme", "anna"); err != nil { // once, when Anna is hired
		fmt.Println(err)
		return
	}
	token, err := sessions.Start(ctx, crmguard.Subject{
		Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee,
		Assurance: crmguard.AssurancePassword, Device: "laptop",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := sessions.Authenticate(ctx, token)
	fmt.Println(s.ID, s.Device, s.Assurance, err)

	if err := sessions.ClosePerson(ctx, "acme", "anna"); err != nil { // Anna leaves
		fmt.Println(err)
		return
	}
	_, err = sessions.Authenticate(ctx, token)
	denial, ok := errors.AsType[*crmguard.Denial](err)
	fmt.Println(ok, denial.Status == crmguard.Unauthenticated)
	// Output:
	// anna laptop password <nil>
	// true true
}

func ExampleManager_EndByID() {
	ctx := context.Background()
	sessions, err := session.New(session.NewMemory(), crmguardtest.NewKeys(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := sessions.OpenPerson(ctx, "acme", "anna"); err != nil {
		fmt.Println(err)
		return
	}
	for _, device := range []string{"laptop", "phone"} {
		if _, err := sessions.Start(ctx, crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, Device: device}); err != nil {
			fmt.Println(err)
			return
		}
	}
	list, err := sessions.List(ctx, "acme", "anna")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range list { // the phone was lost
		if s.Device == "phone" {
			if err := sessions.EndByID(ctx, "acme", "anna", s.ID); err != nil {
				fmt.Println(err)
			}
		}
	}
	list, err = sessions.List(ctx, "acme", "anna")
	fmt.Println(len(list), list[0].Device, err)
	// Output: 1 laptop <nil>
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// counting counts the writes of a store, and fails when told to.
type counting struct {
	session.Store
	swaps atomic.Int64
	fail  error
}

func (c *counting) Swap(ctx context.Context, id string, verifier session.MAC, next *session.Row) (bool, error) {
	c.swaps.Add(1)
	if c.fail != nil {
		return false, c.fail
	}
	return c.Store.Swap(ctx, id, verifier, next)
}

func (c *counting) Session(ctx context.Context, id string) (session.Row, session.Person, error) {
	if c.fail != nil {
		return session.Row{}, session.Person{}, c.fail
	}
	return c.Store.Session(ctx, id)
}

func (c *counting) Person(ctx context.Context, tenant, person string) (session.Person, []session.Row, error) {
	if c.fail != nil {
		return session.Person{}, nil, c.fail
	}
	return c.Store.Person(ctx, tenant, person)
}

type fixture struct {
	*session.Manager
	store *counting
	keys  *crmguardtest.Keys
	clock *crmguardtest.Clock
}

func newFixture(t testing.TB, o session.Options) *fixture {
	t.Helper()
	f := &fixture{store: &counting{Store: session.NewMemory()}, keys: crmguardtest.NewKeys(), clock: crmguardtest.NewClock(noon)}
	o.Clock = f.clock.Now
	var err error
	f.Manager, err = session.New(f.store, f.keys, &o)
	require.NoError(t, err)
	for _, name := range []string{"anna", "boris"} { // hers are on his behalf
		require.NoError(t, f.OpenPerson(context.Background(), "acme", name))
	}
	return f
}

func anna() crmguard.Subject {
	return crmguard.Subject{
		Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, OnBehalfOf: "boris",
		Assurance: crmguard.AssuranceSecondFactor, AuthenticatedAt: noon.Add(-time.Minute),
		Device: "laptop", Addr: netip.MustParseAddr("192.0.2.7"),
		Roles: []string{"seller"}, Units: []string{"sales"}, Scopes: []string{"contacts:view"},
	}
}

func (f *fixture) start(t testing.TB) string {
	t.Helper()
	token, err := f.Start(context.Background(), anna())
	require.NoError(t, err)
	return token
}

func requireDenied(t testing.TB, code string, err error) {
	t.Helper()
	denial, ok := errors.AsType[*crmguard.Denial](err)
	require.True(t, ok, "want a denial, got %v", err)
	require.Equal(t, crmguard.Unauthenticated, denial.Status)
	require.Equal(t, code, denial.Code)
}

func requireUndecided(t testing.TB, cause, err error) {
	t.Helper()
	require.ErrorIs(t, err, cause)
	_, denied := errors.AsType[*crmguard.Denial](err)
	require.False(t, denied, "what could not be decided is no denial: %v", err)
}

func TestAuthenticate(t *testing.T) {
	f := newFixture(t, session.Options{})
	token := f.start(t)
	s, err := f.Authenticate(t.Context(), token)
	require.NoError(t, err)
	require.Len(t, s.Session, 20)
	require.Contains(t, token, s.Session, "who finds a token can tell the session")
	want := anna()
	want.Session, want.Addr, want.Roles, want.Units = s.Session, netip.Addr{}, nil, nil
	require.Equal(t, want, s)
}

func TestStartFillsTheTimeOfAuthentication(t *testing.T) {
	f := newFixture(t, session.Options{})
	for _, at := range []time.Time{{}, noon.Add(time.Hour)} {
		s := anna()
		s.AuthenticatedAt = at
		token, err := f.Start(t.Context(), s)
		require.NoError(t, err)
		s, err = f.Authenticate(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, noon, s.AuthenticatedAt)
	}
}

func TestStartRefuses(t *testing.T) {
	f := newFixture(t, session.Options{})
	for name, change := range map[string]func(*crmguard.Subject){
		"no tenant":       func(s *crmguard.Subject) { s.Tenant = "" },
		"no id":           func(s *crmguard.Subject) { s.ID = "" },
		"no kind":         func(s *crmguard.Subject) { s.Kind = 0 },
		"a job":           func(s *crmguard.Subject) { s.Kind = crmguard.KindSystem },
		"no such level":   func(s *crmguard.Subject) { s.Assurance = 33 },
		"a long device":   func(s *crmguard.Subject) { s.Device = strings.Repeat("x", 257) },
		"NUL":             func(s *crmguard.Subject) { s.Device = "a\x00b" },
		"not UTF-8":       func(s *crmguard.Subject) { s.Device = "\xff" },
		"a long scope":    func(s *crmguard.Subject) { s.Scopes = []string{strings.Repeat("x", 257)} },
		"too many scopes": func(s *crmguard.Subject) { s.Scopes = make([]string, 65) },
	} {
		s := anna()
		change(&s)
		_, err := f.Start(t.Context(), s)
		require.Error(t, err, name)
		_, denied := errors.AsType[*crmguard.Denial](err)
		require.False(t, denied, name)
	}
	s := anna()
	s.ID = "never-opened"
	_, err := f.Start(t.Context(), s)
	requireDenied(t, session.CodeClosed, err)
}

func TestLifetime(t *testing.T) {
	f := newFixture(t, session.Options{})
	token := f.start(t)
	for range 12*4 - 1 { // in use all the time
		f.clock.Advance(15 * time.Minute)
		_, err := f.Authenticate(t.Context(), token)
		require.NoError(t, err)
	}
	f.clock.Advance(15 * time.Minute)
	_, err := f.Authenticate(t.Context(), token)
	requireDenied(t, session.CodeExpired, err)
}

func TestIdleSlidesWithAWriteAMinuteAtMost(t *testing.T) {
	f := newFixture(t, session.Options{Idle: 10 * time.Minute})
	token := f.start(t)
	for range 600 { // ten minutes, a request a second
		f.clock.Advance(time.Second)
		_, err := f.Authenticate(t.Context(), token)
		require.NoError(t, err)
	}
	require.EqualValues(t, 10, f.store.swaps.Load())
	f.clock.Advance(10 * time.Minute)
	_, err := f.Authenticate(t.Context(), token)
	require.NoError(t, err, "idle counts from the last use")
	f.clock.Advance(10*time.Minute + time.Microsecond)
	_, err = f.Authenticate(t.Context(), token)
	requireDenied(t, session.CodeIdle, err)
	list, err := f.List(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Empty(t, list)
}

// A request is not refused because the note of its time was not written.
func TestUseThatCannotBeNoted(t *testing.T) {
	f := newFixture(t, session.Options{})
	token := f.start(t)
	f.clock.Advance(2 * time.Minute)
	broken := &swapFails{f.store}
	m, err := session.New(broken, f.keys, &session.Options{Clock: f.clock.Now})
	require.NoError(t, err)
	_, err = m.Authenticate(t.Context(), token)
	require.NoError(t, err)
	f.clock.Advance(29 * time.Minute)
	_, err = m.Authenticate(t.Context(), token)
	requireDenied(t, session.CodeIdle, err)
}

type swapFails struct{ session.Store }

func (swapFails) Swap(context.Context, string, session.MAC, *session.Row) (bool, error) {
	return false, errors.New("read only")
}

func TestManyRequestsOfOneSessionAtOnce(t *testing.T) {
	f := newFixture(t, session.Options{})
	token := f.start(t)
	f.clock.Advance(5 * time.Minute)
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() { _, errs[i] = f.Authenticate(t.Context(), token) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	_, err := f.Authenticate(t.Context(), token)
	require.NoError(t, err, "the winner's verifier is the one in the row")
}

func TestForeignTenant(t *testing.T) {
	f := newFixture(t, session.Options{})
	foreign := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "other", ID: "eve", Kind: crmguard.KindEmployee})
	for name, call := range map[string]func(ctx context.Context, tenant, person string) error{
		"start": func(ctx context.Context, tenant, person string) error {
			s := anna()
			s.Tenant, s.ID = tenant, person
			_, err := f.Start(ctx, s)
			return err
		},
		"open":  f.OpenPerson,
		"close": f.ClosePerson,
		"end":   func(ctx context.Context, tenant, person string) error { return f.EndByID(ctx, tenant, person, "x") },
		"revoke": func(ctx context.Context, tenant, person string) error {
			_, err := f.Revoke(ctx, tenant, person)
			return err
		},
		"list": func(ctx context.Context, tenant, person string) error {
			_, err := f.List(ctx, tenant, person)
			return err
		},
		"state": func(ctx context.Context, tenant, person string) error {
			_, err := f.State(ctx, tenant, person)
			return err
		},
	} {
		require.NoError(t, f.OpenPerson(t.Context(), "acme", "anna")) // "close" may have come before
		err := call(foreign, "acme", "anna")
		denial, ok := errors.AsType[*crmguard.Denial](err)
		require.True(t, ok, "%s: %v", name, err)
		require.Equal(t, "tenant", denial.Code, name)
		require.Error(t, call(t.Context(), "", "anna"), name)
		require.Error(t, call(t.Context(), "acme", ""), name)
		require.Error(t, call(t.Context(), "acme", "\xff"), name)
		require.NoError(t, call(t.Context(), "acme", "anna"), name)
		require.NoError(t, call(crmguard.System(t.Context(), "acme", "job"), "acme", "anna"), name)
	}
	// Whose token it is, is in the row: authenticating and signing out name no
	// tenant that could be another's.
}

// forged is a manager whose person anna has a state that somebody else wrote.
func forged(t *testing.T, o *session.Options) *session.Manager {
	t.Helper()
	store := session.NewMemory()
	_, _, err := store.Change(t.Context(), session.Person{Tenant: "acme", ID: "anna"},
		session.Person{Tenant: "acme", ID: "anna", Epoch: 1, MAC: session.MAC("forged")})
	require.NoError(t, err)
	m, err := session.New(store, crmguardtest.NewKeys(), o)
	require.NoError(t, err)
	return m
}

func TestForgedRowsAreHeard(t *testing.T) {
	for name, call := range map[string]func(m *session.Manager) error{
		"start": func(m *session.Manager) error { _, err := m.Start(t.Context(), anna()); return err },
		"state": func(m *session.Manager) error { _, err := m.State(t.Context(), "acme", "anna"); return err },
		"open":  func(m *session.Manager) error { return m.OpenPerson(t.Context(), "acme", "anna") },
	} {
		var own, byDefault bytes.Buffer
		before := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&byDefault, nil)))
		err := call(forged(t, nil))
		ownErr := call(forged(t, &session.Options{Logger: slog.New(slog.NewTextHandler(&own, nil))}))
		slog.SetDefault(before)
		require.Error(t, err, name)
		require.Error(t, ownErr, name)
		for _, heard := range []string{own.String(), byDefault.String()} {
			require.Equal(t, 1, strings.Count(heard, "not genuine"), name)
			require.NotContains(t, heard, "forged", name)
		}
	}
}

func TestWhatCannotBeDecidedIsNoDenial(t *testing.T) {
	down := errors.New("down")
	f := newFixture(t, session.Options{})
	token := f.start(t)

	f.store.fail = down
	_, err := f.Authenticate(t.Context(), token)
	requireUndecided(t, down, err)
	_, err = f.Start(t.Context(), anna())
	requireUndecided(t, down, err)
	requireUndecided(t, down, f.ClosePerson(t.Context(), "acme", "anna"))
	requireUndecided(t, down, f.End(t.Context(), token))
	f.store.fail = nil

	f.keys.Fail(down)
	_, err = f.Authenticate(t.Context(), token)
	requireUndecided(t, down, err)
	_, err = f.Start(t.Context(), anna())
	requireUndecided(t, down, err)
	requireUndecided(t, down, f.ClosePerson(t.Context(), "acme", "anna"))
	f.keys.Fail(nil)

	_, err = f.Authenticate(t.Context(), token)
	require.NoError(t, err)
	f.keys.Erase("acme", "") // the tenant's keys were destroyed on purpose
	_, err = f.Authenticate(t.Context(), token)
	requireDenied(t, session.CodeUnknown, err)
}

func TestOptions(t *testing.T) {
	for _, o := range []session.Options{
		{Idle: time.Minute}, {Idle: -time.Hour}, {Lifetime: -1}, {Lifetime: 10 * time.Minute}, {Idle: 13 * time.Hour},
	} {
		_, err := session.New(session.NewMemory(), crmguardtest.NewKeys(), &o)
		require.Error(t, err, "%+v", o)
	}
	_, err := session.New(nil, crmguardtest.NewKeys(), nil)
	require.Error(t, err)
	_, err = session.New(session.NewMemory(), nil, nil)
	require.Error(t, err)
}
