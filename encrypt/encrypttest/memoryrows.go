package encrypttest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/crmguard/crmguard/encrypt"
)

// MemoryRows is an encrypt.Rows in memory, for tests of hosts and of jobs.
type MemoryRows struct {
	mu   sync.Mutex
	rows map[string]map[string]encrypt.Row // by tenant and record
}

var _ encrypt.Rows = (*MemoryRows)(nil)

// NewMemoryRows returns an empty table.
func NewMemoryRows() *MemoryRows {
	return &MemoryRows{rows: make(map[string]map[string]encrypt.Row)}
}

// Put adds or replaces rows, as an application would.
func (m *MemoryRows) Put(tenant string, rows ...encrypt.Row) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows[tenant] == nil {
		m.rows[strings.Clone(tenant)] = make(map[string]encrypt.Row)
	}
	for _, row := range rows {
		row = clone(row)
		m.rows[tenant][row.Record] = row
	}
}

// Page implements encrypt.Rows.
func (m *MemoryRows) Page(_ context.Context, tenant, after string, limit int) ([]encrypt.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	records := slices.Sorted(maps.Keys(m.rows[tenant]))
	from, found := slices.BinarySearch(records, after)
	if found {
		from++
	}
	return m.get(tenant, records[from:min(from+limit, len(records))]), nil
}

// Get implements encrypt.Rows.
func (m *MemoryRows) Get(_ context.Context, tenant string, records []string) ([]encrypt.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(tenant, records), nil
}

func (m *MemoryRows) get(tenant string, records []string) (rows []encrypt.Row) {
	for _, record := range records {
		if row, ok := m.rows[tenant][record]; ok {
			rows = append(rows, clone(row))
		}
	}
	return rows
}

// Swap implements encrypt.Rows; then gets no transaction.
func (m *MemoryRows) Swap(_ context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) (stale []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var swapped []string
	after := make(map[string]encrypt.Row, len(changes))
	for _, change := range changes {
		row, ok := m.rows[tenant][change.Was.Record]
		if !ok || row.Client != change.Was.Client || !same(row.Sealed, change.Was.Sealed) || !same(row.Legacy, change.Was.Legacy) {
			stale = append(stale, change.Was.Record)
			continue
		}
		row = clone(row)
		row.Sealed, row.Legacy = with(row.Sealed, change.Sealed), with(row.Legacy, change.Legacy)
		after[row.Record] = clone(row)
		swapped = append(swapped, row.Record)
	}
	if then != nil && len(swapped) > 0 {
		if err := then(nil, swapped); err != nil {
			return nil, err
		}
	}
	maps.Copy(m.rows[tenant], after)
	return stale, nil
}

func clone(row encrypt.Row) encrypt.Row {
	values := func(m map[string][]byte) map[string][]byte {
		if m == nil {
			return nil
		}
		cloned := make(map[string][]byte, len(m))
		for field, value := range m {
			cloned[strings.Clone(field)] = bytes.Clone(value)
		}
		return cloned
	}
	row.Record, row.Client = strings.Clone(row.Record), strings.Clone(row.Client)
	row.Sealed, row.Legacy = values(row.Sealed), values(row.Legacy)
	return row
}

func with(values, changed map[string][]byte) map[string][]byte {
	if values == nil {
		return maps.Clone(changed)
	}
	maps.Copy(values, changed)
	return values
}

// same tells NULL from a value that is empty.
func same(a, b map[string][]byte) bool {
	for field := range with(maps.Clone(a), b) {
		if !bytes.Equal(a[field], b[field]) || (a[field] == nil) != (b[field] == nil) {
			return false
		}
	}
	return true
}
