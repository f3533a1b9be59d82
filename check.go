package crmguard

import (
	"context"
	"time"
)

// Checker decides whether s may do a to r.
//
//  1. nil means yes.
//  2. A *[Denial], possibly wrapped, means no.
//  3. Any other error means that it could not be decided; the caller treats that as no.
//  4. Check is safe for concurrent use and changes none of its arguments.
type Checker interface {
	Check(ctx context.Context, s Subject, a Action, r Resource) error
}

// CheckerFunc makes a function a [Checker].
type CheckerFunc func(ctx context.Context, s Subject, a Action, r Resource) error

// Check calls f.
func (f CheckerFunc) Check(ctx context.Context, s Subject, a Action, r Resource) error {
	return f(ctx, s, a, r)
}

// DenialStatus says what kind of no a [Denial] is. The zero value is a plain no.
type DenialStatus uint8

// The kinds of no.
const (
	Forbidden       DenialStatus = iota // not this subject
	Unauthenticated                     // nobody is signed in, or no longer
	StepUp                              // not without Need, proved at most MaxAge ago
	Exhausted                           // a norm is used up; again after RetryAfter
	Closed                              // the CRM or this part of it is closed
)

// Denial is a decided no. It is an error, so that a Checker can return it.
type Denial struct {
	By     string // package that decided, such as "rbac"
	Code   string // stable word for programs, such as "no-rule"
	Status DenialStatus

	Need       Assurance     // for StepUp
	MaxAge     time.Duration // for StepUp; 0: any age
	RetryAfter time.Duration // for Exhausted and Closed; 0: unknown

	Detail string // for the journal only, never shown to the subject
}

// Error names who denied and why, without Detail.
func (d *Denial) Error() string { return "crmguard: denied by " + d.By + ": " + d.Code }
