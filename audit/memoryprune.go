package audit

import (
	"bytes"
	"context"
	"fmt"
	"slices"
)

func (p *Pruning) clone() Pruning { return Pruning{Size: p.Size, Note: bytes.Clone(p.Note)} }

// Prune implements [Pruner].
func (m *Memory) Prune(_ context.Context, p Pruning, nodes []Node) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.Size <= m.pruned.Size {
		return nil
	}
	n := p.Size - m.first
	if n >= int64(len(m.rows)) {
		return fmt.Errorf("audit: %d entries cannot be pruned: there are %d", p.Size, m.size())
	}
	for i := range n {
		id := m.rows[i].Keys.id()
		delete(m.known, id)
		delete(m.pseudonyms, id)
	}
	m.rows = slices.Clone(m.rows[n:]) // readers keep what they look at
	m.first, m.pruned, m.nodes = p.Size, p.clone(), mergeNodes(m.nodes, nodes)
	return nil
}

// Pruned implements [Pruner].
func (m *Memory) Pruned(context.Context) (Pruning, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.pruned.clone(), nil
}

// Nodes implements [Pruner].
func (m *Memory) Nodes(_ context.Context, seq int64, level, n int) ([]Node, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return nodesFrom(m.nodes, seq, level, n), nil
}
