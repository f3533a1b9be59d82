package audit

import (
	"bytes"
	"encoding/binary"
	"time"
	"unicode/utf8"
)

// writer appends what a body is made of. After something that does not fit it
// appends nothing.
type writer struct {
	b        []byte
	tooLarge bool
}

func (w *writer) grow(n int) bool {
	if len(w.b)+n > maxBody {
		w.tooLarge = true
	}
	return !w.tooLarge
}

func (w *writer) byte(v byte) {
	if w.grow(1) {
		w.b = append(w.b, v)
	}
}

func (w *writer) bool(v bool) {
	if v {
		w.byte(1)
		return
	}
	w.byte(0)
}

func (w *writer) int64(v int64) {
	if w.grow(8) {
		w.b = binary.BigEndian.AppendUint64(w.b, uint64(v)) //nolint:gosec // two's complement, read back so
	}
}

func (w *writer) time(t time.Time) { w.int64(micros(t)) }

func (w *writer) count(n int) {
	if w.grow(2) && n < 1<<16 {
		w.b = binary.BigEndian.AppendUint16(w.b, uint16(n)) //nolint:gosec // checked
		return
	}
	w.tooLarge = true
}

func (w *writer) text(s string) {
	if w.grow(len(s)) {
		w.b = append(w.b, s...)
	}
}

func (w *writer) bytes(s []byte) {
	if w.grow(len(s)) {
		w.b = append(w.b, s...)
	}
}

// What a writer wrote, at a place that is there.

func countAt(b []byte, at int) int { return int(b[at])<<8 | int(b[at+1]) }

func int64At(b []byte, at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) } //nolint:gosec // two's complement

// timeAt is for what is a time.
func timeAt(b []byte, at int) time.Time {
	v := int64At(b, at)
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMicro(v).UTC()
}

func isTime(micro int64) bool { return micro >= 0 && micro <= lastMicro }

// isClean reports whether every database stores b as text: it is UTF-8 without NUL.
func isClean(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// isPlain reports whether b holds ASCII without NUL alone, which is clean however it
// is cut.
func isPlain(b []byte) bool {
	// A byte is neither 0 nor more than 127 if it lacks the highest bit, and does not
	// borrow one when 1 is taken away.
	const ones, highest = 0x0101010101010101, 0x8080808080808080
	marks := uint64(0)
	for ; len(b) >= 16; b = b[16:] {
		v, w := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		marks |= v | (v - ones) | w | (w - ones)
	}
	if len(b) >= 8 {
		v := binary.LittleEndian.Uint64(b)
		marks |= v | (v - ones)
		b = b[8:]
	}
	for _, c := range b {
		v := uint64(c)
		marks |= v | (v - 1)
	}
	return marks&highest == 0
}
