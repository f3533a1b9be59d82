package audit

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// chainStart is what the first entry has in the place of the leaf before. Leaves are hashes
// of what begins with 0x00.
func chainStart(log [16]byte) [32]byte {
	return sha256.Sum256(append([]byte("crmguard audit chain 1\n"), log[:]...))
}

// nodeInput is what is hashed for a node of the tree.
type nodeInput [1 + 2*sha256.Size]byte

func (in *nodeInput) set(left, right *[32]byte) []byte {
	in[0] = 1
	copy(in[1:], left[:])
	copy(in[1+sha256.Size:], right[:])
	return in[:]
}

// nodeHash is [tlog.NodeHash] without an allocation.
func nodeHash(left, right [32]byte) [32]byte {
	var in nodeInput
	return sha256.Sum256(in.set(&left, &right))
}

// position is a log up to some entry: what is needed to add the next one and to
// say the root of the tree. The zero value is of no use; see start.
type position struct {
	log   [16]byte
	size  int64
	last  [32]byte    // leaf of the entry before, with which the record of the next one is chained
	peaks []tlog.Hash // roots of the perfect subtrees, largest first: one for each bit of size
}

func start(log [16]byte) position { return position{log: log, last: chainStart(log)} }

// addLeaf appends a record, which is chained to the last, with its leaf, and returns its
// row, without keys. The hashes of the row are the leaf and then the root of each subtree
// that this leaf completes; they are put into memory that is there.
func (p *position) addLeaf(rec []byte, leaf [32]byte, hashes [][32]byte) Row {
	p.last = leaf
	row := Row{Seq: p.size, Record: rec, Hashes: append(hashes, leaf)}
	node := leaf
	for range bits.TrailingZeros64(^uint64(p.size)) { //nolint:gosec // never negative
		last := len(p.peaks) - 1
		node = nodeHash(p.peaks[last], node)
		p.peaks = p.peaks[:last]
		row.Hashes = append(row.Hashes, node)
	}
	p.peaks = append(p.peaks, node)
	p.size++
	return row
}

// hashCount is how many hashes the row with this number has.
func hashCount(seq int64) int { return 1 + bits.TrailingZeros64(^uint64(seq)) } //nolint:gosec // never negative

// clone returns a position that can go on by itself.
func (p *position) clone() position {
	q := *p
	q.peaks = append(make([]tlog.Hash, 0, len(p.peaks)+8), p.peaks...)
	return q
}

// peak is the root of the perfect subtree of 2^level entries that ends the log, as
// far as its larger ones are left out. Bit level of size must be set.
func (p *position) peak(level int) [32]byte {
	return p.peaks[bits.OnesCount64(uint64(p.size)>>(level+1))] //nolint:gosec // never negative
}

// root is the Merkle tree hash of RFC 6962, section 2.1.
func (p *position) root() tlog.Hash {
	if p.size == 0 {
		return sha256.Sum256(nil)
	}
	last := len(p.peaks) - 1
	node := p.peaks[last]
	for i := last - 1; i >= 0; i-- {
		node = nodeHash(p.peaks[i], node)
	}
	return node
}

// head is what a store is expected to stand at.
func (p *position) head() Head {
	h := Head{Log: p.log, Size: p.size}
	if p.size > 0 {
		h.Last = p.last
	}
	return h
}

// at reads the position after size entries from what the store keeps beside the
// records, without hashing them all.
func at(ctx context.Context, s Store, log [16]byte, size int64) (position, error) {
	p := start(log)
	if size == 0 {
		return p, nil
	}
	p.size = size
	for level := bits.Len64(uint64(size)) - 1; level >= 0; level-- { //nolint:gosec // never negative
		if size>>level&1 == 0 {
			continue
		}
		node, err := treeNode(ctx, s, level, size>>level-1)
		if err != nil {
			return p, err
		}
		p.peaks = append(p.peaks, node)
	}
	row, err := readOne(ctx, s, size-1)
	p.last = row.leaf()
	return p, err
}

// readOne returns an error that wraps [ErrPruned] for an entry that was removed by retention.
func readOne(ctx context.Context, s Store, seq int64) (Row, error) {
	rows, err := s.Read(ctx, seq, 1)
	if err != nil {
		return Row{}, fmt.Errorf("audit: read entry %d: %w", seq, err)
	}
	if len(rows) > 0 && rows[0].Seq == seq {
		return rows[0], nil
	}
	pruned, err := prunedOf(ctx, s)
	switch {
	case err != nil:
		return Row{}, err
	case seq < pruned.Size:
		return Row{}, fmt.Errorf("entry %d: %w", seq, ErrPruned)
	}
	return Row{}, &BrokenError{Seq: seq, Detail: "the entry is missing"}
}
