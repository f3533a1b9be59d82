package crmguard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func anna() crmguard.Subject {
	return crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}
}

func TestCheckTenant(t *testing.T) {
	require.NoError(t, crmguard.CheckTenant(anna(), "acme"))
	for name, s := range map[string]crmguard.Subject{
		"zero":      {},
		"no tenant": {ID: "anna", Kind: crmguard.KindEmployee},
		"no ID":     {Tenant: "acme", Kind: crmguard.KindEmployee},
		"no kind":   {Tenant: "acme", ID: "anna"},
		"bad kind":  {Tenant: "acme", ID: "anna", Kind: crmguard.KindSystem + 1},
	} {
		require.Error(t, crmguard.CheckTenant(s, s.Tenant), name)
	}
	d, ok := errors.AsType[*crmguard.Denial](crmguard.CheckTenant(anna(), ""))
	require.True(t, ok, "a decided no")
	require.Equal(t, "tenant", d.Code)
	require.Error(t, crmguard.CheckTenant(anna(), "ACME"))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = crmguard.CheckTenant(anna(), "acme") }))
}

// CheckSubject says what CheckTenant says, without a copy.
func TestCheckSubject(t *testing.T) {
	ok, err := crmguard.CheckSubject(t.Context(), "acme")
	require.False(t, ok)
	require.NoError(t, err)
	for _, s := range []crmguard.Subject{
		anna(), {}, {ID: "anna", Kind: crmguard.KindEmployee}, {Tenant: "acme", Kind: crmguard.KindEmployee},
		{Tenant: "acme", ID: "anna"}, {Tenant: "acme", ID: "anna", Kind: crmguard.KindSystem + 1},
	} {
		for _, tenant := range []string{"", "acme", "other"} {
			ok, err := crmguard.CheckSubject(crmguard.WithSubject(t.Context(), s), tenant)
			require.True(t, ok)
			require.Equal(t, crmguard.CheckTenant(s, tenant), err, "%+v %s", s, tenant)
		}
	}
}

func TestSubjectTravelsInTheContext(t *testing.T) {
	_, ok := crmguard.SubjectFrom(t.Context())
	require.False(t, ok)
	ctx := crmguard.WithSubject(t.Context(), anna())
	s, ok := crmguard.SubjectFrom(ctx)
	require.True(t, ok)
	require.Equal(t, anna(), s)

	s, ok = crmguard.SubjectFrom(crmguard.System(ctx, "acme", "import"))
	require.True(t, ok)
	require.Equal(t, crmguard.KindSystem, s.Kind)
	require.Equal(t, "system:import", s.ID)
	require.NoError(t, crmguard.CheckTenant(s, "acme"))
}

func TestActRemembersWhatItOpened(t *testing.T) {
	require.Nil(t, crmguard.ActFrom(t.Context()))
	var none *crmguard.Act
	none.MarkOpened("c1")
	require.False(t, none.Opened("c1"), "no act, no memory")

	ctx := crmguard.WithAct(t.Context(), crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1"})
	act := crmguard.ActFrom(ctx)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { act.MarkOpened(fmt.Sprint("c", i)); act.Opened("c1") })
	}
	wg.Wait()
	require.True(t, crmguard.ActFrom(ctx).Opened("c49"))

	inner := crmguard.WithAct(ctx, crmguard.Reveal, act.Resource)
	require.False(t, crmguard.ActFrom(inner).Opened("c1"), "another act counts for itself")
}

// What was opened for one person was not opened for another, nor for a job.
func TestActBelongsToItsSubject(t *testing.T) {
	contact := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1"}
	ctx := crmguard.WithAct(crmguard.WithSubject(t.Context(), anna()), crmguard.View, contact)
	crmguard.ActFrom(ctx).MarkOpened("c1")
	require.True(t, crmguard.ActFrom(crmguard.WithSubject(ctx, anna())).Opened("c1"))
	boris := anna()
	boris.ID = "boris"
	require.Nil(t, crmguard.ActFrom(crmguard.WithSubject(ctx, boris)))
	foreign := anna()
	foreign.Tenant = "other"
	require.Nil(t, crmguard.ActFrom(crmguard.WithSubject(ctx, foreign)))
	require.Nil(t, crmguard.ActFrom(crmguard.System(ctx, "acme", "job")))
	unbound := crmguard.WithAct(t.Context(), crmguard.View, contact)
	require.Nil(t, crmguard.ActFrom(crmguard.WithSubject(unbound, anna())), "declared for nobody")
}

func TestAssuranceNames(t *testing.T) {
	for _, level := range []crmguard.Assurance{
		crmguard.AssuranceNone, crmguard.AssuranceRecovered, crmguard.AssurancePassword,
		crmguard.AssuranceOutOfBand, crmguard.AssuranceSecondFactor, crmguard.AssurancePhishingResistant,
	} {
		text, err := json.Marshal(level)
		require.NoError(t, err)
		var back crmguard.Assurance
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, level, back)
	}
	_, err := json.Marshal(crmguard.Assurance(7))
	require.Error(t, err)
	var a crmguard.Assurance
	require.Error(t, json.Unmarshal([]byte(`"root"`), &a))
	require.Error(t, json.Unmarshal([]byte(`30`), &a), "a number is no name")
	require.Equal(t, "Assurance(7)", crmguard.Assurance(7).String())
	require.Less(t, crmguard.AssurancePassword, crmguard.AssuranceOutOfBand)
}

// A value must not get out through any of the usual ways of printing.
func TestPrivateRedactsItself(t *testing.T) {
	e := crmguard.Event{Private: []crmguard.Private{{Client: "c1", Name: "phone", Value: []byte("+79161234567")}}}
	asJSON, err := json.Marshal(e)
	require.NoError(t, err)
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("x", "event", e, "private", e.Private[0])
	value := fmt.Sprint([]byte("+79161234567")) // %v of the bytes
	for _, text := range []string{
		string(asJSON), log.String(),
		fmt.Sprint(e), fmt.Sprintf("%v", e.Private), fmt.Sprintf("%+v", e), fmt.Sprintf("%#v", e), fmt.Sprintf("%d %x %o %q", e.Private[0], e.Private[0], e.Private, e.Private[0]),
	} {
		require.NotContains(t, text, "79161234567")
		require.NotContains(t, text, value)
		require.NotContains(t, text, "Kzc5MTYxMjM0NTY3", "base64")
	}
	require.Contains(t, log.String(), "phone")
}

func TestDenialIsAnError(t *testing.T) {
	d := &crmguard.Denial{By: "rbac", Code: "no-rule", Detail: "owner is boris"}
	wrapped := fmt.Errorf("page: %w", d)
	got, ok := errors.AsType[*crmguard.Denial](wrapped)
	require.True(t, ok)
	require.Same(t, d, got)
	require.NotContains(t, wrapped.Error(), "boris")
	require.Equal(t, "Outcome(9)", crmguard.Outcome(9).String())
	require.Equal(t, "integration", crmguard.KindIntegration.String())
	require.Equal(t, "SubjectKind(0)", crmguard.SubjectKind(0).String())

	odd, err := json.Marshal(crmguard.Private{Name: "a\x01\"b"})
	require.NoError(t, err)
	require.Contains(t, string(odd), "redacted")
}

func Example() {
	// A host's main wires the packages; here the checker is written by hand.
	ownOnly := crmguard.CheckerFunc(func(_ context.Context, s crmguard.Subject, _ crmguard.Action, r crmguard.Resource) error {
		if err := crmguard.CheckTenant(s, r.Tenant); err != nil {
			return err
		}
		if r.Owner != s.ID {
			return &crmguard.Denial{By: "example", Code: "not-yours"}
		}
		return nil
	})
	contact := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17", Owner: "boris"}
	err := ownOnly.Check(context.Background(), anna(), crmguard.View, contact)
	if denial, ok := errors.AsType[*crmguard.Denial](err); ok {
		fmt.Println(denial.By, denial.Code)
	}
	// Output: example not-yours
}
