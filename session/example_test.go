package session_test

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/session"
)

func ExampleManager_Raise() {
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
	before, err := sessions.Start(ctx, crmguard.Subject{
		Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, Assurance: crmguard.AssurancePassword,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// Anna wants to export; package mfa has just accepted a code of her app.
	token, err := sessions.Raise(ctx, before, crmguard.AssuranceSecondFactor)
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := sessions.Authenticate(ctx, token)
	fmt.Println(s.Assurance, err)
	_, err = sessions.Authenticate(ctx, before)
	fmt.Println(err)
	// Output:
	// second-factor <nil>
	// crmguard: denied by session: unknown-session
}

func ExampleManager_LockDown() {
	ctx := context.Background()
	sessions, err := session.New(session.NewMemory(), crmguardtest.NewKeys(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sessions.LockedDown(ctx, "acme"))
	fmt.Println(sessions.Reopen(ctx, "acme")) // once, when the tenant is set up
	fmt.Println(sessions.LockedDown(ctx, "acme"))
	fmt.Println(sessions.LockDown(ctx, "acme")) // somebody presses the switch
	fmt.Println(sessions.LockedDown(ctx, "acme"))
	// Output:
	// true <nil>
	// <nil>
	// false <nil>
	// <nil>
	// true <nil>
}
