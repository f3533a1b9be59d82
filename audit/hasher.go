package audit

import (
	"crypto/sha256"
	"hash"
)

// hasher compares with the hashes of the tree, many of them in the same memory, which
// takes less time.
type hasher struct {
	sha256 hash.Hash
	sum    [sha256.Size]byte
	leaf   []byte // a zero byte and the record
	node   nodeInput
}

func newHasher() *hasher { return &hasher{sha256: sha256.New()} }

func (h *hasher) is(want *[sha256.Size]byte, input []byte) bool {
	h.sha256.Reset()
	h.sha256.Write(input)
	h.sha256.Sum(h.sum[:0])
	return h.sum == *want
}

// isLeaf compares with [tlog.RecordHash].
func (h *hasher) isLeaf(want *[sha256.Size]byte, record []byte) bool {
	h.leaf = append(append(h.leaf[:0], 0), record...)
	return h.is(want, h.leaf)
}

// isNode compares with [nodeHash].
func (h *hasher) isNode(want, left, right *[sha256.Size]byte) bool {
	return h.is(want, h.node.set(left, right))
}
