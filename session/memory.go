package session

import (
	"bytes"
	"context"
	"slices"
	"sync"
)

var _ Store = (*Memory)(nil)

// Memory is a [Store] in memory, for tests and for hosts of one process whose
// sessions may end when it does. Make one with [NewMemory].
type Memory struct {
	mu       sync.RWMutex
	sessions map[string]Row
	persons  map[personKey]*memoryPerson
	sweep    []string // ids in the order of their start, to be looked at when they may have ended
}

type personKey struct{ tenant, person string }

type memoryPerson struct {
	state Person
	ids   []string // oldest first
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{sessions: map[string]Row{}, persons: map[personKey]*memoryPerson{}}
}

// Session implements [Store].
func (m *Memory) Session(_ context.Context, id string) (Row, Person, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, ok := m.sessions[id]
	if !ok {
		return Row{}, Person{}, ErrNotFound
	}
	return r.clone(), m.state(r.Tenant, r.Person), nil
}

// Person implements [Store].
func (m *Memory) Person(_ context.Context, tenant, person string) (Person, []Row, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var rows []Row
	if p := m.persons[personKey{tenant, person}]; p != nil {
		for _, id := range p.ids {
			rows = append(rows, m.sessions[id].clone())
		}
	}
	return m.state(tenant, person), rows, nil
}

func (m *Memory) state(tenant, person string) Person {
	if p := m.persons[personKey{tenant, person}]; p != nil {
		return p.state
	}
	return Person{Tenant: tenant, ID: person}
}

// Start implements [Store].
func (m *Memory) Start(_ context.Context, p Person, r Row, keep int) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.Closed || p.Epoch == 0 || !m.state(p.Tenant, p.ID).Equal(p) {
		return false, nil
	}
	own := m.persons[personKey{p.Tenant, p.ID}]
	m.sessions[r.ID] = r.clone()
	own.ids = append(own.ids, r.ID)
	m.sweep = append(m.sweep, r.ID)
	for len(own.ids) > max(keep, 1) {
		m.remove(own.ids[0])
	}
	m.removeEnded(r)
	return true, nil
}

// removeEnded looks at the sessions that started first. Sessions of one manager
// end in the order in which they start; where lifetimes differ, a row is found
// when its turn comes.
func (m *Memory) removeEnded(newest Row) {
	for n := 0; n < SweepRows && len(m.sweep) > 0; n++ {
		id := m.sweep[0]
		if r, ok := m.sessions[id]; ok && !r.End.Before(newest.Started) {
			return
		}
		m.remove(id)
		m.sweep = m.sweep[1:]
	}
}

// Swap implements [Store].
func (m *Memory) Swap(_ context.Context, id string, verifier MAC, next *Row) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.sessions[id]
	if next == nil {
		m.remove(id)
		return ok, nil
	}
	if !ok || !bytes.Equal(r.Verifier, verifier) {
		return false, nil
	}
	r.Used, r.Assurance, r.AuthenticatedAt, r.Verifier = next.Used, next.Assurance, next.AuthenticatedAt, next.Verifier
	m.sessions[id] = r
	return true, nil
}

// Change implements [Store].
func (m *Memory) Change(_ context.Context, old, next Person) (int, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.state(old.Tenant, old.ID).Equal(old) {
		return 0, false, nil
	}
	key := personKey{old.Tenant, old.ID}
	if m.persons[key] == nil {
		m.persons[key] = &memoryPerson{}
	}
	p := m.persons[key]
	ended := len(p.ids)
	for _, id := range p.ids {
		delete(m.sessions, id)
	}
	p.state, p.ids = next, nil
	return ended, true, nil
}

// clone shares with r only its verifier, which no Manager hands out or changes.
func (r Row) clone() Row {
	r.Scopes = slices.Clone(r.Scopes)
	return r
}

func (m *Memory) remove(id string) {
	r, ok := m.sessions[id]
	if !ok {
		return
	}
	delete(m.sessions, id)
	if p := m.persons[personKey{r.Tenant, r.Person}]; p != nil {
		p.ids = slices.DeleteFunc(p.ids, func(other string) bool { return other == id })
	}
}
