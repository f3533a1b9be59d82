package encrypt

import (
	"bytes"
	"context"
	"slices"
	"strings"
)

var _ Pending = (*Memory)(nil)

// pendingSet of one field.
type pendingSet struct {
	state   PendingState
	records map[string][]byte // and their MACs
}

func (m *Memory) pendingOf(f PendingField) *pendingSet {
	set := m.pending[f]
	if set == nil {
		set = &pendingSet{records: make(map[string][]byte)}
	}
	return set
}

// AddPending implements [Pending].
func (m *Memory) AddPending(_ context.Context, f PendingField, records []PendingRecord) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.pendingOf(f)
	if set.state > PendingCollecting {
		return ErrCutOff
	}
	set.state = PendingCollecting
	for _, r := range records {
		set.records[strings.Clone(r.Record)] = bytes.Clone(r.MAC)
	}
	m.keepPending(f, set)
	return nil
}

func (m *Memory) keepPending(f PendingField, set *pendingSet) {
	if m.pending == nil {
		m.pending = make(map[PendingField]*pendingSet)
	}
	m.pending[f.clone()] = set
}

// HasPending implements [Pending].
func (m *Memory) HasPending(_ context.Context, f PendingField, records []string) (state PendingState, found []PendingRecord, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.pendingOf(f)
	for _, record := range records {
		if mac, ok := set.records[record]; ok {
			found = append(found, PendingRecord{record, bytes.Clone(mac)})
		}
	}
	return set.state, found, nil
}

// NextPending implements [Pending].
func (m *Memory) NextPending(_ context.Context, f PendingField, after string, limit int) (next []PendingRecord, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for record, mac := range m.pendingOf(f).records {
		if record > after {
			next = append(next, PendingRecord{record, bytes.Clone(mac)})
		}
	}
	slices.SortFunc(next, func(a, b PendingRecord) int { return strings.Compare(a.Record, b.Record) })
	return next[:min(limit, len(next))], nil
}

// RemovePending implements [Pending].
func (m *Memory) RemovePending(_ context.Context, f PendingField, records []string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.pendingOf(f)
	set.state = max(set.state, PendingShrinking)
	for _, record := range records {
		delete(set.records, record)
	}
	if len(set.records) == 0 || set.state == PendingStrict {
		set.state, set.records = PendingStrict, nil
	}
	m.keepPending(f, set)
	return len(set.records), nil
}

// CountPending implements [Pending].
func (m *Memory) CountPending(_ context.Context, f PendingField) (PendingState, int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.pendingOf(f)
	return set.state, len(set.records), nil
}

// Migrating implements [Pending].
func (m *Memory) Migrating(_ context.Context, tenant string) (fields []PendingField, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for f, set := range m.pending {
		if f.Tenant == tenant && set.state.open() {
			fields = append(fields, f)
		}
	}
	return fields, nil
}
