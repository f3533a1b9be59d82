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
// it returns [ErrNotFound], with the resource's kind. With any other error, such
// as a *[Problem] about the form, it returns the resource too, as far as it knows
// it: the error is shown only to who may do the act.
type Loader func(r *http.Request) (crmguard.Resource, error)

// HandlerFunc does the act of a request. Nil means that it was done. It writes
// nothing before it knows that it will return nil; an error becomes the answer.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// ErrNotFound is what a [Loader] returns for a record that does not exist, and
// what is answered for one that the subject may not see.
var ErrNotFound = errors.New("guard: not found")

// How long an event may take to be recorded. That the client has gone away does not
// end it.
const (
	recordTimeout = 10 * time.Second
	urgentTimeout = 2 * time.Second
)

// urgent are acts that end access. A jammed journal does not hold them up.
func urgent(e crmguard.Event) bool { return e.Action == crmguard.Revoke }

func (g *Guard) record(ctx context.Context, e crmguard.Event) error {
	timeout := recordTimeout
	if urgent(e) {
		timeout = urgentTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	return g.journal.Record(ctx, e)
}

// draft is the event of an act that is under way.
type draft struct {
	mu      sync.Mutex
	event   crmguard.Event
	settled bool // the outcome is in the journal
}

type draftKey struct{}

// take returns a copy of the event as it is described so far.
func (d *draft) take() crmguard.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.event
}

func (d *draft) settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settled = true
}

func (d *draft) isSettled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settled
}

// Details are what only the host knows of an act.
type Details struct {
	Reason  string             // a code; free text is Private
	Fields  []string           // names of the fields viewed or changed
	Count   int                // records concerned, when not one
	Private []crmguard.Private // values that the journal seals
}

// Describe adds details to the event of the act in ctx. A loader describes the
// intent, a handler under [Guard.ProtectAct] or [Guard.Do] the outcome. Under
// [Guard.Protect] the event is recorded before the handler runs, so that what the
// handler adds is not kept. Private values that were recorded are gone from d.
func Describe(ctx context.Context, add func(d *Details)) {
	d, ok := ctx.Value(draftKey{}).(*draft)
	if !ok {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := &d.event
	details := Details{e.Reason, e.Fields, e.Count, e.Private}
	add(&details)
	e.Reason, e.Fields, e.Count, e.Private = details.Reason, details.Fields, details.Count, details.Private
}

// Settle is for a handler that records the outcome itself, in the transaction of
// the change. It calls commit with the Done event of the act in ctx; once commit
// has returned nil, the guard records no outcome of its own, whatever the handler
// returns. Under [Guard.Protect] and outside an act it refuses.
//
//	err := guard.Settle(ctx, func(done crmguard.Event) error {
//		return journal.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
//			... // the change
//			return record(done)
//		})
//	})
func Settle(ctx context.Context, commit func(done crmguard.Event) error) error {
	d, ok := ctx.Value(draftKey{}).(*draft)
	if !ok || d.isSettled() {
		return errors.New("guard: no act to settle: its outcome is recorded, or there is none")
	}
	e := d.take()
	e.Outcome = crmguard.Done
	if err := commit(e); err != nil {
		return err
	}
	d.settle()
	return nil
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
// records how it ended. When Attempted cannot be recorded, the act is not done,
// except Revoke, which is logged instead: a jammed journal must not keep a thief
// in. When the outcome cannot be recorded, the journal shows an act whose outcome is
// unknown.
func (g *Guard) Do(ctx context.Context, a crmguard.Action, r crmguard.Resource, act func(ctx context.Context) error) error {
	ctx, d, err := g.draft(ctx, a)
	if err != nil {
		return err
	}
	d.event.Resource = r
	return g.do(ctx, d, act)
}

func (g *Guard) do(ctx context.Context, d *draft, act func(ctx context.Context) error) error {
	if err := g.announce(ctx, d, crmguard.Attempted); err != nil {
		return err
	}
	return g.perform(ctx, d, act)
}

// show is do for what only shows: one Done event before the answer, and a Failed one
// after it if there was none.
func (g *Guard) show(ctx context.Context, d *draft, act func(ctx context.Context) error) error {
	if err := g.announce(ctx, d, crmguard.Done); err != nil {
		return err
	}
	shown := &draft{event: d.take(), settled: true}
	return g.perform(context.WithValue(ctx, draftKey{}, shown), d, act)
}

// announce decides and records what comes before the act.
func (g *Guard) announce(ctx context.Context, d *draft, o crmguard.Outcome) error {
	if err := g.permit(ctx, d); err != nil {
		return err
	}
	e := d.take()
	e.Outcome = o
	if err := g.record(ctx, e); err != nil {
		if !urgent(e) {
			return fmt.Errorf("%w: %w", errUndecided, err)
		}
		g.o.Logger.ErrorContext(ctx, "guard: an act that ends access is done without an entry in the journal",
			"event", e.ID, "subject", e.Subject.ID, "kind", e.Resource.Kind, "resource", e.Resource.ID, "error", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.event.Private = nil // the journal has them now
	d.event.Outcome = o
	return nil
}

// perform runs the act and records its outcome, unless the act has settled it.
func (g *Guard) perform(ctx context.Context, d *draft, act func(ctx context.Context) error) (err error) {
	finished := false
	defer func() {
		e := d.take()
		switch {
		case d.isSettled():
			return
		case !finished: // the act panics through here
			e.Outcome, e.Reason = crmguard.Failed, "panic"
		case err != nil:
			e.Outcome = crmguard.Failed
			if e.Reason == "" {
				e.Reason = "error"
			}
		case e.Outcome == crmguard.Done: // recorded before the act
			return
		default:
			e.Outcome = crmguard.Done
		}
		if recordErr := g.record(ctx, e); recordErr != nil {
			g.o.Logger.ErrorContext(ctx, "guard: an outcome was not recorded",
				"event", e.ID, "action", string(e.Action), "outcome", e.Outcome.String(), "error", recordErr)
		}
	}()
	err = act(crmguard.WithAct(ctx, d.event.Action, d.event.Resource))
	finished = true
	return err
}

// shows are the actions that change nothing and take nothing out.
var shows = map[crmguard.Action]bool{
	crmguard.View: true, crmguard.List: true, crmguard.Search: true, crmguard.Access: true,
}

// Protect serves what only shows: View, List, Search and Access. It decides,
// records one Done event and then calls h. When h fails, a Failed event with the
// same ID follows. It panics on other actions and on nil, as mounting does.
func (g *Guard) Protect(a crmguard.Action, load Loader, h HandlerFunc) http.Handler {
	if !shows[a] {
		panic(fmt.Sprintf("guard: %q does more than show: use ProtectAct", a))
	}
	return g.protect(a, load, g.show, h)
}

// ProtectAct serves acts that change, reveal or take something out: see [Guard.Do].
// It panics on nil, as mounting does.
func (g *Guard) ProtectAct(a crmguard.Action, load Loader, h HandlerFunc) http.Handler {
	return g.protect(a, load, g.do, h)
}

func (g *Guard) protect(a crmguard.Action, load Loader, run func(context.Context, *draft, func(context.Context) error) error, h HandlerFunc) http.Handler {
	if a == "" || load == nil || h == nil {
		panic("guard: an action, a loader and a handler are required")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		ctx, d, err := g.draft(r.Context(), a)
		if err != nil {
			g.WriteError(w, r, err)
			return
		}
		r = r.WithContext(ctx)
		err = g.load(r, d, load)
		if err == nil {
			err = run(ctx, d, func(ctx context.Context) error { return h(w, r.WithContext(ctx)) })
		}
		if err != nil {
			g.WriteError(w, r, err)
		}
	})
}

// load finds the resource of the act. What is wrong with a request is told to those
// only who may do the act: others would learn what exists.
func (g *Guard) load(r *http.Request, d *draft, load Loader) error {
	resource, err := load(r)
	d.event.Resource = resource
	switch {
	case errors.Is(err, ErrNotFound):
		return g.absent(r.Context(), d)
	case err == nil && resource.Tenant != "":
		return nil
	case err == nil:
		return errors.New("guard: the loader's resource has no tenant")
	case resource.Tenant == "": // it is not known what the request is about
		return err
	}
	if err := g.permit(r.Context(), d); err != nil {
		return err
	}
	e := d.take()
	e.Outcome, e.Reason, e.Private = crmguard.Failed, "request", nil
	if recordErr := g.record(r.Context(), e); recordErr != nil {
		return fmt.Errorf("%w: %w", errUndecided, recordErr)
	}
	return err
}
