package mfa

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
)

// rig is factors on a store that the test writes past them, as somebody with
// access to the database does.
type rig struct {
	*Factors
	store *Memory
	clock *crmguardtest.Clock
	keys  *crmguardtest.Keys
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{store: NewMemory(), clock: crmguardtest.NewClock(noon), keys: crmguardtest.NewKeys()}
	var err error
	r.Factors, err = New(r.store, r.keys, "Acme CRM", &Options{Clock: r.clock.Now})
	require.NoError(t, err)
	return r
}

// phone is an authenticator app.
type phone struct {
	id, secret string
	clock      *crmguardtest.Clock
}

func (p *phone) code(t testing.TB, ahead ...time.Duration) string {
	t.Helper()
	at := p.clock.Now()
	for _, d := range ahead {
		at = at.Add(d)
	}
	code, err := totp.GenerateCode(p.secret, at)
	require.NoError(t, err)
	return code
}

func (r *rig) enrol(t testing.TB, person string) *phone {
	t.Helper()
	e, err := r.Enrol(context.Background(), "acme", person, person+"@acme.example")
	require.NoError(t, err)
	return &phone{e.ID, e.Secret(), r.clock}
}

// enrolled is a person with a confirmed app, whose next code was not used yet.
func (r *rig) enrolled(t testing.TB, person string) *phone {
	t.Helper()
	p := r.enrol(t, person)
	require.NoError(t, r.Confirm(context.Background(), "acme", person, p.id, p.code(t)))
	r.clock.Advance(30 * time.Second)
	return p
}

// row is the stored row with this id.
func (r *rig) row(t testing.TB, person, id string) *Row {
	t.Helper()
	for i, row := range r.store.persons[personKey{"acme", person}].rows {
		if row.ID == id {
			return &r.store.persons[personKey{"acme", person}].rows[i]
		}
	}
	t.Fatal("no such row")
	return nil
}

func requireRefused(t testing.TB, reason string, err error) {
	t.Helper()
	denial, ok := errors.AsType[*crmguard.Denial](err)
	require.True(t, ok, "want a denial, got %v", err)
	require.Equal(t, crmguard.Denial{By: "mfa", Code: "refused", Status: crmguard.Unauthenticated, Detail: reason}, *denial)
}

// wrong is a code that the phone does not show in the window.
func wrong(t testing.TB, p *phone) string {
	t.Helper()
	right := map[string]bool{}
	for _, d := range []time.Duration{-30 * time.Second, 0, 30 * time.Second} {
		right[p.code(t, d)] = true
	}
	for _, code := range []string{"000000", "000001", "000002", "000003"} {
		if !right[code] {
			return code
		}
	}
	panic("unreachable")
}

func TestLifeOfAnApp(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	has, err := r.Has(ctx, "acme", "anna")
	require.NoError(t, err)
	require.False(t, has)

	p := r.enrol(t, "anna")
	has, err = r.Has(ctx, "acme", "anna")
	require.NoError(t, err)
	require.False(t, has, "not confirmed")
	requireRefused(t, ReasonAbsent, r.Verify(ctx, "acme", "anna", p.code(t)))
	requireRefused(t, ReasonWrong, r.Confirm(ctx, "acme", "anna", p.id, wrong(t, p)))
	requireRefused(t, ReasonMalformed, r.Confirm(ctx, "acme", "anna", p.id, "12345"))
	requireRefused(t, ReasonAbsent, r.Confirm(ctx, "acme", "anna", "another", p.code(t)))
	requireRefused(t, ReasonAbsent, r.Confirm(ctx, "acme", "boris", p.id, p.code(t)))
	require.NoError(t, r.Confirm(ctx, "acme", "anna", p.id, p.code(t)))
	requireRefused(t, ReasonAbsent, r.Confirm(ctx, "acme", "anna", p.id, p.code(t)))

	has, err = r.Has(ctx, "acme", "anna")
	require.NoError(t, err)
	require.True(t, has)
	requireRefused(t, ReasonUsed, r.Verify(ctx, "acme", "anna", p.code(t)))
	r.clock.Advance(30 * time.Second)
	code := p.code(t)
	require.NoError(t, r.Verify(ctx, "acme", "anna", " "+code[:3]+" "+code[3:]))
	requireRefused(t, ReasonUsed, r.Verify(ctx, "acme", "anna", code))

	status, err := r.Status(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, Status{Apps: []App{{ID: p.id, Confirmed: true, Created: noon, Used: noon.Add(30 * time.Second)}}}, status)

	require.NoError(t, r.Remove(ctx, "acme", "anna", p.id))
	require.NoError(t, r.Remove(ctx, "acme", "anna", p.id), "it is gone")
	r.clock.Advance(30 * time.Second)
	requireRefused(t, ReasonAbsent, r.Verify(ctx, "acme", "anna", p.code(t)))
	has, err = r.Has(ctx, "acme", "anna")
	require.NoError(t, err)
	require.False(t, has)
}

func TestWindow(t *testing.T) {
	for _, tc := range []struct {
		ahead  time.Duration
		reason string // empty: let in
	}{
		{-60 * time.Second, ReasonWrong},
		{-30 * time.Second, ""},
		{0, ""},
		{30 * time.Second, ""},
		{60 * time.Second, ReasonWrong},
	} {
		r := newRig(t)
		p := r.enrolled(t, "anna")
		r.clock.Advance(time.Hour)
		err := r.Verify(t.Context(), "acme", "anna", p.code(t, tc.ahead))
		if tc.reason == "" {
			require.NoError(t, err, tc.ahead)
		} else {
			requireRefused(t, tc.reason, err)
		}
	}
}

// A code of an earlier step is not good after one of a later step was used.
func TestStepsOnlyGoForward(t *testing.T) {
	r := newRig(t)
	p := r.enrolled(t, "anna")
	r.clock.Advance(time.Hour)
	before, now, after := p.code(t, -30*time.Second), p.code(t), p.code(t, 30*time.Second)
	require.NoError(t, r.Verify(t.Context(), "acme", "anna", now))
	requireRefused(t, ReasonUsed, r.Verify(t.Context(), "acme", "anna", before))
	require.NoError(t, r.Verify(t.Context(), "acme", "anna", after))
	r.clock.Advance(30 * time.Second)
	requireRefused(t, ReasonUsed, r.Verify(t.Context(), "acme", "anna", after))
}

func TestClockSetBackRefusesUsedSteps(t *testing.T) {
	r := newRig(t)
	p := r.enrolled(t, "anna")
	codes, err := r.ReplaceRecovery(t.Context(), "acme", "anna")
	require.NoError(t, err)
	r.clock.Advance(time.Hour)
	require.NoError(t, r.Verify(t.Context(), "acme", "anna", p.code(t)))
	r.clock.Advance(-30 * time.Minute)
	requireRefused(t, ReasonUsed, r.Verify(t.Context(), "acme", "anna", p.code(t)))
	require.NoError(t, r.Recover(t.Context(), "acme", "anna", codes.Show()[0]))
	r.clock.Advance(31 * time.Minute)
	require.NoError(t, r.Verify(t.Context(), "acme", "anna", p.code(t)))
}

func TestSeveralApps(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	var phones []*phone
	for range MaxApps {
		phones = append(phones, r.enrolled(t, "anna"))
	}
	_, err := r.Enrol(ctx, "acme", "anna", "anna")
	require.ErrorIs(t, err, ErrTooMany)
	for _, p := range phones {
		require.NoError(t, r.Verify(ctx, "acme", "anna", p.code(t, 30*time.Second)))
	}
	require.NoError(t, r.Remove(ctx, "acme", "anna", phones[0].id))
	r.clock.Advance(time.Minute)
	requireRefused(t, ReasonWrong, r.Verify(ctx, "acme", "anna", phones[0].code(t)))
	require.NoError(t, r.Verify(ctx, "acme", "anna", phones[1].code(t)))
	_, err = r.Enrol(ctx, "acme", "anna", "anna")
	require.NoError(t, err)
}

func TestEnrolmentEnds(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	late := r.enrol(t, "anna")
	r.clock.Advance(confirmWithin + time.Second)
	requireRefused(t, ReasonAbsent, r.Confirm(ctx, "acme", "anna", late.id, late.code(t)))

	first := r.enrol(t, "anna")
	second := r.enrol(t, "anna")
	requireRefused(t, ReasonAbsent, r.Confirm(ctx, "acme", "anna", first.id, first.code(t)))
	require.NoError(t, r.Confirm(ctx, "acme", "anna", second.id, second.code(t)))
	status, err := r.Status(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Len(t, status.Apps, 1)
}

func TestRecovery(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	_, err := r.ReplaceRecovery(ctx, "acme", "anna")
	require.ErrorIs(t, err, ErrNoFactor)
	p := r.enrolled(t, "anna")
	requireRefused(t, ReasonWrong, r.Recover(ctx, "acme", "anna", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA"))
	old, err := r.ReplaceRecovery(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Len(t, old.Show(), 10)
	require.NoError(t, r.Recover(ctx, "acme", "anna", old.Show()[0]))
	requireRefused(t, ReasonUsed, r.Recover(ctx, "acme", "anna", old.Show()[0]))
	status, err := r.Status(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, 9, status.Recovery)

	codes, err := r.ReplaceRecovery(ctx, "acme", "anna")
	require.NoError(t, err)
	r.clock.Advance(24 * time.Hour)
	for _, code := range old.Show() {
		r.clock.Advance(time.Hour)
		requireRefused(t, ReasonWrong, r.Recover(ctx, "acme", "anna", code))
	}
	for _, code := range codes.Show() {
		require.Regexp(t, `^([A-Z2-7]{4}-){5}[A-Z2-7]{4}$`, code)
		requireRefused(t, ReasonMalformed, r.Verify(ctx, "acme", "anna", code))
		require.NoError(t, r.Recover(ctx, "acme", "anna", code))
	}
	status, err = r.Status(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Zero(t, status.Recovery)

	codes, err = r.ReplaceRecovery(ctx, "acme", "anna")
	require.NoError(t, err)
	r.enrolled(t, "boris")
	requireRefused(t, ReasonWrong, r.Recover(ctx, "acme", "boris", codes.Show()[0]))
	require.NoError(t, r.Remove(ctx, "acme", "anna", p.id))
	requireRefused(t, ReasonAbsent, r.Recover(ctx, "acme", "anna", codes.Show()[0]))
	status, err = r.Status(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, Status{}, status, "recovery codes go with the last app")
}

func TestRevoke(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	p := r.enrolled(t, "anna")
	codes, err := r.ReplaceRecovery(ctx, "acme", "anna")
	require.NoError(t, err)
	bystander := r.enrolled(t, "boris")
	for _, want := range []int{11, 0} {
		revoked, err := r.Revoke(ctx, "acme", "anna")
		require.NoError(t, err)
		require.Equal(t, crmguard.Revoked{What: "factors", Count: want}, revoked)
	}
	requireRefused(t, ReasonAbsent, r.Verify(ctx, "acme", "anna", p.code(t)))
	requireRefused(t, ReasonAbsent, r.Recover(ctx, "acme", "anna", codes.Show()[0]))
	require.NoError(t, r.Verify(ctx, "acme", "boris", bystander.code(t)))
	revoked, err := r.Revoke(ctx, "acme", "nobody")
	require.NoError(t, err)
	require.Zero(t, revoked.Count)
	require.NotContains(t, r.store.persons, personKey{"acme", "nobody"})
	r.enrolled(t, "anna")
}

// One budget for apps and recovery codes, and a pause that ends.
func TestBudgetIsOneForAllFactors(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	p := r.enrolled(t, "anna")
	codes, err := r.ReplaceRecovery(ctx, "acme", "anna")
	require.NoError(t, err)
	for range 3 {
		requireRefused(t, ReasonWrong, r.Verify(ctx, "acme", "anna", wrong(t, p)))
	}
	for range 2 {
		requireRefused(t, ReasonWrong, r.Recover(ctx, "acme", "anna", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA"))
	}
	requireRefused(t, ReasonPaused, r.Verify(ctx, "acme", "anna", p.code(t)))
	requireRefused(t, ReasonPaused, r.Recover(ctx, "acme", "anna", codes.Show()[0]))
	r.clock.Advance(time.Second)
	require.NoError(t, r.Verify(ctx, "acme", "anna", p.code(t)))

	// Enrolling and other changes do not wash it away.
	r.clock.Advance(time.Second)
	requireRefused(t, ReasonWrong, r.Recover(ctx, "acme", "anna", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA"))
	_, err = r.ReplaceRecovery(ctx, "acme", "anna")
	require.NoError(t, err)
	r.enrol(t, "anna")
	requireRefused(t, ReasonPaused, r.Verify(ctx, "acme", "anna", p.code(t)))
}

// What is not six digits cannot be guessing.
func TestMalformedCodesAreNotCounted(t *testing.T) {
	r := newRig(t)
	p := r.enrolled(t, "anna")
	for range 20 {
		requireRefused(t, ReasonMalformed, r.Verify(t.Context(), "acme", "anna", "12345"))
		requireRefused(t, ReasonMalformed, r.Recover(t.Context(), "acme", "anna", "123456"))
	}
	require.NoError(t, r.Verify(t.Context(), "acme", "anna", p.code(t)))
}

func TestForeignTenantIsRefused(t *testing.T) {
	r := newRig(t)
	p := r.enrolled(t, "anna")
	for name, ctx := range map[string]context.Context{
		"subject of another tenant": crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "other", ID: "anna", Kind: crmguard.KindEmployee}),
		"incomplete subject":        crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme"}),
	} {
		_, enrolErr := r.Enrol(ctx, "acme", "anna", "anna")
		_, recoveryErr := r.ReplaceRecovery(ctx, "acme", "anna")
		_, hasErr := r.Has(ctx, "acme", "anna")
		_, statusErr := r.Status(ctx, "acme", "anna")
		_, revokeErr := r.Revoke(ctx, "acme", "anna")
		for _, err := range []error{
			enrolErr, recoveryErr, hasErr, statusErr, revokeErr,
			r.Confirm(ctx, "acme", "anna", p.id, p.code(t)), r.Verify(ctx, "acme", "anna", p.code(t)),
			r.Recover(ctx, "acme", "anna", "AAAA"), r.Remove(ctx, "acme", "anna", p.id),
		} {
			require.Error(t, err, name)
			denial, denied := errors.AsType[*crmguard.Denial](err)
			require.False(t, denied && denial.By == "mfa", "%s: %v", name, err)
		}
	}
	for _, names := range [][2]string{{"", "anna"}, {"acme", ""}, {"a\x00", "anna"}, {"acme", "\xff"}, {"acme", string(make([]byte, 300))}} {
		require.Error(t, r.Verify(t.Context(), names[0], names[1], p.code(t)))
	}
	requireRefused(t, ReasonAbsent, r.Verify(t.Context(), "other", "anna", p.code(t)))
}

func TestNewRefuses(t *testing.T) {
	keys := crmguardtest.NewKeys()
	_, err := New(nil, keys, "Acme", nil)
	require.Error(t, err)
	_, err = New(NewMemory(), nil, "Acme", nil)
	require.Error(t, err)
	for _, issuer := range []string{"", "Acme: CRM", "Acme+", "\xff", "a\x00b"} {
		_, err = New(NewMemory(), keys, issuer, nil)
		require.Error(t, err, issuer)
	}
	_, err = New(NewMemory(), keys, "Акме & Söhne / 100%", nil)
	require.NoError(t, err)
}

func reasonOf(err error) string {
	if denial, ok := errors.AsType[*crmguard.Denial](err); ok {
		return denial.Detail
	}
	return ""
}
