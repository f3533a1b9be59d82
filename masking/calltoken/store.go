package calltoken

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrNotFound says that there is no such call.
var ErrNotFound = errors.New("calltoken: no such call")

// keep is how long calls are kept, much longer than a token or an order is good.
const keep = 24 * time.Hour

// Call is a call as a [Store] keeps it, and all that is told of it. Who is rung
// is not in it.
type Call struct {
	Tenant string
	ID     string
	Person string // who calls
	State  State
	Begun  time.Time // UTC in whole microseconds
}

// Store keeps the calls of about a day. Suite masking/calltoken/calltokentest
// tells whether a store keeps to this.
type Store interface {
	// Begin stores c, and then first is true, unless the tenant already has a call
	// with its ID, which is returned as it is. When it stores, it may remove the
	// tenant's calls that began before a time. Atomic: of any number of calls with
	// the same tenant and ID, in any number of processes, one is first.
	Begin(ctx context.Context, c Call, before time.Time) (stored Call, first bool, err error)

	// Settle sets the state of a call that is ringing; settled says whether.
	// Atomic: of any number of calls, one settles.
	Settle(ctx context.Context, tenant, id string, s State) (settled bool, err error)

	// Find returns a call, or ErrNotFound.
	Find(ctx context.Context, tenant, id string) (Call, error)
}

var _ Store = (*Memory)(nil)

// Memory is a [Store] in memory, for tests and for hosts that resolve tokens in
// one process: tokens that were resolved before it starts again could be resolved
// a second time while they are valid. Make one with [NewMemory].
type Memory struct {
	mu    sync.Mutex
	calls map[string]map[string]Call // tenant, id
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{calls: map[string]map[string]Call{}} }

// Begin implements [Store].
func (m *Memory) Begin(_ context.Context, c Call, before time.Time) (Call, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	calls := m.calls[c.Tenant]
	if stored, ok := calls[c.ID]; ok {
		return stored, false, nil
	}
	if calls == nil {
		calls = map[string]Call{}
		m.calls[c.Tenant] = calls
	}
	for id, old := range calls {
		if old.Begun.Before(before) {
			delete(calls, id)
		}
	}
	calls[c.ID] = c
	return c, true, nil
}

// Settle implements [Store].
func (m *Memory) Settle(_ context.Context, tenant, id string, s State) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.calls[tenant][id]
	if !ok || c.State != Ringing {
		return false, nil
	}
	c.State = s
	m.calls[tenant][id] = c
	return true, nil
}

// Find implements [Store].
func (m *Memory) Find(_ context.Context, tenant, id string) (Call, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.calls[tenant][id]
	if !ok {
		return Call{}, ErrNotFound
	}
	return c, nil
}
