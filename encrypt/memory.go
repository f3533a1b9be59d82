package encrypt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Memory is a [Store] that forgets everything with the process: for tests and
// for data that shall not outlive it.
type Memory struct {
	mu       sync.Mutex
	scopes   map[Scope][]Record // versions in order
	revision int64
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{scopes: make(map[Scope][]Record)} }

// Load implements [Store].
func (m *Memory) Load(_ context.Context, scopes []Scope) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.load(scopes), nil
}

func (m *Memory) load(scopes []Scope) []Record {
	var found []Record
	for _, scope := range scopes {
		for _, r := range m.scopes[scope] {
			r.Wrapped = bytes.Clone(r.Wrapped)
			found = append(found, r)
		}
	}
	return found
}

// Insert implements [Store].
func (m *Memory) Insert(_ context.Context, records []Record) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var scopes []Scope
	for _, r := range records {
		if !slices.Contains(scopes, r.Scope) {
			scopes = append(scopes, r.Scope)
		}
		versions := m.scopes[r.Scope]
		if int(r.Version) != len(versions)+1 || len(versions) > 0 && versions[0].State != Active {
			continue
		}
		r.Wrapped = bytes.Clone(r.Wrapped)
		m.scopes[r.Scope] = append(versions, r)
	}
	return m.load(scopes), nil
}

// Advance implements [Store].
func (m *Memory) Advance(_ context.Context, scope Scope, to State, at time.Time) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	versions := m.scopes[scope]
	if len(versions) == 0 {
		versions = []Record{{Scope: scope, Version: 1, State: Active, CreatedAt: at}}
	}
	state := versions[0].State
	switch {
	case to != Closing && to != Destroyed:
		return Record{}, errAdvance
	case state >= to:
	case to == Destroyed && state != Closing:
		return Record{}, errAdvance
	default:
		for i := range versions {
			versions[i].State = to
			if to == Closing {
				versions[i].ClosedAt = at
				continue
			}
			versions[i].DestroyedAt = at
			clear(versions[i].Wrapped)
			versions[i].Wrapped = nil
		}
		m.scopes[scope] = versions
		m.revision++
	}
	newest := versions[len(versions)-1]
	newest.Wrapped = bytes.Clone(newest.Wrapped)
	return newest, nil
}

// errAdvance has the same text in every store.
var errAdvance = errors.New("encrypt: a scope goes from active to closing and from closing to destroyed")

// Lease implements [Store].
func (m *Memory) Lease(_ context.Context, keys []Record, n uint64) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var leased []Record
	for _, key := range keys {
		versions := m.scopes[key.Scope]
		if key.Version == 0 || int(key.Version) > len(versions) || versions[0].State != Active {
			continue
		}
		r := &versions[key.Version-1]
		r.Messages += n
		copied := *r
		copied.Wrapped = bytes.Clone(r.Wrapped)
		leased = append(leased, copied)
	}
	return leased, nil
}

// Closing implements [Store].
func (m *Memory) Closing(context.Context) (int64, []Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var closing []Record
	for _, versions := range m.scopes {
		if r := versions[len(versions)-1]; r.State == Closing {
			r.Wrapped = bytes.Clone(r.Wrapped)
			closing = append(closing, r)
		}
	}
	slices.SortFunc(closing, func(a, b Record) int { return cmp.Compare(a.ClosedAt.UnixMicro(), b.ClosedAt.UnixMicro()) })
	return m.revision, closing, nil
}
