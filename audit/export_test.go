package audit

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard"
)

// Queued is how many entries wait for the committer.
func Queued(l *Log) int { return len(l.queue) }

// Rows chains records as a log with this id would have, without keys.
func Rows(log [16]byte, records [][]byte) []Row {
	p := start(log)
	rows := make([]Row, len(records))
	for i, r := range records {
		rows[i] = p.chain(r)
	}
	return rows
}

// add appends a record, which is chained to the last.
func (p *position) add(rec []byte) Row {
	return p.addLeaf(rec, tlog.RecordHash(rec), make([][32]byte, 0, hashCount(p.size)))
}

// chain adds a copy of a record that continues the log, if it has the place for that.
func (p *position) chain(rec []byte) Row {
	rec = bytes.Clone(rec)
	if len(rec) >= headSize {
		copy(rec[headSize-len(p.last):], p.last[:])
	}
	return p.add(rec)
}

// ChainStart is what the first entry of a log has in the place of the leaf before.
func ChainStart(log [16]byte) [32]byte { return chainStart(log) }

// Unlink changes what row i says of the one before. The tree is right.
func Unlink(log [16]byte, rows []Row, i int) []Row {
	p := start(log)
	changed := make([]Row, len(rows))
	for n, r := range rows {
		if n == i {
			rec := bytes.Clone(r.Record)
			rec[headSize-1] ^= 1
			changed[n] = p.add(rec)
		} else {
			changed[n] = p.chain(r.Record)
		}
		changed[n].Keys = r.Keys
	}
	return changed
}

// SetSync replaces how a store flushes a file.
func SetSync(f *File, sync func(*os.File) error) { f.sync = sync }

// SetMaxSegment makes a store begin a new file sooner.
func SetMaxSegment(f *File, n int64) { f.maxSegment = n }

// SetRoom makes a store add room to files of n bytes, and n bytes of it.
func SetRoom(f *File, n int64) { f.room = n }

// ScanSegment reads the content of a file of entries, as OpenFile does.
func ScanSegment(content []byte, first int64) (entries int, damaged int64, torn bool) {
	var log [16]byte
	s := &segment{first: first}
	damaged, torn = s.scan(content, &log, func(*Row) {})
	return len(s.offsets), damaged, torn
}

// Reframe makes the checksums of the frame at b right again.
func Reframe(b []byte) {
	n := int(binary.BigEndian.Uint32(b[4:]))
	copy(b, appendFrame(nil, b[0], b[frameHead:frameHead+n]))
}

// EntryOffsets says where in a file of entries each frame begins.
func EntryOffsets(content []byte, first int64) []int {
	var log [16]byte
	s := &segment{first: first}
	s.scan(content, &log, func(*Row) {})
	offsets := make([]int, len(s.offsets))
	for i, o := range s.offsets {
		offsets[i] = int(o)
	}
	return append(offsets, int(s.size))
}

// Root is that of the tree over these rows.
func Root(log [16]byte, rows []Row) tlog.Hash {
	p := start(log)
	for _, r := range rows {
		p.add(r.Record)
	}
	return p.root()
}

// MemoryOf is a store that holds these.
func MemoryOf(log [16]byte, rows []Row, checkpoints []Checkpoint) *Memory {
	m := NewMemory()
	m.log, m.rows, m.checkpoints = log, append(m.rows, rows...), append(m.checkpoints, checkpoints...)
	for _, r := range rows {
		m.known[r.Keys.id()] = struct{}{}
	}
	return m
}

// Aged chains the rows anew, as if they had been recorded so much earlier.
func Aged(log [16]byte, rows []Row, age time.Duration) []Row {
	p := start(log)
	aged := make([]Row, len(rows))
	for i, r := range rows {
		rec, err := decodeRecord(r.Record)
		if err != nil {
			panic(err)
		}
		aged[i] = p.add(append(appendHead(nil, log, r.Seq, rec.recorded.Add(-age), &p.last), r.Record[headSize:]...))
		aged[i].Keys = r.Keys
	}
	return aged
}

// NumberedRecord is a small record with this number after the leaf of another.
func NumberedRecord(log [16]byte, seq int64, previous [32]byte) []byte {
	return append(appendHead(nil, log, seq, time.UnixMicro(1), &previous), smallBody...)
}

var smallBody = func() []byte {
	b, ok := encodeBody(&content{tenant: "t", event: crmguard.Event{ID: "e", Outcome: crmguard.Done, Time: time.UnixMicro(1)}})
	if !ok {
		panic("it fits")
	}
	return b
}()

// Grow adds that many of them to an empty log, and returns the root.
func Grow(log [16]byte, n int, visit func(Row)) tlog.Hash {
	p := start(log)
	for i := range n {
		visit(p.add(NumberedRecord(log, int64(i), p.last)))
	}
	return p.root()
}

// SizeOf reads the size that a checkpoint names.
func SizeOf(note []byte) (int64, error) { return sizeOf(note) }

// SetAnchorOps replaces how an anchor flushes and writes its file; nil leaves it.
func SetAnchorOps(a *FileAnchor, sync func(*os.File) error, writeAt func(*os.File, []byte, int64) (int, error)) {
	if sync != nil {
		a.sync = sync
	}
	if writeAt != nil {
		a.writeAt = writeAt
	}
}

// KeysOf is what a record is found by.
func KeysOf(rec []byte) Keys {
	r, err := decodeRecord(rec)
	if err != nil {
		panic(err)
	}
	return r.keys()
}

// FullRows is a log of n entries that say the same, each under an ID of its own.
func FullRows(log [16]byte, e crmguard.Event, n int) []Row {
	p := start(log)
	rows := make([]Row, n)
	for i := range rows {
		e.ID = newID(e.Time)
		c := &content{tenant: e.Subject.Tenant, event: e}
		rows[i] = p.add(append(appendHead(nil, log, int64(i), e.Time, &p.last), c.fit()...))
		rows[i].Keys = c.keys()
	}
	return rows
}

// SetAnchorClock replaces the time that an anchor writes.
func SetAnchorClock(a *FileAnchor, clock func() time.Time) { a.clock = clock }

// OwnTenant is that of what the log says about itself.
func OwnTenant(l *Log) string { return ownTenant(l.id) }

// SignPruning states that the first size entries were removed.
func SignPruning(t testing.TB, log [16]byte, rows []Row, size int64, signer note.Signer) Pruning {
	t.Helper()
	p := start(log)
	for i := range size {
		rec := []byte{byte(i)}
		if i < int64(len(rows)) {
			rec = rows[i].Record
		}
		p.add(rec)
	}
	s, err := signPruning(&p, signer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
