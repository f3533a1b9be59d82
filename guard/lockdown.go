package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

// lastLook is what the switch said, and when it was asked.
type lastLook struct {
	closed bool
	at     time.Duration
}

// lockdowns remembers the switch's answers.
type lockdowns struct {
	sw Switch

	mu   sync.RWMutex
	seen map[string]lastLook // by tenant
}

func (l *lockdowns) closed(ctx context.Context, tenant string) (bool, error) {
	now := uptime.Now()
	l.mu.RLock()
	last, known := l.seen[tenant]
	l.mu.RUnlock()
	if known && now-last.at < fresh {
		return last.closed, nil
	}
	closed, err := l.sw.LockedDown(ctx, tenant)
	if err != nil {
		if known && now-last.at < stale {
			return last.closed, nil
		}
		return true, fmt.Errorf("guard: emergency switch: %w", err)
	}
	l.note(tenant, lastLook{closed, now})
	return closed, nil
}

// note keeps the answer that was asked for last: a slow one must not undo what this
// node has done to the switch meanwhile.
func (l *lockdowns) note(tenant string, look lastLook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, known := l.seen[tenant]; !known || last.at <= look.at {
		l.seen[tenant] = look
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

var errNoSwitch = errors.New("guard: Options.Switch is not set")

// LockDown closes the CRM for a tenant on all nodes, within two seconds, until
// [Guard.Reopen]: nobody opens a client's data, not even through a handler without
// Protect. Only those who may reopen still come in, to sections, and to give and
// take rights and change settings. Mount it behind
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
	ctx, cancel := finish(ctx)
	defer cancel()
	if err := g.lockdowns.sw.LockDown(ctx, tenant); err != nil {
		return fmt.Errorf("guard: lock down: %w", err)
	}
	g.lockdowns.note(tenant, lastLook{true, uptime.Now()})
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
	g.lockdowns.note(tenant, lastLook{false, uptime.Now()})
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

// finishTimeout bounds what goes on when the client has gone away.
const finishTimeout = time.Minute

// finish is for what must not stay half done because a client goes away.
func finish(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
}
