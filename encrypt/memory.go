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
	shelves  map[shelf]map[string][]Record // by name, versions in order
	tenants  map[string]string             // a tenant's name, which all its records share
	revision int64

	order []Scope // of List
	fresh []Scope // not yet in order

	pending map[PendingField]*pendingSet
}

// shelf is what scopes of one query have in common: looking for names alone takes half as long.
type shelf struct {
	tenant  string
	purpose Purpose
}

func (s *Scope) shelf() shelf { return shelf{s.Tenant, s.Purpose} }

var _ Inventory = (*Memory)(nil)

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{shelves: make(map[shelf]map[string][]Record), tenants: make(map[string]string)}
}

// Load implements [Store].
func (m *Memory) Load(_ context.Context, scopes []Scope) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.load(scopes), nil
}

// load looks all names up before it copies what they have, so that the processor waits for many at once.
func (m *Memory) load(scopes []Scope) []Record {
	var few [64][]Record
	found, n := few[:0], 0
	var on shelf
	var names map[string][]Record
	for i := range scopes {
		if s := scopes[i].shelf(); s != on {
			on, names = s, m.shelves[s]
		}
		versions := names[scopes[i].Name]
		found = append(found, versions)
		n += len(versions)
	}
	records := make([]Record, 0, n)
	for _, versions := range found {
		records = append(records, versions...)
	}
	return cloned(records)
}

func (m *Memory) versions(s Scope) []Record { return m.shelves[s.shelf()][s.Name] }

// cloned gives records bytes of their own, in one piece of memory.
func cloned(records []Record) []Record {
	size := 0
	for i := range records {
		size += len(records[i].Wrapped) + len(records[i].Note)
	}
	memory := make([]byte, 0, size)
	own := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		start := len(memory)
		memory = append(memory, b...)
		return memory[start:len(memory):len(memory)]
	}
	for i := range records {
		r := &records[i]
		r.Wrapped, r.Note = own(r.Wrapped), own(r.Note)
	}
	return records
}

// clone shares no bytes with r.
func (r Record) clone() Record {
	r.Wrapped, r.Note = bytes.Clone(r.Wrapped), bytes.Clone(r.Note)
	return r
}

// Insert implements [Store].
func (m *Memory) Insert(_ context.Context, records []Record) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var scopes []Scope
	seen := make(map[Scope]bool, len(records))
	for _, r := range records {
		if !seen[r.Scope] {
			seen[r.Scope] = true
			scopes = append(scopes, r.Scope)
		}
		versions := m.versions(r.Scope)
		next := uint32(1)
		if len(versions) > 0 {
			next = versions[len(versions)-1].Version + 1
		}
		if !m.under(r) || r.Version != next || len(versions) > 0 && versions[0].State != Active {
			continue
		}
		if next > 1 {
			m.revision++
		}
		r.Under, r.Scope = nil, m.own(r.Scope)
		m.put(r.Scope, append(versions, r.clone()))
	}
	return m.load(scopes), nil
}

// own copies the strings of a scope: names of clients that are compared lie apart, and those of tenants
// shall not.
func (m *Memory) own(s Scope) Scope {
	s = s.clone()
	tenant, known := m.tenants[s.Tenant]
	if !known {
		tenant = s.Tenant
		m.tenants[tenant] = tenant
	}
	s.Tenant = tenant
	return s
}

// under says whether what wrapped a new key is the newest.
func (m *Memory) under(r Record) bool {
	if len(r.Under) == 0 {
		return true
	}
	wrapping := m.versions(r.Scope.Wrapping())
	return len(wrapping) > 0 && bytes.Equal(wrapping[len(wrapping)-1].Wrapped, r.Under)
}

// put keeps the strings of the scope, also of one that is known: a map takes over the newest.
func (m *Memory) put(s Scope, versions []Record) {
	names := m.shelves[s.shelf()]
	if names == nil {
		names = make(map[string][]Record)
		m.shelves[s.shelf()] = names
	}
	if _, known := names[s.Name]; !known {
		m.fresh = append(m.fresh, s)
	}
	names[s.Name] = versions
}

// Advance implements [Store].
func (m *Memory) Advance(_ context.Context, scope Scope, to State, at time.Time) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	versions := m.versions(scope)
	if len(versions) == 0 {
		scope = m.own(scope)
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
		m.put(versions[0].Scope, versions)
		m.revision++
	}
	return versions[len(versions)-1].clone(), nil
}

var errAdvance = errors.New("encrypt: a scope goes from active to closing and from closing to destroyed")

// Lease implements [Store].
func (m *Memory) Lease(_ context.Context, keys []Record, n uint64) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var leased []Record
	for _, key := range keys {
		r := m.find(key)
		if r == nil || r.State != Active {
			continue
		}
		r.Messages += n
		leased = append(leased, r.clone())
	}
	return leased, nil
}

// find returns the stored record itself.
func (m *Memory) find(named Record) *Record {
	versions := m.versions(named.Scope)
	if i := slices.IndexFunc(versions, func(r Record) bool { return r.Version == named.Version }); i >= 0 {
		return &versions[i]
	}
	return nil
}

// Closing implements [Store].
func (m *Memory) Closing(context.Context) (int64, []Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var closing []Record
	for _, names := range m.shelves {
		for _, versions := range names {
			if r := versions[len(versions)-1]; r.State == Closing {
				closing = append(closing, r.clone())
			}
		}
	}
	slices.SortFunc(closing, func(a, b Record) int { return cmp.Compare(a.ClosedAt.UnixMicro(), b.ClosedAt.UnixMicro()) })
	return m.revision, closing, nil
}

// List implements [Inventory].
func (m *Memory) List(_ context.Context, after Record, limit int) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.fresh) > 0 {
		m.order = append(m.order, m.fresh...)
		m.fresh = nil
		slices.SortFunc(m.order, Scope.compare)
	}
	var list []Record
	from, _ := slices.BinarySearchFunc(m.order, after.Scope, Scope.compare)
	for _, scope := range m.order[from:] {
		for _, r := range m.versions(scope) {
			switch {
			case scope == after.Scope && r.Version <= after.Version:
			case len(list) == limit:
				return list, nil
			default:
				list = append(list, r.clone())
			}
		}
	}
	return list, nil
}

var errReplace = errors.New("encrypt: to replace records, give each as it was and as it shall be")

// Replace implements [Inventory].
func (m *Memory) Replace(_ context.Context, was, now []Record) (int, error) {
	if len(was) != len(now) {
		return 0, errReplace
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for i := range was {
		r := m.find(was[i])
		if r == nil || !r.same(was[i]) {
			continue
		}
		if len(now[i].Wrapped) == 0 && len(was[i].Wrapped) > 0 {
			versions := m.versions(r.Scope)
			if r.Version == versions[len(versions)-1].Version {
				continue
			}
			clear(r.Wrapped)
			version := r.Version
			m.put(r.Scope, slices.DeleteFunc(versions, func(r Record) bool { return r.Version == version }))
			n++
			continue
		}
		next := now[i].clone()
		r.Wrapped, r.Note, r.ClosedAt, r.DestroyedAt = next.Wrapped, next.Note, next.ClosedAt, next.DestroyedAt
		n++
	}
	if n > 0 {
		m.revision++
	}
	return n, nil
}

// same says whether nothing has changed that Replace changes.
func (r Record) same(was Record) bool {
	return bytes.Equal(r.Wrapped, was.Wrapped) && bytes.Equal(r.Note, was.Note) &&
		r.ClosedAt.Equal(was.ClosedAt) && r.DestroyedAt.Equal(was.DestroyedAt)
}
