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
	errLarge   = errors.New("crmguardtest: an event holds at most 64 KiB")
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
// itself, and one of more than 64 KiB.
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
	if size(e) > 64<<10 {
		return "", errLarge
	}
	return tenant, nil
}

// size is about what the event takes in the journal.
func size(e *crmguard.Event) int {
	s, r := &e.Subject, &e.Resource
	n := 0
	for _, texts := range [][]string{
		{e.ID, string(e.Action), e.Reason, e.Request, e.Policy},
		{s.Tenant, s.ID, s.OnBehalfOf, s.Session, s.Device},
		{r.Tenant, r.Kind, r.ID, r.Field, r.Owner, r.Unit},
		e.Fields, s.Roles, s.Units, s.Scopes,
	} {
		for _, text := range texts {
			n += len(text)
		}
	}
	for _, p := range e.Private {
		n += len(p.Client) + len(p.Name) + len(p.Value)
	}
	return n
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
