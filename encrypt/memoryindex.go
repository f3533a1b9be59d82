package encrypt

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
)

// MemoryIndex is an [Index] that forgets everything with the process. It does not
// take part in transactions.
type MemoryIndex struct {
	mu      sync.Mutex
	entries []IndexEntry
}

// NewMemoryIndex returns an empty MemoryIndex.
func NewMemoryIndex() *MemoryIndex { return &MemoryIndex{} }

// sameValue says whether entries of two records say that these have the same value.
func (e *IndexEntry) sameValue(o *IndexEntry) bool {
	return e.Tenant == o.Tenant && e.Kind == o.Kind && e.Field == o.Field && e.Index == o.Index && e.Version == o.Version &&
		e.Record != o.Record && bytes.Equal(e.Value, o.Value)
}

// clone shares no memory with e.
func (e IndexEntry) clone() IndexEntry {
	e.Tenant, e.Client, e.Kind = strings.Clone(e.Tenant), strings.Clone(e.Client), strings.Clone(e.Kind)
	e.Record, e.Field, e.Index = strings.Clone(e.Record), strings.Clone(e.Field), strings.Clone(e.Index)
	e.Value = bytes.Clone(e.Value)
	return e
}

// Put implements [Index]; tx may be nil.
func (m *MemoryIndex) Put(_ context.Context, _ Execer, x IndexEntries) error {
	if err := x.Check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	replaced := setOf(x.Records)
	kept := make([]IndexEntry, 0, len(m.entries)+len(x.Entries))
	taken := make(map[string][]*IndexEntry) // unique entries by their value
	add := func(e IndexEntry) error {
		if e.Unique {
			for _, other := range taken[string(e.Value)] {
				if e.sameValue(other) {
					return &DuplicateError{Field: e.Field, Index: e.Index, Record: e.Record, Other: other.Record}
				}
			}
			taken[string(e.Value)] = append(taken[string(e.Value)], &e)
		}
		kept = append(kept, e)
		return nil
	}
	for _, e := range m.entries {
		if e.Tenant == x.Tenant && e.Kind == x.Kind && replaced[e.Record] && (len(x.Fields) == 0 || slices.Contains(x.Fields, e.Field)) {
			continue
		}
		if err := add(e); err != nil {
			return err
		}
	}
	for _, e := range x.Entries {
		e = e.clone()
		if err := add(e); err != nil {
			return err
		}
	}
	m.entries = kept
	return nil
}

// records returns those of entries, sorted and each once.
func (m *MemoryIndex) records(fits func(e *IndexEntry) bool) []string {
	var records []string
	for i := range m.entries {
		if fits(&m.entries[i]) {
			records = append(records, m.entries[i].Record)
		}
	}
	slices.Sort(records)
	return slices.Compact(records)
}

// Find implements [Index].
func (m *MemoryIndex) Find(_ context.Context, tenant, kind, field, index string, values [][]byte) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records(func(e *IndexEntry) bool {
		return e.Tenant == tenant && e.Kind == kind && e.Field == field && e.Index == index &&
			slices.ContainsFunc(values, func(v []byte) bool { return bytes.Equal(v, e.Value) })
	}), nil
}

// Duplicates implements [Index].
func (m *MemoryIndex) Duplicates(_ context.Context, tenant, client string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records(func(e *IndexEntry) bool {
		return e.Tenant == tenant && e.Client != client && indexes[e.Index].exact &&
			slices.ContainsFunc(m.entries, func(mine IndexEntry) bool { return mine.Client == client && mine.sameValue(e) })
	}), nil
}

// Stale implements [Index].
func (m *MemoryIndex) Stale(_ context.Context, tenant, kind, field, index string, version uint32, after string, limit int) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	of := func(e *IndexEntry) bool {
		return e.Tenant == tenant && e.Kind == kind && e.Field == field && e.Index == index
	}
	current := make(map[string]bool)
	for i := range m.entries {
		if e := &m.entries[i]; of(e) && e.Version == version {
			current[e.Record] = true
		}
	}
	stale := m.records(func(e *IndexEntry) bool { return of(e) && e.Record > after && !current[e.Record] })
	return stale[:min(limit, len(stale))], nil
}

// DropClient implements [Index].
func (m *MemoryIndex) DropClient(_ context.Context, tenant, client string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.entries)
	m.entries = slices.DeleteFunc(m.entries, func(e IndexEntry) bool { return e.Tenant == tenant && e.Client == client })
	return before - len(m.entries), nil
}
