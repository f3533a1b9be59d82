// Package crmguardtest has stand-ins for the interfaces of package crmguard, for
// tests of hosts: keys that live in memory ([Keys]), a journal that is a slice
// ([Recorder]), rights that are a list ([Checker]), and a clock that moves when
// told to ([Clock]).
//
//	clock   := crmguardtest.NewClock(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
//	keys    := crmguardtest.NewKeys()
//	journal := crmguardtest.NewRecorder()
//	rights  := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts")
//
//	sessions, err := session.New(session.NewMemory(), keys, &session.Options{Clock: clock.Now})
//	...
//	journal.Fail(errors.New("disk full")) // what does the host do now?
//
// They keep the rules that the real ones keep: a place is bound to what is
// sealed there, a client's data needs a subject to be opened, an empty tenant is
// refused, an event is recorded once per tenant, ID and outcome, and one that the
// real journal would refuse is refused.
//
// # Security notes
//
// Not for production: keys are lost with the process, and nothing is durable.
package crmguardtest

import (
	"sync"
	"time"
)

// Clock is a clock that stands still until it is advanced.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that shows now.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now returns what the clock shows; hand it over as an option named Clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock, backwards if d is negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
