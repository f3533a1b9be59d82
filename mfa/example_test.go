package mfa_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/mfa"
)

// code is what the person's app shows.
func code(t testing.TB, e *mfa.Enrolment, now time.Time) string {
	c, err := totp.GenerateCode(e.Secret(), now)
	require.NoError(t, err)
	return c
}

func Example() {
	ctx := context.Background()
	clock := crmguardtest.NewClock(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
	factors, err := mfa.New(mfa.NewMemory(), crmguardtest.NewKeys(), "Acme CRM", &mfa.Options{Clock: clock.Now})
	if err != nil {
		fmt.Println(err)
		return
	}
	enrolment, err := factors.Enrol(ctx, "acme", "anna", "anna@acme.example")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("in a log:", enrolment)
	shows := func() string { // what Anna's app shows
		code, _ := totp.GenerateCode(enrolment.Secret(), clock.Now())
		return code
	}
	fmt.Println("confirm:", factors.Confirm(ctx, "acme", "anna", enrolment.ID, shows()))

	clock.Advance(30 * time.Second)
	code := shows()
	fmt.Println("verify:", factors.Verify(ctx, "acme", "anna", code[:3]+" "+code[3:]))
	err = factors.Verify(ctx, "acme", "anna", code)
	fmt.Println("again:", err)
	if denial, ok := errors.AsType[*crmguard.Denial](err); ok {
		fmt.Println("for the journal:", denial.Detail)
	}
	// Output:
	// in a log: [redacted]
	// confirm: <nil>
	// verify: <nil>
	// again: crmguard: denied by mfa: refused
	// for the journal: used-code
}

func ExampleFactors_Recover() {
	ctx := context.Background()
	factors, err := mfa.New(mfa.NewMemory(), crmguardtest.NewKeys(), "Acme CRM", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	enrolment, err := factors.Enrol(ctx, "acme", "anna", "anna@acme.example")
	if err != nil {
		fmt.Println(err)
		return
	}
	code, err := totp.GenerateCode(enrolment.Secret(), time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := factors.Confirm(ctx, "acme", "anna", enrolment.ID, code); err != nil {
		fmt.Println(err)
		return
	}
	codes, err := factors.ReplaceRecovery(ctx, "acme", "anna")
	if err != nil {
		fmt.Println(err)
		return
	}
	onPaper := codes.Show()
	fmt.Println(len(onPaper), "codes, in a log:", codes)
	fmt.Println(factors.Recover(ctx, "acme", "anna", onPaper[0])) // proves crmguard.AssuranceRecovered
	fmt.Println(factors.Recover(ctx, "acme", "anna", onPaper[0]))
	// Output:
	// 10 codes, in a log: [redacted]
	// <nil>
	// crmguard: denied by mfa: refused
}

func ExampleStepUp() {
	clock := crmguardtest.NewClock(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
	stepUp, err := mfa.NewStepUp([]mfa.Rule{
		{Action: crmguard.Export, Kind: "contacts", Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	}, &mfa.Options{Clock: clock.Now})
	if err != nil {
		fmt.Println(err)
		return
	}
	anna := crmguard.Subject{
		Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee,
		Assurance: crmguard.AssuranceSecondFactor, AuthenticatedAt: clock.Now(),
	}
	contacts := crmguard.Resource{Tenant: "acme", Kind: "contacts"}
	fmt.Println(stepUp.Check(context.Background(), anna, crmguard.Export, contacts))
	clock.Advance(6 * time.Minute)
	err = stepUp.Check(context.Background(), anna, crmguard.Export, contacts)
	if denial, ok := errors.AsType[*crmguard.Denial](err); ok {
		fmt.Println(denial.Code, denial.Need, denial.MaxAge)
	}
	// Output:
	// <nil>
	// step-up second-factor 5m0s
}
