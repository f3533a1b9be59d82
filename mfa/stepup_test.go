package mfa_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/mfa"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func subject(a crmguard.Assurance, at time.Time) crmguard.Subject {
	return crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, Assurance: a, AuthenticatedAt: at}
}

var contacts = crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17"}

func TestStepUp(t *testing.T) {
	clock := crmguardtest.NewClock(noon)
	u, err := mfa.NewStepUp([]mfa.Rule{
		{Action: crmguard.Export, Need: crmguard.AssurancePassword},
		{Action: crmguard.Export, Kind: "contacts", Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
		{Action: crmguard.Reveal, Kind: "contacts", Need: crmguard.AssuranceSecondFactor, MaxAge: time.Hour},
		{Action: crmguard.Reveal, Kind: "contacts", Need: crmguard.AssurancePassword, MaxAge: time.Minute},
	}, &mfa.Options{Clock: clock.Now})
	require.NoError(t, err)
	second := crmguard.AssuranceSecondFactor
	for name, tc := range map[string]struct {
		subject crmguard.Subject
		action  crmguard.Action
		kind    string
		need    crmguard.Assurance // 0: passes
		maxAge  time.Duration
	}{
		"no rule":                         {subject(0, time.Time{}), crmguard.View, "contacts", 0, 0},
		"fresh":                           {subject(second, noon), crmguard.Export, "contacts", 0, 0},
		"surer than needed":               {subject(crmguard.AssurancePhishingResistant, noon), crmguard.Export, "contacts", 0, 0},
		"at the last moment":              {subject(second, noon.Add(-5*time.Minute)), crmguard.Export, "contacts", 0, 0},
		"a moment later":                  {subject(second, noon.Add(-5*time.Minute-1)), crmguard.Export, "contacts", second, 5 * time.Minute},
		"not sure enough":                 {subject(crmguard.AssuranceOutOfBand, noon), crmguard.Export, "contacts", second, 5 * time.Minute},
		"recovered":                       {subject(crmguard.AssuranceRecovered, noon), crmguard.Export, "contacts", second, 5 * time.Minute},
		"a time that is not known":        {subject(second, time.Time{}), crmguard.Export, "contacts", second, 5 * time.Minute},
		"another node's clock":            {subject(second, noon.Add(time.Minute)), crmguard.Export, "contacts", 0, 0},
		"a proof of the future":           {subject(second, noon.Add(time.Minute+1)), crmguard.Export, "contacts", second, 5 * time.Minute},
		"every kind":                      {subject(crmguard.AssurancePassword, time.Time{}), crmguard.Export, "deals", 0, 0},
		"every kind, not sure enough":     {subject(crmguard.AssuranceRecovered, noon), crmguard.Export, "deals", crmguard.AssurancePassword, 0},
		"two rules, the stricter of each": {subject(second, noon.Add(-2*time.Minute)), crmguard.Reveal, "contacts", second, time.Minute},
		"two rules, both met":             {subject(second, noon.Add(-time.Minute)), crmguard.Reveal, "contacts", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			err := u.Check(t.Context(), tc.subject, tc.action, crmguard.Resource{Tenant: "acme", Kind: tc.kind})
			if tc.need == 0 {
				require.NoError(t, err)
				return
			}
			denial, ok := errors.AsType[*crmguard.Denial](err)
			require.True(t, ok)
			require.Equal(t, crmguard.Denial{By: "mfa", Code: "step-up", Status: crmguard.StepUp, Need: tc.need, MaxAge: tc.maxAge}, *denial)
		})
	}
}

// However often somebody acts, the proof grows old.
func TestWindowDoesNotSlide(t *testing.T) {
	clock := crmguardtest.NewClock(noon)
	u, err := mfa.NewStepUp([]mfa.Rule{{Action: crmguard.Export, Need: crmguard.AssuranceSecondFactor, MaxAge: time.Minute}}, &mfa.Options{Clock: clock.Now})
	require.NoError(t, err)
	s := subject(crmguard.AssuranceSecondFactor, noon)
	for range 6 {
		require.NoError(t, u.Check(t.Context(), s, crmguard.Export, contacts))
		clock.Advance(10 * time.Second)
	}
	clock.Advance(time.Second)
	require.Error(t, u.Check(t.Context(), s, crmguard.Export, contacts))
	clock.Advance(-time.Hour)
	require.Error(t, u.Check(t.Context(), s, crmguard.Export, contacts), "a clock that was set back makes nothing fresh")
}

func TestWhoStepsUp(t *testing.T) {
	u, err := mfa.NewStepUp([]mfa.Rule{{Action: crmguard.Export, Need: crmguard.AssuranceSecondFactor}}, nil)
	require.NoError(t, err)
	integration := subject(crmguard.AssuranceNone, time.Time{})
	integration.Kind = crmguard.KindIntegration
	require.Error(t, u.Check(t.Context(), integration, crmguard.Export, contacts))
	job, ok := crmguard.SubjectFrom(crmguard.System(t.Context(), "acme", "backup"))
	require.True(t, ok)
	require.NoError(t, u.Check(t.Context(), job, crmguard.Export, contacts))
	for name, s := range map[string]crmguard.Subject{
		"nobody":              {},
		"of another tenant":   {Tenant: "other", ID: "anna", Kind: crmguard.KindSystem},
		"of no known kind":    {Tenant: "acme", ID: "anna", Kind: 9, Assurance: 40},
		"a job of no tenant":  {ID: "system:x", Kind: crmguard.KindSystem},
		"without an identity": {Tenant: "acme", Kind: crmguard.KindSystem},
	} {
		require.Error(t, u.Check(t.Context(), s, crmguard.Export, contacts), name)
		require.Error(t, u.Check(t.Context(), s, crmguard.View, contacts), name)
	}
}

func TestNewStepUpRefuses(t *testing.T) {
	good := mfa.Rule{Action: crmguard.Export, Need: crmguard.AssuranceSecondFactor}
	for name, rules := range map[string][]mfa.Rule{
		"no rules":          nil,
		"no action":         {good, {Need: crmguard.AssuranceSecondFactor}},
		"nothing needed":    {{Action: crmguard.Export, MaxAge: time.Minute}},
		"unknown assurance": {{Action: crmguard.Export, Need: 31}},
		"negative age":      {{Action: crmguard.Export, Need: crmguard.AssuranceSecondFactor, MaxAge: -1}},
	} {
		_, err := mfa.NewStepUp(rules, nil)
		require.Error(t, err, name)
	}
}

func TestStepUpDoesNotAllocate(t *testing.T) {
	u, err := mfa.NewStepUp([]mfa.Rule{{Action: crmguard.Export, Need: crmguard.AssuranceSecondFactor, MaxAge: time.Minute}}, nil)
	require.NoError(t, err)
	s, ctx := subject(crmguard.AssuranceSecondFactor, time.Now()), t.Context()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if u.Check(ctx, s, crmguard.Export, contacts) != nil {
			t.Fail()
		}
	}))
}

func BenchmarkStepUp(b *testing.B) {
	u, err := mfa.NewStepUp([]mfa.Rule{{Action: crmguard.Export, Need: crmguard.AssuranceSecondFactor, MaxAge: 24 * time.Hour}}, nil)
	require.NoError(b, err)
	s := subject(crmguard.AssuranceSecondFactor, time.Now())
	b.ReportAllocs()
	for b.Loop() {
		if err := u.Check(b.Context(), s, crmguard.Export, contacts); err != nil {
			b.Fatal(err)
		}
	}
}
