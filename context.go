package crmguard

import (
	"context"
	"sync"
)

// acting is a context that says who acts and what they do. One type for both, and not two
// values: whoever has it in hand need not search.
type acting struct {
	context.Context
	subject *Subject // nil: nobody
	act     *Act     // nil: nothing was declared
}

type actingKey struct{}

// Value finds the context itself, from those made of it.
func (a *acting) Value(key any) any {
	if key == (actingKey{}) {
		return a
	}
	return a.Context.Value(key)
}

var nobody acting

// actingIn returns who acts in ctx and what they do, never nil.
func actingIn(ctx context.Context) *acting {
	if a, ok := ctx.(*acting); ok {
		return a
	}
	if a, ok := ctx.Value(actingKey{}).(*acting); ok {
		return a
	}
	return &nobody
}

// WithSubject returns a context in which s acts.
func WithSubject(ctx context.Context, s Subject) context.Context {
	return &acting{Context: ctx, subject: &s, act: actingIn(ctx).act}
}

// SubjectFrom returns who acts in ctx, and whether anybody does.
func SubjectFrom(ctx context.Context) (Subject, bool) {
	if s := actingIn(ctx).subject; s != nil {
		return *s, true
	}
	return Subject{}, false
}

// CheckSubject is [CheckTenant] for the subject of ctx; ok is false, without an
// error, if nobody acts there. It copies no subject, for paths where that counts.
func CheckSubject(ctx context.Context, tenant string) (ok bool, err error) {
	s := actingIn(ctx).subject
	if s == nil {
		return false, nil
	}
	if s.Tenant == tenant && tenant != "" && s.ID != "" && s.Kind >= KindEmployee && s.Kind <= KindSystem {
		return true, nil
	}
	return true, CheckTenant(*s, tenant)
}

// System returns a context in which a job of the host acts for one tenant. The
// reason, such as "import" or "reindex", becomes part of the subject's ID and so
// of every journal entry.
func System(ctx context.Context, tenant, reason string) context.Context {
	return WithSubject(ctx, Subject{Tenant: tenant, ID: "system:" + reason, Kind: KindSystem})
}

// Act is what a subject is doing in a context. It remembers which clients' data
// was already opened for it, so that a norm counts each client once.
type Act struct {
	Action   Action
	Resource Resource

	tenant, subject string // who does it

	mu     sync.Mutex
	opened map[string]struct{}
}

// WithAct returns a context in which the subject of ctx does a to r. Nothing was
// opened for it yet, whatever an outer act had opened.
func WithAct(ctx context.Context, a Action, r Resource) context.Context {
	act := &Act{Action: a, Resource: r}
	s := actingIn(ctx).subject
	if s != nil {
		act.tenant, act.subject = s.Tenant, s.ID
	}
	return &acting{Context: ctx, subject: s, act: act}
}

// ActFrom returns what the subject of ctx is doing, nil if nothing was declared
// or if another subject declared it: what was opened for one person was not
// opened for another.
func ActFrom(ctx context.Context) *Act {
	in := actingIn(ctx)
	if act, s := in.act, in.subject; act != nil && (s == nil || s.Tenant == act.tenant && s.ID == act.subject) {
		return act
	}
	return nil
}

// Opened reports whether a client's data was already opened for this act. A nil
// act remembers nothing.
func (a *Act) Opened(client string) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.opened[client]
	return ok
}

// MarkOpened remembers clients whose data is being opened for this act.
func (a *Act) MarkOpened(clients ...string) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.opened == nil {
		a.opened = make(map[string]struct{}, len(clients))
	}
	for _, c := range clients {
		a.opened[c] = struct{}{}
	}
}
