package signin_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard/signin"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/session"
)

// flat is a house with the real second factors and sessions: Anna and Boris have
// an app and recovery codes, Clara has neither.
type flat struct {
	*house
	factors  *mfa.Factors
	store    *mfa.Memory
	sessions *session.Manager
	secret   map[string]string
	recovery map[string][]string
}

func newFlat(t testing.TB) *flat {
	t.Helper()
	f := &flat{house: newHouse(), store: mfa.NewMemory(), secret: map[string]string{}, recovery: map[string][]string{}}
	f.accounts.all = map[string]signin.Account{}
	ctx, keys := context.Background(), crmguardtest.NewKeys()
	var err error
	f.factors, err = mfa.New(f.store, keys, "Acme CRM", &mfa.Options{Clock: f.clock.Now, Logger: f.options.Logger})
	require.NoError(t, err)
	f.sessions, err = session.New(session.NewMemory(), keys, &session.Options{Clock: f.clock.Now, Logger: f.options.Logger})
	require.NoError(t, err)
	for _, name := range []string{"anna", "boris", "clara"} {
		f.accounts.all[name] = signin.Account{Tenant: "acme", ID: name, Kind: crmguard.KindEmployee, PasswordHash: "hash:right"}
		require.NoError(t, f.sessions.OpenPerson(ctx, "acme", name))
		if name == "clara" {
			continue
		}
		f.enrol(t, name)
		codes, err := f.factors.ReplaceRecovery(ctx, "acme", name)
		require.NoError(t, err)
		f.recovery[name] = codes.Show()
	}
	f.clock.Advance(time.Minute) // confirming has used up a code
	f.options.Factors = f.factors
	return f
}

func (f *flat) enrol(t testing.TB, name string) {
	t.Helper()
	enrolment, err := f.factors.Enrol(context.Background(), "acme", name, name)
	require.NoError(t, err)
	f.secret[name] = enrolment.Secret()
	require.NoError(t, f.factors.Confirm(context.Background(), "acme", name, enrolment.ID, f.code(t, name)))
}

// code is what the person's app shows.
func (f *flat) code(t testing.TB, name string) string {
	t.Helper()
	code, err := totp.GenerateCode(f.secret[name], f.clock.Now())
	require.NoError(t, err)
	return code
}

func (f *flat) wrong(t testing.TB) string {
	t.Helper()
	for n := 0; ; n++ {
		code := fmt.Sprintf("%06d", n)
		good := false
		for at := -time.Minute; at <= time.Minute; at += 30 * time.Second {
			for _, secret := range f.secret {
				c, err := totp.GenerateCode(secret, f.clock.Now().Add(at))
				require.NoError(t, err)
				good = good || c == code
			}
		}
		if !good {
			return code
		}
	}
}

func (f *flat) door(t testing.TB) *signin.Door {
	t.Helper()
	d, err := signin.New(f.accounts, f.passwords, f.sessions, f.journal, f.options)
	require.NoError(t, err)
	d.SetRefusalTime(0)
	return d
}

func (f *flat) attempt(name, code string) signin.Attempt {
	return signin.Attempt{Login: name, Password: "right", Code: code, Addr: home, Request: "r1"}
}

// reasons are those of the journal, in order.
func (f *flat) reasons() (reasons []string) {
	for _, e := range f.journal.Events() {
		reasons = append(reasons, e.Outcome.String()+" "+e.Reason)
	}
	return reasons
}

func requireRefused(t testing.TB, err error) {
	t.Helper()
	require.Equal(t, &crmguard.Denial{By: "signin", Code: "refused", Status: crmguard.Unauthenticated}, err)
	require.Equal(t, "crmguard: denied by signin: refused", err.Error())
}

func TestSignInWithACode(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	code := f.code(t, "anna")
	token, err := d.SignIn(t.Context(), f.attempt("anna", " "+code[:3]+"-"+code[3:]+" "))
	require.NoError(t, err)
	s, err := f.sessions.Authenticate(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, crmguard.AssuranceSecondFactor, s.Assurance)
	require.Equal(t, f.clock.Now(), s.AuthenticatedAt)
	e := f.journal.Events()[0]
	require.Equal(t, crmguard.AssuranceSecondFactor, e.Subject.Assurance)
	require.Equal(t, home, e.Subject.Addr, "the journal knows where from")

	_, err = d.SignIn(t.Context(), f.attempt("anna", code))
	requireRefused(t, err)
	f.clock.Advance(30 * time.Second)
	_, err = d.SignIn(t.Context(), f.attempt("anna", f.code(t, "anna")))
	require.NoError(t, err)
	require.Equal(t, []string{"done ", "denied used-code", "done "}, f.reasons())
}

func TestSignInWithoutAFactor(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	for _, code := range []string{"", "123456", "anything"} {
		token, err := d.SignIn(t.Context(), f.attempt("clara", code))
		require.NoError(t, err, "what is written there is not looked at")
		s, err := f.sessions.Authenticate(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, crmguard.AssurancePassword, s.Assurance)
	}
	f.options.Factors = nil
	token, err := f.door(t).SignIn(t.Context(), f.attempt("anna", ""))
	require.NoError(t, err, "the planted fault: a door that knows no factors")
	s, err := f.sessions.Authenticate(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, crmguard.AssurancePassword, s.Assurance)
}

func TestRecoveryCode(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	code := f.recovery["anna"][0]
	token, err := d.SignIn(t.Context(), f.attempt("anna", strings.ToLower(code)))
	require.NoError(t, err)
	s, err := f.sessions.Authenticate(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, crmguard.AssuranceRecovered, s.Assurance, "less than a password: good for another app, not for an export")
	_, err = d.SignIn(t.Context(), f.attempt("anna", code))
	requireRefused(t, err)
	_, err = d.SignIn(t.Context(), f.attempt("anna", f.recovery["boris"][0]))
	requireRefused(t, err)
	require.Equal(t, []string{"done ", "denied used-code", "denied wrong-code"}, f.reasons())
}

// Whatever is wrong, whoever asks learns the same; only the journal tells, and
// never what was typed.
func TestRefusedCodesAreAlike(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		attempt      func(f *flat) signin.Attempt
	}{
		{"wrong password, right code", "password", func(f *flat) signin.Attempt {
			a := f.attempt("anna", f.code(t, "anna"))
			a.Password = "wrong"
			return a
		}},
		{"wrong code", "wrong-code", func(f *flat) signin.Attempt { return f.attempt("anna", f.wrong(t)) }},
		{"no code", "code-missing", func(f *flat) signin.Attempt { return f.attempt("anna", "") }},
		{"blank code", "code-missing", func(f *flat) signin.Attempt { return f.attempt("anna", " \t") }},
		{"of another account", "wrong-code", func(f *flat) signin.Attempt { return f.attempt("anna", f.code(t, "boris")) }},
		{"five digits", "malformed-code", func(f *flat) signin.Attempt { return f.attempt("anna", "12345") }},
		{"a text", "malformed-code", func(f *flat) signin.Attempt { return f.attempt("anna", "hunter2") }},
		{"a long text", "malformed-code", func(f *flat) signin.Attempt { return f.attempt("anna", strings.Repeat("1 ", 1<<20)) }},
		{"no recovery code of hers", "wrong-code", func(f *flat) signin.Attempt { return f.attempt("anna", f.recovery["boris"][0]) }},
		{"somebody closed", "session:person-closed", func(f *flat) signin.Attempt {
			require.NoError(t, f.sessions.ClosePerson(t.Context(), "acme", "anna"))
			return f.attempt("anna", f.code(t, "anna"))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFlat(t)
			f.passwords.rehash = true
			a := tt.attempt(f)
			token, err := f.door(t).SignIn(t.Context(), a)
			require.Empty(t, token)
			requireRefused(t, err)
			require.Equal(t, []string{"denied " + tt.reason}, f.reasons())
			require.EqualValues(t, 1, f.passwords.work.Load())
			if tt.reason != "session:person-closed" {
				require.Zero(t, f.accounts.renewed.Load(), "who does not come in changes nothing")
			}
			if code := strings.TrimSpace(a.Code); code != "" {
				require.NotContains(t, fmt.Sprintf("%+v", f.journal.Events()), code)
			}
		})
	}
}

// A right password with a wrong code is counted like a wrong password.
func TestWrongCodesAreCounted(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	for range 5 {
		_, err := d.SignIn(t.Context(), f.attempt("anna", ""))
		requireRefused(t, err)
	}
	_, err := d.SignIn(t.Context(), f.attempt("anna", f.code(t, "anna")))
	require.Equal(t, "paused", code(t, err))
}

// chatty are factors that say what was typed, which they must not.
type chatty struct{ *mfa.Factors }

func (chatty) Verify(_ context.Context, _, _, code string) error {
	return &crmguard.Denial{By: "mfa", Code: "refused", Detail: "wrong code: " + code}
}

func TestTheJournalNeverHoldsCodes(t *testing.T) {
	f := newFlat(t)
	f.options.Factors = chatty{f.factors}
	_, err := f.door(t).SignIn(t.Context(), f.attempt("anna", "123456"))
	requireRefused(t, err)
	holds := func() bool { return strings.Contains(fmt.Sprintf("%+v", f.journal.Events()), "123456") }
	require.False(t, holds())
	require.Equal(t, []string{"denied mfa:refused"}, f.reasons())

	// The planted fault: an entry with the code would be seen.
	require.NoError(t, f.journal.Record(t.Context(), crmguard.Event{
		Action: crmguard.SignIn, Outcome: crmguard.Denied, Reason: "wrong code: 123456",
		Subject: crmguard.Subject{Tenant: "acme"}, Resource: crmguard.Resource{Tenant: "acme", Kind: "sessions"},
	}))
	require.True(t, holds())
}

// failing are factors of which a part is out of order.
type failing struct {
	signin.Factors
	has, verify, recover error
}

func (f failing) Has(ctx context.Context, tenant, person string) (bool, error) {
	if f.has != nil {
		return false, f.has
	}
	return f.Factors.Has(ctx, tenant, person)
}

func (f failing) Verify(ctx context.Context, tenant, person, code string) error {
	if f.verify != nil {
		return f.verify
	}
	return f.Factors.Verify(ctx, tenant, person, code)
}

func (f failing) Recover(ctx context.Context, tenant, person, code string) error {
	if f.recover != nil {
		return f.recover
	}
	return f.Factors.Recover(ctx, tenant, person, code)
}

func TestFactorsThatCannotDecideLetNobodyInAndCountNothing(t *testing.T) {
	down := errors.New("down")
	for name, factors := range map[string]failing{
		"has": {has: down}, "verify": {verify: down}, "recover": {recover: down},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlat(t)
			factors.Factors = f.factors
			f.options.Factors = factors
			d := f.door(t)
			typed := f.code(t, "anna")
			if name == "recover" {
				typed = f.recovery["anna"][0]
			}
			for range 40 {
				_, err := d.SignIn(t.Context(), f.attempt("anna", typed))
				require.ErrorIs(t, err, down)
				_, denied := errors.AsType[*crmguard.Denial](err)
				require.False(t, denied)
				require.NotContains(t, err.Error(), typed)
			}
			list, err := f.sessions.List(t.Context(), "acme", "anna")
			require.NoError(t, err)
			require.Empty(t, list)
		})
	}
}

// Rows that somebody wrote past mfa: whoever it is stays out.
func TestForgedFactors(t *testing.T) {
	f := newFlat(t)
	p, rows, err := f.store.Load(t.Context(), "acme", "anna")
	require.NoError(t, err)
	for _, r := range rows { // the app is gone, so that the password would do
		if r.Kind == mfa.KindApp {
			changed, err := f.store.Change(t.Context(), p, p, nil, []string{r.ID})
			require.NoError(t, err)
			require.True(t, changed)
		}
	}
	token, err := f.door(t).SignIn(t.Context(), f.attempt("anna", ""))
	require.Empty(t, token)
	require.ErrorIs(t, err, mfa.ErrState)
}

// In a request of another tenant's subject nobody signs in, and nothing is told.
func TestSubjectOfAnotherTenantAtTheDoor(t *testing.T) {
	f := newFlat(t)
	ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "other", ID: "eve", Kind: crmguard.KindEmployee})
	_, err := f.door(t).SignIn(ctx, f.attempt("anna", f.code(t, "anna")))
	requireRefused(t, err)
	require.Equal(t, []string{"denied crmguard:tenant"}, f.reasons())
}

// twice are factors that let a code in again.
type twice struct{ *mfa.Factors }

func (twice) Verify(context.Context, string, string, string) error { return nil }

func TestManyWithOneCode(t *testing.T) {
	race := func(f *flat, d *signin.Door, code string) func(t require.TestingT) {
		return func(t require.TestingT) {
			won := racetest.Winners(t, func(n int) (bool, error) {
				a := f.attempt("anna", code)
				a.Addr = netip.AddrFrom4([4]byte{203, 0, byte(n), 1}) // each from a network of their own
				_, err := d.SignIn(context.Background(), a)
				if _, denied := errors.AsType[*crmguard.Denial](err); denied {
					return false, nil
				}
				return err == nil, err
			})
			require.Equal(t, 1, won)
			list, err := f.sessions.List(context.Background(), "acme", "anna")
			require.NoError(t, err)
			require.Len(t, list, 1)
		}
	}
	t.Run("of an app", func(t *testing.T) {
		f := newFlat(t)
		race(f, f.door(t), f.code(t, "anna"))(t)
	})
	t.Run("recovery", func(t *testing.T) {
		f := newFlat(t)
		race(f, f.door(t), f.recovery["anna"][0])(t)
	})
	t.Run("planted fault", func(t *testing.T) {
		f := newFlat(t)
		f.options.Factors = twice{f.factors}
		require.False(t, racetest.Passes(race(f, f.door(t), f.code(t, "anna"))))
	})
}

// besiege guesses codes for three hours with the right password, each time from
// another network. Every ten minutes Anna comes home and tries three times, a minute
// apart; besiege returns how often she came in, of 18.
func besiege(t *testing.T, f *flat, d *signin.Door) (cameIn int) {
	_, err := d.SignIn(t.Context(), f.attempt("anna", f.code(t, "anna"))) // she has been here before
	require.NoError(t, err)
	waits := 0
	for second := 1; second <= 3*3600; second++ {
		f.clock.Advance(time.Second)
		if second%5 == 0 {
			a := f.attempt("anna", f.wrong(t))
			a.Addr = netip.AddrFrom4([4]byte{10, byte(second >> 16), byte(second >> 8), byte(second)})
			_, err := d.SignIn(t.Context(), a)
			require.Error(t, err)
		}
		if second%600 == 420 {
			waits = 3
		}
		if second%60 == 0 && waits > 0 {
			waits--
			if _, err := d.SignIn(t.Context(), f.attempt("anna", f.code(t, "anna"))); err == nil {
				cameIn++
				waits = 0
			}
		}
	}
	return cameIn
}

func TestWhoKnowsThePasswordDoesNotKeepThePersonOut(t *testing.T) {
	f := newFlat(t)
	require.Equal(t, 18, besiege(t, f, f.door(t)))
	t.Run("planted fault", func(t *testing.T) {
		f := newFlat(t)
		d := f.door(t)
		d.CountNoCodes()
		require.Less(t, besiege(t, f, d), 9, "without a count of the door's own, that of the factors keeps her out")
	})
}

// Away from home she waits as long as the attack lasts, and not much longer.
func TestAfterTheSiege(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	for range 200 {
		f.clock.Advance(5 * time.Second)
		_, err := d.SignIn(t.Context(), f.attempt("anna", f.wrong(t)))
		require.Error(t, err)
	}
	f.clock.Advance(time.Hour)
	_, err := d.SignIn(t.Context(), f.attempt("anna", f.code(t, "anna")))
	require.NoError(t, err)
}

// The time of a refusal does not tell whether a code was asked for.
func TestRefusedCodesTakeTheSameTime(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	d.SetRefusalTime(20 * time.Millisecond)
	for _, typed := range []string{"", f.wrong(t), "x"} {
		started := time.Now()
		_, err := d.SignIn(t.Context(), f.attempt("anna", typed))
		requireRefused(t, err)
		require.GreaterOrEqual(t, time.Since(started), 20*time.Millisecond)
	}
}

// Fifty guesses at once, from fifty networks: three are looked at.
func TestParallelGuessesAtCodesDoNotAddUp(t *testing.T) {
	f := newFlat(t)
	counting := &countingFactors{Factors: f.factors}
	f.options.Factors = counting
	d := f.door(t)
	wrong := f.wrong(t)
	racetest.Run(t, func(n int) (bool, error) {
		a := f.attempt("anna", wrong)
		a.Addr = netip.AddrFrom4([4]byte{203, 0, byte(n), 1})
		_, err := d.SignIn(context.Background(), a)
		if _, denied := errors.AsType[*crmguard.Denial](err); !denied {
			return false, fmt.Errorf("not denied: %w", err)
		}
		return false, nil
	})
	require.Equal(t, 3, counting.tries)
	require.Contains(t, f.reasons(), "denied code-paused")
}

type countingFactors struct {
	signin.Factors
	mu    sync.Mutex
	tries int
}

func (c *countingFactors) Verify(ctx context.Context, tenant, person, code string) error {
	c.mu.Lock()
	c.tries++
	c.mu.Unlock()
	return c.Factors.Verify(ctx, tenant, person, code)
}
