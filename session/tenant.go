package session

import (
	"context"
	"errors"
	"sync"
)

// LockDown notes that nobody of a tenant is to do anything but what the host lets
// them, until [Manager.Reopen]. It ends no session and keeps none from starting:
// who may act meanwhile is for whoever asks [Manager.LockedDown], as package guard
// does. It works also on a stored state that is not genuine.
func (m *Manager) LockDown(ctx context.Context, tenant string) error {
	return wrap("lock down", m.changeTenant(ctx, tenant, shut))
}

// Reopen ends a lockdown. A host calls it once for each tenant, when it is set up,
// as it calls [Manager.OpenPerson] for people: a tenant without a state is locked
// down. To call it whenever the program starts would end lockdowns. It returns
// [ErrState] for a state that is not genuine, and does not end any session: after
// a theft revoke those of everybody who may be concerned, first.
func (m *Manager) Reopen(ctx context.Context, tenant string) error {
	return wrap("reopen", m.changeTenant(ctx, tenant, open))
}

// LockedDown reports whether a tenant is locked down, in this moment and on every
// node. It is if its state is missing, not genuine, or older than one that this
// Manager has seen. It is true also beside an error, which means that it could not
// be decided.
func (m *Manager) LockedDown(ctx context.Context, tenant string) (bool, error) {
	if err := checkTenant(ctx, tenant); err != nil {
		return true, err
	}
	p, _, genuine, err := m.read(ctx, tenant, "")
	return err != nil || !genuine || p.Closed, wrap("read tenant", err)
}

func (m *Manager) changeTenant(ctx context.Context, tenant string, decide decision) error {
	if err := checkTenant(ctx, tenant); err != nil {
		return err
	}
	_, err := m.change(ctx, tenant, "", decide)
	return err
}

func checkTenant(ctx context.Context, tenant string) error {
	if tenant == "" {
		return errors.New("session: a tenant is needed")
	}
	if err := checkActor(ctx, tenant); err != nil {
		return err
	}
	return checkText(tenant)
}

// epochs are the latest epochs of tenants that this process has seen. A row from
// before a lockdown is genuine; only that a later one was seen tells that somebody
// put it back. There are as many as tenants, whose states were genuine. Those of
// persons are not kept.
type epochs struct {
	mu  sync.Mutex
	all map[string]int64
}

func (e *epochs) of(p *Person) int64 {
	if p.ID != "" {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[p.Tenant]
}

func (e *epochs) note(p *Person) {
	if p.ID != "" {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = map[string]int64{}
	}
	e.all[p.Tenant] = max(e.all[p.Tenant], p.Epoch)
}
