package audit

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
)

// hasher compares with the hashes of the tree and of the chain, many of them in the same
// memory.
//
// What is hashed is short, so that much of the time would go into what [hash.Hash] does
// about its end: it copies its state, pads, and goes on with what it left over. So the
// padding of FIPS 180-4, section 5.1.1, is written behind what is hashed, here. The state of
// SHA-256 after all of these blocks is the hash, and is had as the marshalled state.
type hasher struct {
	sha256 hash.Hash
	state  encoding.BinaryAppender // of sha256; nil: it has another form, and Sum is asked
	room   [128]byte               // for it
	leaf   []byte                  // a zero byte and the record, padded
	chain  [2 * sha256.BlockSize]byte
	node   [2 * sha256.BlockSize]byte
	sum    [sha256.Size]byte
}

// Where the hash stands in what [encoding.BinaryAppender] returns of SHA-256: after "sha\x03".
const (
	stateFrom = 4
	stateTo   = stateFrom + sha256.Size
)

func newHasher() *hasher {
	h := &hasher{sha256: sha256.New()}
	var chain chainInput
	var node nodeInput
	pad(append(h.chain[:0], chain.set(&h.sum, &h.sum)...))
	pad(append(h.node[:0], node.set(&h.sum, &h.sum)...))
	h.state, _ = h.sha256.(encoding.BinaryAppender)
	if known := nodeHash(h.sum, h.sum); !h.isNode(&known, &h.sum, &h.sum) {
		h.state = nil
	}
	return h
}

// pad appends the padding to a message.
func pad(message []byte) []byte {
	n := len(message)
	zeros := (2*sha256.BlockSize - 9 - n%sha256.BlockSize) % sha256.BlockSize
	message = append(message, 0x80)
	message = append(message, make([]byte, zeros)...)
	return binary.BigEndian.AppendUint64(message, uint64(n)*8) //nolint:gosec // never negative
}

// is reports whether the first n bytes of padded have the hash want.
func (h *hasher) is(want *[sha256.Size]byte, padded []byte, n int) bool {
	h.sha256.Reset()
	if h.state == nil {
		h.sha256.Write(padded[:n])
		h.sha256.Sum(h.sum[:0])
		return h.sum == *want
	}
	h.sha256.Write(padded)
	state, err := h.state.AppendBinary(h.room[:0])
	return err == nil && len(state) >= stateTo && [sha256.Size]byte(state[stateFrom:]) == *want
}

// isLeaf compares with [tlog.RecordHash].
func (h *hasher) isLeaf(want *[sha256.Size]byte, record []byte) bool {
	h.leaf = pad(append(append(h.leaf[:0], 0), record...))
	return h.is(want, h.leaf, 1+len(record))
}

// isNode compares with [nodeHash].
func (h *hasher) isNode(want, left, right *[sha256.Size]byte) bool {
	in := (*nodeInput)(h.node[:])
	return h.is(want, h.node[:], len(in.set(left, right)))
}

// isChain compares with [chainNext].
func (h *hasher) isChain(want, previous, leaf *[sha256.Size]byte) bool {
	in := (*chainInput)(h.chain[:])
	return h.is(want, h.chain[:], len(in.set(previous, leaf)))
}
