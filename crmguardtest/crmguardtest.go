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
// refused, an event is recorded once per ID and outcome.
//
// # Security notes
//
// Not for production: keys are lost with the process, and nothing is durable.
package crmguardtest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
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

var _ crmguard.Recorder = (*Recorder)(nil)

var errEvent = errors.New("crmguardtest: event without tenant or outcome")

// Recorder keeps events in memory. Make one with [NewRecorder].
type Recorder struct {
	mu     sync.Mutex
	events []crmguard.Event
	seen   map[eventKey]bool
	fail   error
}

type eventKey struct {
	id      string
	outcome crmguard.Outcome
}

// NewRecorder returns a recorder without events.
func NewRecorder() *Recorder { return &Recorder{seen: map[eventKey]bool{}} }

// Record keeps e, once per ID and outcome; an event without an ID gets one.
func (r *Recorder) Record(_ context.Context, e crmguard.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	if e.Resource.Tenant == "" || e.Outcome < crmguard.Attempted || e.Outcome > crmguard.Undecided {
		return errEvent
	}
	if e.ID == "" {
		e.ID = rand.Text()
	}
	key := eventKey{e.ID, e.Outcome}
	if !r.seen[key] {
		r.seen[key] = true
		r.events = append(r.events, e)
	}
	return nil
}

// Fail makes every later Record return err and keep nothing; nil ends that.
func (r *Recorder) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// Events returns what was recorded, oldest first.
func (r *Recorder) Events() []crmguard.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}
