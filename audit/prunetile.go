package audit

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// What is kept of the tree over entries that are removed: the root of each tile and
// of each larger subtree, and for every checkpoint within a tile the hashes that
// lead from its root to the tile's, so that it stays provable and verifiable.

func peakCount(size int64) int { return bits.OnesCount64(uint64(size)) } //nolint:gosec // never negative

// tile is one that is about to be removed.
type tile struct {
	first  int64
	hashes [][][32]byte // of each row
	needed [tileLevel][tileSize]bool
}

// need marks what a checkpoint of this size within the tile takes.
func (t *tile) need(size int64) error {
	within := size - t.first
	if within <= 0 || within >= tileSize {
		return nil // its tree is made of whole tiles
	}
	mark := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		for _, index := range indexes {
			if level, n := tlog.SplitStoredHashIndex(index); level < tileLevel {
				t.needed[level][(n+1)<<level-1] = true
			}
		}
		return make([]tlog.Hash, len(indexes)), nil
	})
	_, err := tlog.TreeHash(within, mark)
	if err == nil {
		_, err = tlog.ProveTree(tileSize, within, mark)
	}
	return err
}

// nodes returns what is kept of the tile, in order.
func (t *tile) nodes() []Node {
	var nodes []Node
	for i, hashes := range t.hashes {
		for level, h := range hashes {
			if level >= tileLevel || t.needed[level][i] {
				nodes = append(nodes, Node{Seq: t.first + int64(i), Level: level, Hash: h})
			}
		}
	}
	return nodes
}

// treeNode reads the root of subtree n of 2^level entries, from the row that completed
// it, or from what is kept of that.
func treeNode(ctx context.Context, s Store, level int, n int64) (tlog.Hash, error) {
	seq := (n+1)<<level - 1
	row, err := readOne(ctx, s, seq)
	if errors.Is(err, ErrPruned) {
		nodes, err := s.(Pruner).Nodes(ctx, seq, level, 1) //nolint:forcetypeassert // or nothing would be pruned
		if err != nil {
			return tlog.Hash{}, fmt.Errorf("audit: read a hash of what was pruned: %w", err)
		}
		if len(nodes) == 0 || nodes[0].Seq != seq || nodes[0].Level != level {
			return tlog.Hash{}, &BrokenError{Seq: seq, Detail: "it was removed by retention, and the hash of the tree that is needed is not kept"}
		}
		return nodes[0].Hash, nil
	}
	if err != nil {
		return tlog.Hash{}, err
	}
	if len(row.Hashes) <= level {
		return tlog.Hash{}, &BrokenError{Seq: seq, Detail: "hashes of the tree are missing"}
	}
	return row.Hashes[level], nil
}

// keptNodes goes through what is kept of a log that was pruned, tile by tile.
type keptNodes struct {
	store Pruner
	list  []Node
	seq   int64
	level int
	ended bool
}

// tile returns the nodes with numbers from first to first+255.
func (k *keptNodes) tile(ctx context.Context, first int64) (map[int64]tlog.Hash, []Node, error) {
	within := make(map[int64]tlog.Hash)
	var above []Node
	for {
		if len(k.list) == 0 && !k.ended {
			var err error
			if k.list, err = k.store.Nodes(ctx, k.seq, k.level, pageSize); err != nil {
				return nil, nil, fmt.Errorf("audit: read hashes of what was pruned: %w", err)
			}
			if k.ended = len(k.list) == 0; !k.ended {
				last := &k.list[len(k.list)-1]
				k.seq, k.level = last.Seq, last.Level+1
			}
		}
		if len(k.list) == 0 || k.list[0].Seq >= first+tileSize {
			return within, above, nil
		}
		n := k.list[0]
		k.list = k.list[1:]
		if n.Level >= tileLevel {
			above = append(above, n)
			continue
		}
		if n.Level < 0 || n.Seq < first || (n.Seq+1)&(1<<n.Level-1) != 0 {
			return nil, nil, &BrokenError{Seq: max(n.Seq, 0), Detail: "a hash of what was pruned is none of the tree"}
		}
		within[tlog.StoredHashIndex(n.Level, (n.Seq-first)>>n.Level)] = n.Hash
	}
}

// complete adds a whole tile, and reports whether above are the subtrees that it
// completes, its own first.
func (p *position) complete(above []Node) bool {
	p.size += tileSize
	last := p.size - 1
	if len(above) != hashCount(last)-tileLevel {
		return false
	}
	node := tlog.Hash(above[0].Hash)
	for i, n := range above {
		if n.Seq != last || n.Level != tileLevel+i {
			return false
		}
		if i > 0 {
			end := len(p.peaks) - 1
			node = nodeHash(p.peaks[end], node)
			p.peaks = p.peaks[:end]
		}
		if node != n.Hash {
			return false
		}
	}
	p.peaks = append(p.peaks, node)
	return true
}

// within returns the root of the first size entries, and checks that the hashes
// which it is made of lead to that of the tile.
func within(before *position, size int64, nodes map[int64]tlog.Hash, root tlog.Hash) (tlog.Hash, bool) {
	read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			h, ok := nodes[index]
			if !ok {
				return nil, errNotConsistent
			}
			hashes[i] = h
		}
		return hashes, nil
	})
	n := size - before.size
	part, err := tlog.TreeHash(n, read)
	if err != nil {
		return tlog.Hash{}, false
	}
	proof, err := tlog.ProveTree(tileSize, n, read)
	if err != nil || tlog.CheckTree(proof, tileSize, root, n, part) != nil {
		return tlog.Hash{}, false
	}
	node := part
	for _, peak := range slices.Backward(before.peaks) {
		node = nodeHash(peak, node)
	}
	return node, true
}
