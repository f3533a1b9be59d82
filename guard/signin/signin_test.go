package signin_test

import (
	"context"
	"encoding/json"
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
	"github.com/crmguard/crmguard/guard/signin"
)

var home = netip.MustParseAddr("198.51.100.7")

type accounts struct {
	all     map[string]signin.Account
	renewed atomic.Int32
	err     error
}

func (a *accounts) Account(_ context.Context, login string) (signin.Account, error) {
	if a.err != nil {
		return signin.Account{}, a.err
	}
	account, ok := a.all[login]
	if !ok {
		return account, signin.ErrNoAccount
	}
	return account, nil
}

func (a *accounts) SetPasswordHash(context.Context, signin.Account, string) error {
	a.renewed.Add(1)
	return nil
}

// passwords compares in the clear and counts the work, for tests of the door.
type passwords struct {
	work   atomic.Int32
	rehash bool
	err    error
	done   func() // called when a comparison was made
}

func (*passwords) Hash(_ context.Context, password string) (string, error) {
	return "hash:" + password, nil
}

func (p *passwords) Verify(_ context.Context, password, hash string) (bool, bool, error) {
	p.work.Add(1)
	if p.done != nil {
		p.done()
	}
	return hash == "hash:"+password, p.rehash, p.err
}

func (p *passwords) VerifyNobody(context.Context, string) error {
	p.work.Add(1)
	return p.err
}

type sessions struct {
	mu     sync.Mutex
	live   map[string]crmguard.Subject
	closed map[string]bool
	err    error

	authErr error
}

func denied(code string) error {
	return &crmguard.Denial{By: "session", Code: code, Status: crmguard.Unauthenticated}
}

func (s *sessions) Start(_ context.Context, subject crmguard.Subject) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return "", s.err
	}
	if s.closed[subject.ID] {
		return "", denied("closed")
	}
	subject.Session = fmt.Sprintf("id-%d", len(s.live)+1)
	token := fmt.Sprintf("token-%d", len(s.live)+1)
	s.live[token] = subject
	return token, nil
}

func (s *sessions) Authenticate(_ context.Context, token string) (crmguard.Subject, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.authErr != nil {
		return crmguard.Subject{}, s.authErr
	}
	if subject, ok := s.live[token]; ok {
		return subject, nil
	}
	return crmguard.Subject{}, denied("unknown")
}

func (s *sessions) Raise(_ context.Context, token string, a crmguard.Assurance) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	subject, ok := s.live[token]
	if !ok {
		return "", denied("unknown")
	}
	delete(s.live, token)
	subject.Assurance = a
	s.live[token+"+"] = subject
	return token + "+", nil
}

func (s *sessions) End(_ context.Context, token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, token)
	return nil
}

type house struct {
	accounts  *accounts
	passwords *passwords
	sessions  *sessions
	journal   *crmguardtest.Recorder
	clock     *crmguardtest.Clock
	options   *signin.Options
}

func newHouse() *house {
	clock := crmguardtest.NewClock(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC))
	return &house{
		accounts: &accounts{all: map[string]signin.Account{
			"anna":    {Tenant: "acme", ID: "u1", Kind: crmguard.KindEmployee, PasswordHash: "hash:right"},
			"leaver":  {Tenant: "acme", ID: "u2", Kind: crmguard.KindEmployee, PasswordHash: "hash:right"},
			"program": {Tenant: "acme", ID: "i1", Kind: crmguard.KindIntegration},
		}},
		passwords: &passwords{},
		sessions:  &sessions{live: map[string]crmguard.Subject{}, closed: map[string]bool{"u2": true}},
		journal:   crmguardtest.NewRecorder(),
		clock:     clock,
		options:   &signin.Options{Tenant: "acme", Clock: clock.Now, Logger: slog.New(slog.DiscardHandler)},
	}
}

func (h *house) door(t testing.TB) *signin.Door {
	t.Helper()
	d, err := signin.New(h.accounts, h.passwords, h.sessions, h.journal, h.options)
	require.NoError(t, err)
	d.SetRefusalTime(0)
	return d
}

func (h *house) entries() (short []string) {
	for _, e := range h.journal.Events() {
		short = append(short, fmt.Sprintf("%s %s %s %s %d", e.Subject.ID, e.Action, e.Outcome, e.Reason, e.Count))
	}
	return short
}

func code(t *testing.T, err error) string {
	t.Helper()
	d, ok := errors.AsType[*crmguard.Denial](err)
	require.True(t, ok, "%v", err)
	return d.Code
}

func TestSignIn(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	token, err := d.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "right", Addr: home, Device: "phone", Request: "r1"})
	require.NoError(t, err)
	s := h.sessions.live[token]
	require.Equal(t, crmguard.AssurancePassword, s.Assurance)
	require.Equal(t, h.clock.Now(), s.AuthenticatedAt)
	require.Equal(t, home, s.Addr)
	require.Equal(t, "phone", s.Device)
	require.Equal(t, []string{"u1 sign-in done  0"}, h.entries())
	e := h.journal.Events()[0]
	require.Equal(t, "id-1", e.Resource.ID)
	require.Equal(t, "r1", e.Request)
	require.NotContains(t, fmt.Sprintf("%+v", e), token, "the token itself is never journalled")

	require.NoError(t, d.SignOut(t.Context(), token, "r2"))
	require.Empty(t, h.sessions.live)
	require.NoError(t, d.SignOut(t.Context(), token, "r3"), "nobody is signed in with it: no error, no entry")
	require.Equal(t, []string{"u1 sign-in done  0", "u1 revoke done  0"}, h.entries())
}

// Unknown, wrong, closed and refused by address: one error, the same work.
func TestRefusalsAreAlike(t *testing.T) {
	for _, tt := range []struct {
		name, login, password string
		addresses             crmguard.Checker
		entry                 string
	}{
		{"unknown login", "nobody", "right", nil, " sign-in denied unknown 1"},
		{"wrong password", "anna", "wrong", nil, "u1 sign-in denied password 0"},
		{"person closed", "leaver", "right", nil, "u2 sign-in denied session:closed 0"},
		{"no password", "program", "", nil, "i1 sign-in denied password 0"},
		{"address", "anna", "right", crmguardtest.Deny("address"), "u1 sign-in denied crmguardtest:address 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse()
			h.options.Addresses = tt.addresses
			token, err := h.door(t).SignIn(t.Context(), signin.Attempt{Login: tt.login, Password: tt.password, Addr: home})
			require.Empty(t, token)
			require.Equal(t, &crmguard.Denial{By: "signin", Code: "refused", Status: crmguard.Unauthenticated}, err)
			require.EqualValues(t, 1, h.passwords.work.Load())
			require.Equal(t, []string{tt.entry}, h.entries())
			require.Empty(t, h.sessions.live)
			require.NotContains(t, fmt.Sprintf("%+v", h.journal.Events()), "nobody", "a login that does not exist may be a password typed into the wrong field")
		})
	}
}

func TestWhatCannotBeDecidedIsNoFailureOfThePerson(t *testing.T) {
	down := errors.New("down")
	for name, sabotage := range map[string]func(*house){
		"accounts":  func(h *house) { h.accounts.err = down },
		"passwords": func(h *house) { h.passwords.err = down },
		"sessions":  func(h *house) { h.sessions.err = down },
		"journal":   func(h *house) { h.journal.Fail(down) },
		"addresses": func(h *house) {
			h.options.Addresses = crmguard.CheckerFunc(func(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error { return down })
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse()
			sabotage(h)
			d := h.door(t)
			for range 40 { // no pause comes of it
				_, err := d.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "right", Addr: home})
				require.ErrorIs(t, err, down)
			}
			require.Empty(t, h.sessions.live, "no session without an entry")
		})
	}
}

func TestGuessingIsSlowedDown(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	guess := func(password, addr string) string {
		_, err := d.SignIn(t.Context(), signin.Attempt{Login: " Anna"[1:], Password: password, Addr: netip.MustParseAddr(addr)})
		if err == nil {
			return "in"
		}
		return code(t, err)
	}
	h.accounts.all["Anna"] = h.accounts.all["anna"]
	for range 5 {
		require.Equal(t, "refused", guess("wrong", "203.0.113.9"))
	}
	require.Equal(t, "paused", guess("right", "203.0.113.9"), "even with the right password")
	require.Equal(t, "in", guess("right", "198.51.100.7"), "the person is not shut out by a stranger elsewhere")

	// Over an hour of guessing as fast as allowed, one network gets about a guess a minute.
	tries := 0
	for range 3600 {
		h.clock.Advance(time.Second)
		if guess("wrong", "203.0.113.9") == "refused" {
			tries++
		}
	}
	require.LessOrEqual(t, tries, 70)
	require.GreaterOrEqual(t, tries, 30, "a pause is no lock")
	require.Equal(t, "in", guess("right", "198.51.100.7"))
}

// A person who is attacked from everywhere goes on signing in from home.
func TestAttackFromEverywhereDoesNotShutOut(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	from := func(password string, addr netip.Addr) error {
		_, err := d.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: password, Addr: addr})
		return err
	}
	require.NoError(t, from("right", home))
	guesses := 0
	for i := range 2 * 3600 {
		h.clock.Advance(time.Second)
		elsewhere := netip.AddrFrom16([16]byte{0x20, 0x01, 0xd, 0xb8, byte(i >> 8), byte(i)}) // a network of its own each time
		if code(t, from("wrong", elsewhere)) == "refused" {
			guesses++
		}
		if i%600 == 0 {
			require.NoError(t, from("right", home), "after %d s", i)
		}
	}
	require.LessOrEqual(t, guesses, 100+2*60+20, "a hundred at once, then one a minute")
}

// Whoever hangs up after the comparison has guessed all the same.
func TestHangingUpDoesNotUncountAGuess(t *testing.T) {
	h := newHouse()
	ctx, cancel := context.WithCancel(t.Context())
	h.passwords.done = cancel
	obedient := crmguard.RecorderFunc(func(ctx context.Context, e crmguard.Event) error {
		return errors.Join(ctx.Err(), h.journal.Record(ctx, e))
	})
	d, err := signin.New(h.accounts, h.passwords, h.sessions, obedient, h.options)
	require.NoError(t, err)
	d.SetRefusalTime(0)
	for range 60 {
		_, err := d.SignIn(ctx, signin.Attempt{Login: "anna", Password: "wrong", Addr: home})
		require.Contains(t, []string{"refused", "paused"}, code(t, err))
	}
	require.EqualValues(t, 5, h.passwords.work.Load())
	require.Contains(t, h.entries(), "u1 sign-in denied password 0")
}

// A journal that is down makes no guess free and no login known.
func TestRefusalsAreAlikeWithoutAJournal(t *testing.T) {
	h := newHouse()
	h.journal.Fail(errors.New("disk full"))
	d := h.door(t)
	for range 60 {
		_, known := d.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "wrong", Addr: home})
		_, unknown := d.SignIn(t.Context(), signin.Attempt{Login: "nobody", Password: "wrong", Addr: netip.MustParseAddr("198.51.100.8")})
		require.Equal(t, unknown, known)
	}
	require.EqualValues(t, 10, h.passwords.work.Load())
}

func TestRefusalsTakeTheSameTime(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	d.SetRefusalTime(30 * time.Millisecond)
	for _, login := range []string{"anna", "nobody"} {
		started := time.Now()
		_, err := d.SignIn(t.Context(), signin.Attempt{Login: login, Password: "wrong", Addr: home})
		require.Equal(t, "refused", code(t, err))
		require.GreaterOrEqual(t, time.Since(started), 30*time.Millisecond)
	}
}

func TestOddAttempts(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	_, err := d.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "right"})
	require.ErrorContains(t, err, "address", "or everybody would share one bucket")
	h.accounts.err = errors.New("the database refuses such text")
	for i, login := range []string{"a\x00b", "a\xffb", strings.Repeat("a", 300)} {
		_, err := d.SignIn(t.Context(), signin.Attempt{Login: login, Password: "x", Addr: home})
		require.Equal(t, "refused", code(t, err), "%d", i)
	}
}

// A session that cannot be looked up or recorded does not live on.
func TestNoSessionWithoutAnEntry(t *testing.T) {
	h := newHouse()
	h.sessions.authErr = errors.New("down")
	_, err := h.door(t).SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "right", Addr: home})
	require.Error(t, err)
	require.Empty(t, h.sessions.live)
}

func TestOneNetworkCannotWalkTheLogins(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	allowed := 0
	for i := range 500 {
		// One /64 of IPv6 is one customer, whatever address is used in it.
		addr := netip.MustParseAddr(fmt.Sprintf("2001:db8:1:2::%x", i+1))
		_, err := d.SignIn(t.Context(), signin.Attempt{Login: fmt.Sprintf("user%d", i), Password: "Spring2026", Addr: addr})
		if code(t, err) == "refused" {
			allowed++
		}
	}
	require.Equal(t, 30, allowed)
	_, err := d.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "right", Addr: home})
	require.NoError(t, err)
}

// Fifty guesses at once get no more comparisons than fifty in a row.
func TestParallelGuessesDoNotAddUp(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, _ = d.SignIn(context.Background(), signin.Attempt{Login: "anna", Password: "wrong", Addr: home})
		})
	}
	wg.Wait()
	require.EqualValues(t, 5, h.passwords.work.Load())
}

// An account of one's own does not buy guesses at others'.
func TestSuccessDoesNotResetTheNetwork(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	h.accounts.all["own"] = signin.Account{Tenant: "acme", ID: "u9", Kind: crmguard.KindEmployee, PasswordHash: "hash:mine"}
	refused := 0
	for i := range 100 {
		if _, err := d.SignIn(t.Context(), signin.Attempt{Login: fmt.Sprintf("victim%d", i), Password: "x", Addr: home}); code(t, err) == "refused" {
			refused++
		}
		_, _ = d.SignIn(t.Context(), signin.Attempt{Login: "own", Password: "mine", Addr: home})
	}
	require.Equal(t, 30, refused)
}

func TestStrangersAreCountedNotListed(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	knock := func(n int) {
		for i := range n {
			addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			_, _ = d.SignIn(t.Context(), signin.Attempt{Login: "nobody", Password: "x", Addr: addr})
		}
	}
	h.journal.Fail(errors.New("down"))
	knock(20)
	require.Error(t, d.Close(t.Context()))
	h.journal.Fail(nil)
	h.clock.Advance(time.Minute)
	knock(30)
	h.clock.Advance(time.Minute)
	knock(1)
	knock(7)
	require.NoError(t, d.Close(t.Context()))
	require.NoError(t, d.Close(t.Context()), "nothing is recorded twice")
	require.Equal(t, []string{
		" sign-in denied unknown 21", // none was lost with the journal
		" sign-in denied unknown 30",
		" sign-in denied unknown 7",
	}, h.entries())
}

func TestRehash(t *testing.T) {
	h := newHouse()
	h.passwords.rehash = true
	d := h.door(t)
	_, err := d.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "wrong", Addr: home})
	require.Error(t, err)
	require.Zero(t, h.accounts.renewed.Load(), "not for a wrong password")
	_, err = d.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "right", Addr: home})
	require.NoError(t, err)
	require.EqualValues(t, 1, h.accounts.renewed.Load())
}

func TestAttemptRedactsItself(t *testing.T) {
	a := signin.Attempt{Login: "anna", Password: "hunter2", Code: "hunter2", Addr: home}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "attempt", a)
	account := signin.Account{Tenant: "acme", ID: "u1", PasswordHash: "hunter2"}
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "nested", struct {
		A signin.Attempt
		B signin.Account
	}{a, account})
	asJSON, err := json.Marshal([]any{a, account})
	require.NoError(t, err)
	for _, text := range []string{
		fmt.Sprint(a), fmt.Sprintf("%+v", a), fmt.Sprintf("%#v", a), fmt.Sprintf("%d %x", a, a), log.String(), string(asJSON),
		fmt.Sprintf("%v %+v %#v %s %q %x", account, account, account, account, account, account),
	} {
		require.NotContains(t, text, "hunter2")
		require.NotContains(t, text, "68756e74657232", "hexadecimal")
		require.NotContains(t, text, "anna")
	}
}

func TestNewWantsEveryPart(t *testing.T) {
	h := newHouse()
	_, err := signin.New(nil, h.passwords, h.sessions, h.journal, nil)
	require.Error(t, err)
	_, err = signin.New(h.accounts, h.passwords, h.sessions, nil, nil)
	require.Error(t, err)
}

func ExampleDoor_SignIn() {
	h := newHouse()
	door, err := signin.New(h.accounts, h.passwords, h.sessions, h.journal, h.options)
	if err != nil {
		panic(err)
	}
	for _, password := range []string{"wrong", "right"} {
		token, err := door.SignIn(context.Background(), signin.Attempt{Login: "anna", Password: password, Addr: home})
		fmt.Println(token, err)
	}
	// Output:
	//  crmguard: denied by signin: refused
	// token-1 <nil>
}
