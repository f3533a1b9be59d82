package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/uptime"
)

// LockdownKind is the kind of resource that the emergency switch is. Who may
// Revoke it locks a tenant down, who may Grant it reopens it.
const LockdownKind = "lockdown"

// Switch keeps for all nodes whether a tenant is locked down; *session.Manager is
// one.
type Switch interface {
	LockDown(ctx context.Context, tenant string) error
	Reopen(ctx context.Context, tenant string) error
	LockedDown(ctx context.Context, tenant string) (bool, error)
}

// What a node knows of the switch may be this old. While the switch answers, other
// nodes follow within fresh; one that cannot read it refuses everybody after stale.
const (
	fresh = time.Second
	stale = 2 * time.Second
)

// lastLook is what the switch said, and when it was asked: an answer is as old as its
// question.
type lastLook struct {
	closed bool
	asked  time.Duration
}

// lockdowns remembers the switch's answers.
type lockdowns struct {
	sw Switch

	mu      sync.Mutex
	tenants map[string]*look
}

// look is what is known of one tenant.
type look struct {
	asking chan struct{} // holds one: who asks the switch
	last   atomic.Pointer[lastLook]
}

func (l *lockdowns) of(tenant string) *look {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.tenants[tenant]
	if !ok {
		t = &look{asking: make(chan struct{}, 1)}
		l.tenants[strings.Clone(tenant)] = t // a framework may use its memory again
	}
	return t
}

// within returns what is known if it is younger than age.
func (t *look) within(age time.Duration) (closed, known bool) {
	last := t.last.Load()
	if last == nil || uptime.Now()-last.asked >= age {
		return true, false
	}
	return last.closed, true
}

// note keeps the answer that was asked for last: a slow one must not undo what this
// node has done to the switch meanwhile.
func (t *look) note(now lastLook) {
	for {
		last := t.last.Load()
		if last != nil && last.asked > now.asked || t.last.CompareAndSwap(last, &now) {
			return
		}
	}
}

func (l *lockdowns) closed(ctx context.Context, tenant string) (bool, error) {
	t := l.of(tenant)
	if closed, known := t.within(fresh); known {
		return closed, nil
	}
	ctx, cancel := context.WithTimeout(ctx, stale-fresh)
	defer cancel()
	err := l.ask(ctx, t, tenant)
	if closed, known := t.within(stale); known {
		return closed, nil
	}
	if err == nil {
		err = errors.New("the answer came too late")
	}
	return true, fmt.Errorf("guard: emergency switch: %w", err)
}

// ask asks the switch, one request at a time.
func (l *lockdowns) ask(ctx context.Context, t *look, tenant string) error {
	select {
	case t.asking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-t.asking }()
	if _, known := t.within(fresh); known { // somebody else has asked
		return nil
	}
	now := uptime.Now()
	answered := make(chan error, 1)
	go func() { // a switch that is deaf to its context holds nobody up for longer
		closed, err := l.sw.LockedDown(ctx, tenant)
		if err == nil {
			t.note(lastLook{closed, now})
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// duringLockdown are the acts that follow an incident up without opening a
// client's data.
var duringLockdown = map[crmguard.Action]bool{
	crmguard.Access: true, crmguard.Grant: true, crmguard.Revoke: true, crmguard.Configure: true,
}

// checkLockdown refuses what a lockdown forbids. With an empty action it asks
// whether the subject may do anything at all.
func (g *Guard) checkLockdown(ctx context.Context, s crmguard.Subject, a crmguard.Action) error {
	if g.lockdowns == nil {
		return nil
	}
	closed, err := g.lockdowns.closed(ctx, s.Tenant)
	if err != nil || !closed {
		return err
	}
	if a == "" || duringLockdown[a] {
		err := g.rights.Check(ctx, s, crmguard.Grant, crmguard.Resource{Tenant: s.Tenant, Kind: LockdownKind})
		if err == nil {
			return nil
		}
		if denialOf(err) == nil {
			return err
		}
	}
	return &crmguard.Denial{By: "guard", Code: LockdownKind, Status: crmguard.Closed}
}

// CheckLockdown refuses whom a lockdown keeps out: everybody who may not reopen. Ask
// it at the door too, or whoever signs in meanwhile waits inside for the end.
func (g *Guard) CheckLockdown(ctx context.Context, s crmguard.Subject) error {
	if s.Roles == nil { // as at the door
		var err error
		if s.Roles, s.Units, err = g.directory.Resolve(ctx, s.Tenant, s.ID); err != nil {
			return decided(fmt.Errorf("guard: roles and departments: %w", err))
		}
	}
	return decided(g.checkLockdown(ctx, s, ""))
}

var errNoSwitch = errors.New("guard: Options.Switch is not set")

// LockDown closes the CRM for a tenant on all nodes, within two seconds, until
// [Guard.Reopen]. Only those who may reopen still come in: to sections, to give and
// take rights, and to change settings, but to no client's data. For everybody else a
// handler without Protect has no subject in its context either. Mount it behind
//
//	g.ProtectAct(crmguard.Revoke, lockdown, func(w http.ResponseWriter, r *http.Request) error {
//		return g.LockDown(r.Context(), tenant)
//	})
//
// with a loader of a resource of [LockdownKind]. Jobs of the host that do not ask
// the guard go on.
func (g *Guard) LockDown(ctx context.Context, tenant string) error {
	if g.lockdowns == nil {
		return errNoSwitch
	}
	if err := within(ctx, func(ctx context.Context) error { return g.lockdowns.sw.LockDown(ctx, tenant) }); err != nil {
		return fmt.Errorf("guard: lock down: %w", err)
	}
	g.lockdowns.of(tenant).note(lastLook{true, uptime.Now()})
	return nil
}

// Reopen ends a lockdown. It belongs behind ProtectAct with crmguard.Grant. A
// tenant that is new is reopened once, or it counts as locked down.
func (g *Guard) Reopen(ctx context.Context, tenant string) error {
	if g.lockdowns == nil {
		return errNoSwitch
	}
	if err := g.lockdowns.sw.Reopen(ctx, tenant); err != nil {
		return fmt.Errorf("guard: reopen: %w", err)
	}
	g.lockdowns.of(tenant).note(lastLook{false, uptime.Now()})
	return nil
}

// LockedDown reports whether a tenant is locked down, as this node knows it. Without
// Options.Switch nobody is.
func (g *Guard) LockedDown(ctx context.Context, tenant string) (bool, error) {
	if g.lockdowns == nil {
		return false, nil
	}
	return g.lockdowns.closed(ctx, tenant)
}
