package guard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
)

// Loader finds what a request is about, in the server's own data: tenant, owner
// and department never come from the request. For a record that does not exist
// it returns [ErrNotFound], with the resource's tenant and kind.
type Loader func(r *http.Request) (crmguard.Resource, error)

// HandlerFunc does the act of a request. Nil means that it was done. It writes
// nothing before it knows that it will return nil; an error becomes the answer.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// ErrNotFound is what a [Loader] returns for a record that does not exist, and
// what is answered for one that the subject may not see.
var ErrNotFound = errors.New("guard: not found")

// outcomeTimeout bounds how long an outcome may take to be recorded. Outcomes
// are recorded even when the client has gone away.
const outcomeTimeout = 10 * time.Second

// draft is the event of an act that is under way.
type draft struct {
	mu      sync.Mutex
	event   crmguard.Event
	settled bool
}

type draftKey struct{}

// Describe adds to the event of the act in ctx what only the host knows: Fields,
// Count, Reason and Private. A loader describes the intent, a handler the
// outcome. Changes to other parts of the event are ignored.
func Describe(ctx context.Context, add func(e *crmguard.Event)) {
	d, ok := ctx.Value(draftKey{}).(*draft)
	if !ok {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	described := d.event
	add(&described)
	d.event.Fields, d.event.Count = described.Fields, described.Count
	d.event.Reason, d.event.Private = described.Reason, described.Private
}

// Settle returns the Done event of the act in ctx for a handler that records it
// itself, in the transaction of the change. The guard then records no Done; if
// the handler returns an error all the same, it records Failed.
func Settle(ctx context.Context) crmguard.Event {
	d, ok := ctx.Value(draftKey{}).(*draft)
	if !ok {
		return crmguard.Event{} // has no outcome, so recorders refuse it
	}
	d.mu.Lock()
	d.settled = true
	d.mu.Unlock()
	e := d.take()
	e.Outcome = crmguard.Done
	return e
}

// take returns a copy of the event as it is described so far.
func (d *draft) take() crmguard.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.event
}

// draft starts the event of an act.
func (g *Guard) draft(ctx context.Context, a crmguard.Action) (context.Context, *draft, error) {
	s, err := g.subject(ctx)
	if err != nil {
		return ctx, nil, err
	}
	d := &draft{event: crmguard.Event{
		ID:      rand.Text(),
		Time:    g.o.Clock(),
		Subject: s,
		Action:  a,
		Request: RequestID(ctx),
	}}
	if versioned, ok := g.rights.(interface{ Version() string }); ok {
		d.event.Policy = versioned.Version()
	}
	return context.WithValue(ctx, draftKey{}, d), d, nil
}

// Do decides, records durably that the act is about to be done, does it, and
// records how it ended. When Attempted cannot be recorded, the act is not done;
// when the outcome cannot, the journal shows an act whose outcome is unknown.
func (g *Guard) Do(ctx context.Context, a crmguard.Action, r crmguard.Resource, act func(ctx context.Context) error) error {
	ctx, d, err := g.draft(ctx, a)
	if err != nil {
		return err
	}
	d.event.Resource = r
	return g.do(ctx, d, act)
}

func (g *Guard) do(ctx context.Context, d *draft, act func(ctx context.Context) error) error {
	if err := g.permit(ctx, d); err != nil {
		return err
	}
	e := d.take()
	e.Outcome = crmguard.Attempted
	if err := g.journal.Record(ctx, e); err != nil {
		return fmt.Errorf("%w: %w", errUndecided, err)
	}
	Describe(ctx, func(e *crmguard.Event) { e.Private = nil }) // the journal has them now
	return g.perform(ctx, d, true, act)
}

// perform runs the act and records its outcome: Failed always, Done if wanted
// and not settled by the act itself.
func (g *Guard) perform(ctx context.Context, d *draft, recordDone bool, act func(ctx context.Context) error) (err error) {
	finished := false
	defer func() {
		e := d.take()
		switch {
		case !finished: // the act panics through here
			e.Outcome, e.Reason = crmguard.Failed, "panic"
		case err != nil:
			e.Outcome = crmguard.Failed
			if e.Reason == "" {
				e.Reason = "error"
			}
		case recordDone && !d.isSettled():
			e.Outcome = crmguard.Done
		default:
			return
		}
		if recordErr := g.recordOutcome(ctx, e); recordErr != nil {
			g.o.Logger.ErrorContext(ctx, "guard: an outcome was not recorded",
				"event", e.ID, "action", string(e.Action), "outcome", e.Outcome.String(), "error", recordErr)
		}
	}()
	err = act(crmguard.WithAct(ctx, d.event.Action, d.event.Resource))
	finished = true
	return err
}

func (d *draft) isSettled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settled
}

func (g *Guard) recordOutcome(ctx context.Context, e crmguard.Event) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeTimeout)
	defer cancel()
	return g.journal.Record(ctx, e)
}

// Protect serves views and lists: it decides, records one Done event and then
// calls h. When h fails, a Failed event with the same ID follows.
func (g *Guard) Protect(a crmguard.Action, load Loader, h HandlerFunc) http.Handler {
	return g.protect(a, load, func(ctx context.Context, d *draft, act func(context.Context) error) error {
		if err := g.permit(ctx, d); err != nil {
			return err
		}
		e := d.take()
		e.Outcome = crmguard.Done
		if err := g.journal.Record(ctx, e); err != nil {
			return fmt.Errorf("%w: %w", errUndecided, err)
		}
		Describe(ctx, func(e *crmguard.Event) { e.Private = nil })
		return g.perform(ctx, d, false, act)
	}, h)
}

// ProtectAct serves acts that change, reveal or take something out: see [Guard.Do].
func (g *Guard) ProtectAct(a crmguard.Action, load Loader, h HandlerFunc) http.Handler {
	return g.protect(a, load, g.do, h)
}

func (g *Guard) protect(a crmguard.Action, load Loader, run func(context.Context, *draft, func(context.Context) error) error, h HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		ctx, d, err := g.draft(r.Context(), a)
		if err != nil {
			g.WriteError(w, r, err)
			return
		}
		r = r.WithContext(ctx)
		if err := g.load(r, d, load); err != nil {
			g.WriteError(w, r, err)
			return
		}
		err = run(ctx, d, func(ctx context.Context) error { return h(w, r.WithContext(ctx)) })
		if err != nil {
			g.WriteError(w, r, err)
		}
	})
}

// load finds the resource of the act. A record that does not exist leaves the
// same kind of entry as one that is refused, without the id that was asked for:
// it is whatever the client wrote.
func (g *Guard) load(r *http.Request, d *draft, load Loader) error {
	resource, err := load(r)
	d.event.Resource = resource
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	d.event.Resource = crmguard.Resource{Tenant: d.event.Subject.Tenant, Kind: resource.Kind}
	e := d.take()
	e.Outcome, e.Reason = crmguard.Denied, "not-found"
	if recordErr := g.recordOutcome(r.Context(), e); recordErr != nil {
		return fmt.Errorf("%w: %w", errUndecided, recordErr)
	}
	return ErrNotFound
}
