package audit

import (
	"encoding/binary"
	"hash/crc32"
)

// A file of the store is a sequence of frames: kind, three zero bytes, length of
// the payload, checksum of these eight bytes; payload, checksum of the payload.
// The checksum of the head tells a damaged length from a file that ends early.
const (
	frameHead = 12
	frameTail = 4
	sector    = 512

	frameFile       byte = 'F' // first in each file: says what it is
	frameBatch      byte = 'B' // an entry that begins a batch
	frameEntry      byte = 'E'
	frameCheckpoint byte = 'C'
	frameNodes      byte = 'N'
)

func isEntry(kind byte) bool { return kind == frameEntry || kind == frameBatch }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendFrame(b []byte, kind byte, payload ...[]byte) []byte {
	n := 0
	for _, p := range payload {
		n += len(p)
	}
	b = beginFrame(b, kind, n)
	body := len(b)
	for _, p := range payload {
		b = append(b, p...)
	}
	return endFrame(b, body)
}

// beginFrame appends the head of a frame. The payload, of n bytes, and then the end
// come after it.
func beginFrame(b []byte, kind byte, n int) []byte {
	head := len(b)
	b = append(b, kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(n)) //nolint:gosec // at most a record and its hashes
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[head:], castagnoli))
}

// endFrame ends the frame whose payload begins at body.
func endFrame(b []byte, body int) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[body:], castagnoli))
}

// frameState is what became of a frame.
type frameState uint8

const (
	frameOK      frameState = iota
	frameTorn               // a write that did not end: nothing was acknowledged
	frameDamaged            // it was there and was changed
)

// readFrame reads the frame at b[from:], the rest of a file. A frame is torn if
// the file ends within it, or if from some sector inside it on there are only
// zeros: a file system may have grown the file before it wrote the data.
func readFrame(b []byte, from int) (kind byte, payload []byte, size int, state frameState) {
	f := b[from:]
	if len(f) < frameHead {
		return 0, nil, 0, frameTorn
	}
	if crc32.Checksum(f[:8], castagnoli) != binary.BigEndian.Uint32(f[8:]) || f[1]|f[2]|f[3] != 0 {
		return 0, nil, 0, tornOrDamaged(b, from, from+frameHead)
	}
	n := int(binary.BigEndian.Uint32(f[4:]))
	if len(f)-frameHead-frameTail < n {
		return 0, nil, 0, frameTorn
	}
	size = frameHead + n + frameTail
	payload = f[frameHead : frameHead+n]
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(f[frameHead+n:]) {
		return 0, nil, 0, tornOrDamaged(b, from, from+size)
	}
	return f[0], payload, size, frameOK
}

func tornOrDamaged(b []byte, from, to int) frameState {
	zeros := len(b)
	for zeros > 0 && b[zeros-1] == 0 {
		zeros--
	}
	if zeros <= from {
		return frameTorn
	}
	// The first sector boundary from which on there are only zeros.
	boundary := (zeros + sector - 1) / sector * sector
	if boundary < to && boundary < len(b) {
		return frameTorn
	}
	return frameDamaged
}

// batchAfter looks for a whole frame that begins a batch, after damage at b[from:].
// A batch is written when the one before it is on the disk: without such a frame
// the damage lies in the last batch, whose sectors reach the disk in any order.
func batchAfter(b []byte, from int) bool {
	for i := from + 1; i < len(b); i++ {
		if b[i] != frameBatch {
			continue
		}
		if kind, _, _, state := readFrame(b, i); state == frameOK && kind == frameBatch {
			return true
		}
	}
	return false
}
