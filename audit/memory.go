package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"sync"
)

// Memory is a store for tests and for hosts that only try things out: it forgets
// everything with the process.
type Memory struct {
	mu          sync.RWMutex
	log         [16]byte
	first       int64 // number of the first row; those before were pruned
	rows        []Row
	known       map[[32]byte]struct{}
	checkpoints []Checkpoint
	pruned      Pruning
	nodes       []Node
	pseudonyms  map[[32]byte][]Pseudonym // by the id of the row
}

var (
	_ Store  = (*Memory)(nil)
	_ Finder = (*Memory)(nil)
	_ Pruner = (*Memory)(nil)
)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	m := &Memory{known: make(map[[32]byte]struct{}), pseudonyms: make(map[[32]byte][]Pseudonym)}
	_, _ = rand.Read(m.log[:]) // never fails
	return m
}

// Head implements [Store].
func (m *Memory) Head(context.Context) (Head, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.head(), nil
}

func (m *Memory) head() Head {
	h := Head{Log: m.log, Size: m.size()}
	if n := len(m.rows); n > 0 {
		h.Last = m.rows[n-1].leaf()
	}
	return h
}

func (m *Memory) size() int64 { return m.first + int64(len(m.rows)) }

// Append implements [Store].
func (m *Memory) Append(_ context.Context, b Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(b.Taken) > 0 {
		return ErrNoInbox
	}
	if len(b.Rows) > 0 {
		if m.head() != b.After {
			return ErrMoved
		}
		ids, err := newIDs(m.known, b.Rows)
		if err != nil {
			return err
		}
		for i := range b.Rows {
			m.known[ids[i]] = struct{}{}
		}
		rows := cloneRows(b.Rows)
		ownKeys(rows)
		m.rows = append(m.rows, rows...)
	}
	m.addPseudonyms(b.Pseudonyms)
	if b.Checkpoint != nil {
		m.checkpoints = insertCheckpoint(m.checkpoints, *b.Checkpoint)
	}
	return nil
}

// newIDs returns the ids of rows, and a *[DuplicateError] if some are known.
func newIDs(known map[[32]byte]struct{}, rows []Row) ([][32]byte, error) {
	var dup DuplicateError
	ids := make([][32]byte, len(rows))
	for i := range rows {
		ids[i] = rows[i].Keys.id()
		if _, ok := known[ids[i]]; ok {
			dup.Index = append(dup.Index, i)
		}
	}
	if dup.Index != nil {
		return nil, &dup
	}
	return ids, nil
}

func compareSize(c Checkpoint, size int64) int { return cmp.Compare(c.Size, size) }

// insertCheckpoint keeps the order of sizes and the first of each size.
func insertCheckpoint(list []Checkpoint, c Checkpoint) []Checkpoint {
	i, found := slices.BinarySearchFunc(list, c.Size, compareSize)
	if found {
		return list
	}
	return slices.Insert(list, i, c.clone())
}

// peek implements peeker.
func (m *Memory) peek(_ context.Context, from int64, n int) ([]Row, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	size := int64(len(m.rows))
	from = min(max(from-m.first, 0), size)
	return m.rows[from:min(from+int64(n), size)], nil // rows that are there do not change
}

// Read implements [Store].
func (m *Memory) Read(ctx context.Context, from int64, n int) ([]Row, error) {
	rows, err := m.peek(ctx, from, n)
	return cloneRows(rows), err
}

// Find implements [Store]. It looks at every row until the page is full.
func (m *Memory) Find(_ context.Context, q Query) ([]Row, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var found []Row
	for seq := newest(q, m.size()); seq >= m.first && len(found) < q.Limit; seq-- {
		if row := &m.rows[seq-m.first]; row.Keys.matches(&q) && (len(q.Pseudonyms) == 0 || q.hit(m.pseudonyms[row.Keys.id()])) {
			found = append(found, *row)
		}
	}
	return cloneRows(found), nil
}

// newest is the number of the first row to look at.
func newest(q Query, size int64) int64 {
	if q.Before > 0 {
		return min(q.Before, size) - 1
	}
	return size - 1
}

// Checkpoints implements [Store].
func (m *Memory) Checkpoints(_ context.Context, after int64, n int) ([]Checkpoint, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return pageOf(m.checkpoints, after, n), nil
}

func pageOf(list []Checkpoint, after int64, n int) []Checkpoint {
	i, found := slices.BinarySearchFunc(list, after, compareSize)
	if found {
		i++
	}
	page := slices.Clone(list[i:min(i+n, len(list))])
	for i := range page {
		page[i] = page[i].clone()
	}
	return page
}
