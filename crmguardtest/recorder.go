package crmguardtest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"

	"github.com/crmguard/crmguard"
)

var _ crmguard.Recorder = (*Recorder)(nil)

var (
	errEvent   = errors.New("crmguardtest: an event needs an action, an outcome and a count that is not negative")
	errTenant  = errors.New("crmguardtest: an event needs a tenant, and one that is done the same for subject and resource")
	errSubject = errors.New("crmguardtest: an event needs a subject with ID and kind; only a refused or failed one may lack it")
	errPrivate = errors.New("crmguardtest: an event holds at most 256 private values, of clients whose ids have at most 1024 bytes")
)

// Recorder keeps events in memory, those that audit.Log would take. Make one with
// [NewRecorder].
type Recorder struct {
	mu     sync.Mutex
	events []crmguard.Event
	seen   map[eventKey]bool
	fail   error
}

type eventKey struct {
	tenant, id string
	outcome    crmguard.Outcome
}

// NewRecorder returns a recorder without events.
func NewRecorder() *Recorder { return &Recorder{seen: map[eventKey]bool{}} }

// Record keeps e, once per tenant, ID and outcome; an event without an ID gets
// one. It refuses what the journal refuses: an event without action, outcome or
// tenant, one of an incomplete subject or of two tenants that was not refused
// itself, and one of very many private values or with an excessive id of a client.
func (r *Recorder) Record(_ context.Context, e crmguard.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	tenant, err := check(&e)
	if err != nil {
		return err
	}
	if e.ID == "" {
		e.ID = rand.Text()
	}
	key := eventKey{tenant, e.ID, e.Outcome}
	if !r.seen[key] {
		r.seen[key] = true
		r.events = append(r.events, e)
	}
	return nil
}

// check returns the tenant in whose journal the event belongs.
func check(e *crmguard.Event) (tenant string, err error) {
	if e.Action == "" || e.Outcome < crmguard.Attempted || e.Outcome > crmguard.Undecided || e.Count < 0 {
		return "", errEvent
	}
	refused := e.Outcome >= crmguard.Denied
	s := &e.Subject
	tenant = s.Tenant
	if tenant == "" && refused {
		tenant = e.Resource.Tenant
	}
	if tenant == "" || e.Resource.Tenant != tenant && !refused {
		return "", errTenant
	}
	complete := s.ID != "" && s.Kind >= crmguard.KindEmployee
	stranger := s.ID == "" && refused
	if s.Kind > crmguard.KindSystem || !complete && !stranger {
		return "", errSubject
	}
	if len(e.Private) > 256 || slices.ContainsFunc(e.Private, func(p crmguard.Private) bool { return len(p.Client) > 1024 }) {
		return "", errPrivate
	}
	return tenant, nil
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
