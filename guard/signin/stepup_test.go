package signin_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard/signin"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/session"
)

// signedIn is Anna's session, and a moment later.
func (f *flat) signedIn(t testing.TB, d *signin.Door, name string) string {
	t.Helper()
	typed := ""
	if f.secret[name] != "" {
		typed = f.code(t, name)
	}
	token, err := d.SignIn(context.Background(), f.attempt(name, typed))
	require.NoError(t, err)
	f.clock.Advance(10 * time.Minute)
	return token
}

func (f *flat) live(t testing.TB, token string) crmguard.Subject {
	t.Helper()
	s, err := f.sessions.Authenticate(context.Background(), token)
	require.NoError(t, err)
	return s
}

func requireDenial(t testing.TB, want crmguard.Denial, err error) {
	t.Helper()
	denial, ok := errors.AsType[*crmguard.Denial](err)
	require.True(t, ok, "%v", err)
	got := *denial
	got.Detail = ""
	require.Equal(t, want, got)
}

// stranger is where Anna has never been.
var stranger = netip.MustParseAddr("203.0.113.9")

var badCode = crmguard.Denial{By: "signin", Code: "refused", Status: crmguard.StepUp, Need: crmguard.AssuranceSecondFactor}

func ended(code string) crmguard.Denial {
	return crmguard.Denial{By: "session", Code: code, Status: crmguard.Unauthenticated}
}

func TestStepUp(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	old := f.signedIn(t, d, "anna")
	before := f.live(t, old)
	ctx := crmguard.WithSubject(t.Context(), func() crmguard.Subject { s := before; s.Addr = home; return s }())

	token, err := d.StepUp(ctx, old, f.code(t, "anna"), "r2")
	require.NoError(t, err)
	after := f.live(t, token)
	want := before
	want.AuthenticatedAt = f.clock.Now()
	require.Equal(t, want, after)
	_, err = f.sessions.Authenticate(t.Context(), old)
	requireDenial(t, ended(session.CodeUnknown), err)

	e := f.journal.Events()[1]
	require.Equal(t, []string{"done ", "done step-up"}, f.reasons())
	require.Equal(t, crmguard.SignIn, e.Action)
	require.Equal(t, "r2", e.Request)
	require.Equal(t, home, e.Subject.Addr)
	require.Equal(t, before.Session, e.Resource.ID)
	require.Equal(t, after.AuthenticatedAt, e.Subject.AuthenticatedAt)
	for _, secret := range []string{old, token, f.code(t, "anna")} {
		require.NotContains(t, fmt.Sprintf("%+v", f.journal.Events()), secret)
	}
}

// Who signed in with a recovery code and has a new app proves it here.
func TestStepUpAfterRecovery(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	token, err := d.SignIn(t.Context(), f.attempt("anna", f.recovery["anna"][0]))
	require.NoError(t, err)
	f.enrol(t, "anna")
	f.clock.Advance(time.Minute)
	token, err = d.StepUp(t.Context(), token, f.code(t, "anna"), "")
	require.NoError(t, err)
	require.Equal(t, crmguard.AssuranceSecondFactor, f.live(t, token).Assurance)
}

func TestStepUpWithABadCode(t *testing.T) {
	for name, tt := range map[string]struct {
		reason string
		code   func(f *flat) string
	}{
		"wrong":      {"wrong-code", func(f *flat) string { return f.wrong(t) }},
		"none":       {"code-missing", func(*flat) string { return "" }},
		"of another": {"wrong-code", func(f *flat) string { return f.code(t, "boris") }},
		"recovery":   {"malformed-code", func(f *flat) string { return f.recovery["anna"][0] }},
		"replayed": {"used-code", func(f *flat) string {
			require.NoError(t, f.factors.Verify(t.Context(), "acme", "anna", f.code(t, "anna")))
			return f.code(t, "anna")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlat(t)
			d := f.door(t)
			token := f.signedIn(t, d, "anna")
			before, typed := f.live(t, token), tt.code(f)
			raised, err := d.StepUp(t.Context(), token, typed, "r2")
			require.Empty(t, raised)
			requireDenial(t, badCode, err)
			require.Equal(t, before, f.live(t, token), "the old token stays as good as it was")
			require.Equal(t, []string{"done ", "denied step-up:" + tt.reason}, f.reasons())
			if typed != "" {
				require.NotContains(t, fmt.Sprintf("%+v", f.journal.Events()), typed)
			}
			require.NoError(t, f.factors.Recover(t.Context(), "acme", "anna", f.recovery["anna"][0]), "none was used up")
		})
	}
}

func TestStepUpWithoutAFactor(t *testing.T) {
	f := newFlat(t)
	none := crmguard.Denial{By: "signin", Code: "no-factor"}
	d := f.door(t)
	token := f.signedIn(t, d, "clara")
	_, err := d.StepUp(t.Context(), token, "123456", "")
	requireDenial(t, none, err)
	require.Equal(t, []string{"done ", "denied step-up:signin:no-factor"}, f.reasons())
	f.live(t, token)

	f.options.Factors = nil
	_, err = f.door(t).StepUp(t.Context(), token, "123456", "")
	requireDenial(t, none, err)
}

func TestStepUpNeedsAGoodSession(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	_, err := d.StepUp(t.Context(), "x", f.code(t, "anna"), "")
	requireDenial(t, ended(session.CodeMalformed), err)
	token := f.signedIn(t, d, "anna")
	f.clock.Advance(time.Hour)
	_, err = d.StepUp(t.Context(), token, f.code(t, "anna"), "")
	requireDenial(t, ended(session.CodeIdle), err)
	require.NoError(t, f.factors.Verify(t.Context(), "acme", "anna", f.code(t, "anna")), "no code was used up")
	require.Equal(t, []string{"done "}, f.reasons(), "a token of nobody makes no entries")
}

// The subject in the context is whose address it is.
func TestStepUpIsOfTheSessionThatAsks(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	annas, boriss := f.signedIn(t, d, "anna"), f.signedIn(t, d, "boris")
	for name, acts := range map[string]crmguard.Subject{
		"a colleague": f.live(t, boriss),
		"a job":       {Tenant: "acme", ID: "system:job", Kind: crmguard.KindSystem},
	} {
		_, err := d.StepUp(crmguard.WithSubject(t.Context(), acts), annas, f.code(t, "anna"), "")
		require.ErrorContains(t, err, "not of the session", name)
	}
	_, err := d.StepUp(crmguard.WithSubject(t.Context(), f.live(t, annas)), annas, f.code(t, "anna"), "")
	require.NoError(t, err)
}

func TestStepUpAsksForTheAddress(t *testing.T) {
	f := newFlat(t)
	token := f.signedIn(t, f.door(t), "anna")
	fromHome := crmguard.CheckerFunc(func(_ context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
		if s.Addr != home || a != crmguard.SignIn || r.Kind != "sessions" {
			return &crmguard.Denial{By: "ipfilter", Code: "address"}
		}
		return nil
	})
	f.options.Addresses = fromHome
	d := f.door(t)
	acts := f.live(t, token)
	_, err := d.StepUp(crmguard.WithSubject(t.Context(), acts), token, f.code(t, "anna"), "")
	require.ErrorContains(t, err, "address")
	_, err = d.StepUp(t.Context(), token, f.code(t, "anna"), "")
	require.ErrorContains(t, err, "address", "nobody knows where from")

	acts.Addr = stranger
	_, err = d.StepUp(crmguard.WithSubject(t.Context(), acts), token, f.code(t, "anna"), "")
	requireDenial(t, crmguard.Denial{By: "ipfilter", Code: "address"}, err)
	undecided := "undecided step-up:check-failed"
	require.Equal(t, []string{"done ", undecided, undecided, "denied step-up:ipfilter:address"}, f.reasons())

	acts.Addr = home
	_, err = d.StepUp(crmguard.WithSubject(t.Context(), acts), token, f.code(t, "anna"), "")
	require.NoError(t, err, "and no code was used up before")
}

func TestStepUpThatCannotBeDecided(t *testing.T) {
	down := errors.New("down")
	for name, sabotage := range map[string]func(f *flat) *signin.Door{
		"has": func(f *flat) *signin.Door {
			f.options.Factors = failing{Factors: f.factors, has: down}
			return f.door(t)
		},
		"verify": func(f *flat) *signin.Door {
			f.options.Factors = failing{Factors: f.factors, verify: down}
			return f.door(t)
		},
		"addresses": func(f *flat) *signin.Door {
			f.options.Addresses = crmguard.CheckerFunc(func(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error { return down })
			return f.door(t)
		},
		"raise": func(f *flat) *signin.Door {
			d, err := signin.New(f.accounts, f.passwords, raiseFails{f.sessions, down}, f.journal, f.options)
			require.NoError(t, err)
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlat(t)
			token := f.signedIn(t, f.door(t), "anna")
			before := f.live(t, token)
			d := sabotage(f)
			acts := before
			acts.Addr = home
			for range 20 { // counted as nobody's failure
				f.clock.Advance(30 * time.Second)
				_, err := d.StepUp(crmguard.WithSubject(t.Context(), acts), token, f.code(t, "anna"), "")
				require.ErrorIs(t, err, down)
				_, denied := errors.AsType[*crmguard.Denial](err)
				require.False(t, denied)
			}
			require.Equal(t, before, f.live(t, token))
			require.Len(t, f.reasons(), 1+20)
			require.Equal(t, "undecided step-up:check-failed", f.reasons()[1])
		})
	}
}

type raiseFails struct {
	signin.Sessions
	err error
}

func (r raiseFails) Raise(context.Context, string, crmguard.Assurance) (string, error) {
	return "", r.err
}

// A session whose step-up is not in the journal does not go on.
func TestNoStepUpWithoutAnEntry(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	token := f.signedIn(t, d, "anna")
	down := errors.New("disk full")
	f.journal.Fail(down)
	_, err := d.StepUp(t.Context(), token, f.wrong(t), "")
	requireDenial(t, badCode, err) // a refusal stays one
	f.live(t, token)

	raised, err := d.StepUp(t.Context(), token, f.code(t, "anna"), "")
	require.ErrorIs(t, err, down)
	require.Empty(t, raised)
	list, err := f.sessions.List(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestManyStepUpsWithOneCode(t *testing.T) {
	race := func(f *flat, d *signin.Door, token, code string) func(t require.TestingT) {
		return func(t require.TestingT) {
			tokens := racetest.Run(t, func(int) (string, error) {
				raised, err := d.StepUp(context.Background(), token, code, "")
				if _, denied := errors.AsType[*crmguard.Denial](err); denied {
					err = nil
				}
				return raised, err
			})
			won := 0
			for _, raised := range tokens {
				if raised == "" {
					continue
				}
				won++
				_, err := f.sessions.Authenticate(context.Background(), raised)
				require.NoError(t, err)
			}
			require.Equal(t, 1, won)
		}
	}
	f := newFlat(t)
	d := f.door(t)
	race(f, d, f.signedIn(t, d, "anna"), f.code(t, "anna"))(t)

	t.Run("planted fault", func(t *testing.T) {
		f := newFlat(t)
		f.options.Factors = twice{f.factors}
		d, err := signin.New(f.accounts, f.passwords, keepsToken{f.sessions}, f.journal, f.options)
		require.NoError(t, err)
		d.SetRefusalTime(0)
		require.False(t, racetest.Passes(race(f, d, f.signedIn(t, d, "anna"), f.code(t, "anna"))))
	})
}

// keepsToken are sessions that do not rotate.
type keepsToken struct{ *session.Manager }

func (k keepsToken) Raise(ctx context.Context, token string, _ crmguard.Assurance) (string, error) {
	_, err := k.Authenticate(ctx, token)
	return token, err
}

// A thief with a stolen session guesses codes: the session has to wait, and its
// person, at home, does not.
func TestGuessingInASession(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	stolen := f.signedIn(t, d, "anna")
	tried := 0
	for range 20 * 60 {
		f.clock.Advance(time.Second)
		_, err := d.StepUp(t.Context(), stolen, f.wrong(t), "")
		switch denial, _ := errors.AsType[*crmguard.Denial](err); denial.Code {
		case "refused":
			tried++
		case "paused":
			require.Equal(t, crmguard.Exhausted, denial.Status)
			require.Positive(t, denial.RetryAfter)
		default:
			t.Fatal(err)
		}
	}
	require.LessOrEqual(t, tried, 3+11)
	_, err := d.SignIn(t.Context(), f.attempt("anna", f.code(t, "anna")))
	require.NoError(t, err)
	require.Contains(t, f.reasons(), "denied step-up:code-paused")
}

// A code that the factors did not look at is nobody's failure: who types right
// codes in a session waits no longer than the factors say.
func TestStepUpWhileTheFactorsPause(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	token := f.signedIn(t, d, "anna")
	guess := func() { // somebody at her home
		_, err := d.SignIn(t.Context(), f.attempt("anna", f.wrong(t)))
		require.Error(t, err)
	}
	for range 60 {
		guess()
		f.clock.Advance(time.Minute)
		f.live(t, token)
	}
	for range 40 {
		if _, err := d.StepUp(t.Context(), token, f.code(t, "anna"), ""); err == nil {
			break
		} else {
			requireDenial(t, badCode, err)
		}
		guess()
		f.clock.Advance(30 * time.Second)
		f.live(t, token)
	}
	require.Contains(t, f.reasons(), "denied step-up:paused")
	require.NotContains(t, f.reasons(), "denied step-up:code-paused")
}

// A code of an app proves less than such a session has, and is not used up for it.
func TestStepUpOfAStrongerSession(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	s := f.live(t, f.signedIn(t, d, "anna"))
	s.Assurance = crmguard.AssurancePhishingResistant
	token, err := f.sessions.Start(t.Context(), s)
	require.NoError(t, err)
	before := f.live(t, token)
	_, err = d.StepUp(t.Context(), token, f.code(t, "anna"), "")
	requireDenial(t, crmguard.Denial{By: "signin", Code: "weaker", Status: crmguard.StepUp, Need: crmguard.AssurancePhishingResistant}, err)
	require.Equal(t, before, f.live(t, token))
	require.Equal(t, []string{"done ", "denied step-up:signin:weaker"}, f.reasons())
	require.NoError(t, f.factors.Verify(t.Context(), "acme", "anna", f.code(t, "anna")), "no code was used up")
}

func TestStepUpRefusalsTakeTheSameTime(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	token := f.signedIn(t, d, "anna")
	d.SetRefusalTime(20 * time.Millisecond)
	for _, typed := range []string{"", f.wrong(t), "x"} {
		started := time.Now()
		_, err := d.StepUp(t.Context(), token, typed, "")
		requireDenial(t, badCode, err)
		require.GreaterOrEqual(t, time.Since(started), 20*time.Millisecond)
	}
}

func ExampleDoor_StepUp() {
	h := newHouse()
	h.options.Factors = oneCode{"123456"} // in a host: *mfa.Factors
	door, err := signin.New(h.accounts, h.passwords, h.sessions, h.journal, h.options)
	if err != nil {
		panic(err)
	}
	token, err := door.SignIn(context.Background(), signin.Attempt{Login: "anna", Password: "right", Code: "123 456", Addr: home})
	fmt.Println(token, err)
	for _, code := range []string{"654321", "123456"} { // before an export
		raised, err := door.StepUp(context.Background(), token, code, "request-7")
		fmt.Println(raised, err)
	}
	// Output:
	// token-1 <nil>
	//  crmguard: denied by signin: refused
	// token-1+ <nil>
}

// oneCode stands in for an app that always shows the same.
type oneCode struct{ code string }

func (oneCode) Has(context.Context, string, string) (bool, error) { return true, nil }

func (o oneCode) Verify(_ context.Context, _, _, code string) error {
	if code[:3]+code[len(code)-3:] != o.code {
		return &crmguard.Denial{By: "mfa", Code: "refused", Status: crmguard.Unauthenticated, Detail: "wrong-code"}
	}
	return nil
}

func (oneCode) Recover(context.Context, string, string, string) error {
	return &crmguard.Denial{By: "mfa", Code: "refused", Status: crmguard.Unauthenticated, Detail: "wrong-code"}
}
