package mfa

import (
	"context"
	"slices"
	"sync"
)

var _ Store = (*Memory)(nil)

// Memory is a [Store] in memory, for tests and for hosts of one process whose
// people may enrol anew when it ends. Make one with [NewMemory].
type Memory struct {
	mu      sync.Mutex
	persons map[personKey]*memoryPerson
}

type personKey struct{ tenant, person string }

type memoryPerson struct {
	person Person
	rows   []Row // in the order of their ids; never changed in place, because Load hands it out
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{persons: map[personKey]*memoryPerson{}}
}

// Load implements [Store].
func (m *Memory) Load(_ context.Context, tenant, person string) (Person, []Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.persons[personKey{tenant, person}]; p != nil {
		return p.person, slices.Clip(p.rows), nil
	}
	return Person{Tenant: tenant, ID: person}, nil, nil
}

// Attempt implements [Store].
func (m *Memory) Attempt(_ context.Context, tenant, person string, old, next Budget) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.persons[personKey{tenant, person}]
	if p == nil || p.person.Budget != old {
		return false, nil
	}
	p.person.Budget = next
	return true, nil
}

// Advance implements [Store].
func (m *Memory) Advance(_ context.Context, tenant, person, id string, step int64) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.persons[personKey{tenant, person}]
	if p == nil {
		return false, nil
	}
	i := slices.IndexFunc(p.rows, func(r Row) bool { return r.ID == id && r.Active && r.Step < step })
	if i < 0 {
		return false, nil
	}
	p.rows = slices.Clone(p.rows)
	p.rows[i].Step = step
	return true, nil
}

// Change implements [Store].
func (m *Memory) Change(_ context.Context, old, next Person, put []Row, remove []string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := personKey{old.Tenant, old.ID}
	p := m.persons[key]
	if p == nil {
		p = &memoryPerson{person: Person{Tenant: old.Tenant, ID: old.ID}}
	}
	if !p.person.Equal(old) {
		return false, nil
	}
	next.Budget = p.person.Budget
	p.person, p.rows = next, changed(p.rows, put, remove)
	m.persons[key] = p
	return true, nil
}

// Clear implements [Store].
func (m *Memory) Clear(_ context.Context, next Person) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := personKey{next.Tenant, next.ID}
	removed := 0
	if p := m.persons[key]; p != nil {
		removed = len(p.rows)
	}
	m.persons[key] = &memoryPerson{person: next}
	return removed, nil
}
