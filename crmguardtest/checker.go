package crmguardtest

import (
	"context"
	"slices"
	"sync"

	"github.com/crmguard/crmguard"
)

var _ crmguard.Checker = (*Checker)(nil)

// Call is one question that a [Checker] was asked.
type Call struct {
	Subject  crmguard.Subject
	Action   crmguard.Action
	Resource crmguard.Resource
}

// Checker allows what it was told to allow, refuses the rest, and remembers what
// it was asked. Make one with [NewChecker].
type Checker struct {
	mu      sync.Mutex
	allowed map[right]bool
	calls   []Call
}

type right struct {
	subject string
	action  crmguard.Action
	kind    string
}

// NewChecker returns a checker that allows nothing yet.
func NewChecker() *Checker { return &Checker{allowed: map[right]bool{}} }

// Allow lets the subject with this ID do a to every resource of a kind, in its
// own tenant. It returns c, so that calls can be chained.
func (c *Checker) Allow(subject string, a crmguard.Action, kind string) *Checker {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allowed[right{subject, a, kind}] = true
	return c
}

// Check allows what is listed; the rest is a [crmguard.Denial] by "crmguardtest".
func (c *Checker) Check(_ context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, Call{s, a, r})
	if err := crmguard.CheckTenant(s, r.Tenant); err != nil {
		return err
	}
	if !c.allowed[right{s.ID, a, r.Kind}] {
		return denial("not-listed")
	}
	return nil
}

// Calls returns what was asked, oldest first.
func (c *Checker) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Allow returns a checker that says yes to every complete subject in its own
// tenant.
func Allow() crmguard.Checker {
	return crmguard.CheckerFunc(func(_ context.Context, s crmguard.Subject, _ crmguard.Action, r crmguard.Resource) error {
		return crmguard.CheckTenant(s, r.Tenant)
	})
}

// Deny returns a checker that always says no, with a code of the caller's.
func Deny(code string) crmguard.Checker {
	return crmguard.CheckerFunc(func(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error {
		return denial(code)
	})
}

func denial(code string) *crmguard.Denial {
	return &crmguard.Denial{By: "crmguardtest", Code: code, Status: crmguard.Forbidden}
}
