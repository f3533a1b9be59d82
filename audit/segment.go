package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// A segment holds consecutive entries. Its name is the number of its first.
const (
	segmentSuffix  = ".entries"
	segmentMagic   = "crmguard audit entries 1\n"
	checkpointName = "checkpoints"
	checkpointHead = "crmguard audit checkpoints 1\n"
)

func segmentName(first int64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

func segmentFirst(name string) (int64, bool) {
	number, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(number) != 20 {
		return 0, false
	}
	first, err := strconv.ParseInt(number, 10, 64)
	return first, err == nil && first >= 0
}

type segment struct {
	tail
	first   int64
	offsets []uint32 // of the frame of each entry
}

func segmentHead(log [16]byte, first int64) []byte {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(first)) //nolint:gosec // never negative
	return appendFrame(nil, frameFile, []byte(segmentMagic), log[:], number[:])
}

func parseSegmentHead(payload []byte) (log [16]byte, first int64, ok bool) {
	rest, ok := bytes.CutPrefix(payload, []byte(segmentMagic))
	if !ok || len(rest) != 24 {
		return log, 0, false
	}
	return [16]byte(rest), int64(binary.BigEndian.Uint64(rest[16:])), true //nolint:gosec // compared with the name
}

// appendEntry appends the frame of an entry: hashes, record.
func appendEntry(b []byte, kind byte, r *Row) []byte {
	b = beginFrame(b, kind, entryBytes(r))
	body := len(b)
	for i := range r.Hashes {
		b = append(b, r.Hashes[i][:]...)
	}
	return endFrame(append(b, r.Record...), body)
}

func entryBytes(r *Row) int { return len(r.Hashes)*sha256.Size + len(r.Record) }

// parseEntry reads the entry with this number. How many hashes it has follows
// from the number.
func parseEntry(payload []byte, seq int64) (Row, bool) {
	n := hashCount(seq)
	if len(payload) < 32*n {
		return Row{}, false
	}
	r := Row{Seq: seq, Hashes: make([][32]byte, n), Record: payload[32*n:]}
	for i := range r.Hashes {
		r.Hashes[i] = [32]byte(payload[32*i:])
	}
	rec, err := decodeRecord(r.Record)
	if err != nil {
		return Row{}, false
	}
	r.Keys = rec.keys()
	return r, true
}

// scan reads the file of a segment. It returns the entry at which it is damaged,
// -1 if it is not; torn says that the file ends within a write that nobody
// acknowledged.
func (s *segment) scan(content []byte, log *[16]byte, visit func(*Row)) (damaged int64, torn bool) {
	kind, payload, n, state := readFrame(content, 0)
	id, first, ok := parseSegmentHead(payload)
	if state != frameOK || kind != frameFile || !ok || first != s.first {
		return s.first, false
	}
	if *log == ([16]byte{}) {
		*log = id
	}
	if *log != id {
		return s.first, false
	}
	for s.size = int64(n); s.size < int64(len(content)); s.size += int64(n) {
		seq := s.first + int64(len(s.offsets))
		kind, payload, n, state = readFrame(content, int(s.size))
		if state == frameTorn {
			return -1, true
		}
		if state != frameOK || !isEntry(kind) {
			return seq, false
		}
		row, ok := parseEntry(payload, seq)
		if !ok {
			return seq, false
		}
		if kind == frameBatch {
			s.last = s.size
		}
		s.offsets = append(s.offsets, uint32(s.size)) //nolint:gosec // segments are small
		visit(&row)
	}
	return -1, false
}

// read returns an entry, checked as scan did.
func (s *segment) read(seq int64) (Row, error) {
	i := seq - s.first
	end := s.size
	if i+1 < int64(len(s.offsets)) {
		end = int64(s.offsets[i+1])
	}
	b := make([]byte, end-int64(s.offsets[i]))
	if _, err := s.file.ReadAt(b, int64(s.offsets[i])); errors.Is(err, fs.ErrClosed) {
		return Row{}, ErrClosed
	} else if err != nil {
		return Row{}, &BrokenError{Seq: seq, Detail: "the file does not hold it any more"}
	}
	kind, payload, _, state := readFrame(b, 0)
	if state == frameOK && isEntry(kind) {
		if row, ok := parseEntry(payload, seq); ok {
			return row, nil
		}
	}
	return Row{}, &BrokenError{Seq: seq, Detail: "it is damaged in the file"}
}
