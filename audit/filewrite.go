package audit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Append implements [Store].
func (f *File) Append(_ context.Context, b Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.poison != nil:
		return f.poison
	case f.damage != nil:
		return f.damage
	case f.unsigned != nil:
		return f.unsigned
	case len(b.Taken) > 0:
		return ErrNoInbox
	}
	if err := f.untouched(); err != nil {
		return err
	}
	if err := f.flushFound(); err != nil {
		return err
	}
	if len(b.Rows) > 0 {
		if err := f.appendRows(b); err != nil {
			return err
		}
	}
	if b.Checkpoint != nil {
		return f.appendCheckpoint(*b.Checkpoint)
	}
	return nil
}

// untouched checks that the files are those that others will find later, and that
// nobody else wrote to them: whoever removes the lock lets a second process in,
// whose entries this one must not write over.
func (f *File) untouched() error {
	for _, t := range []*tail{&f.lock, &f.segments[len(f.segments)-1].tail, &f.signed} {
		if err := t.untouched(); err != nil {
			f.poison = ErrPoisoned
			return err
		}
	}
	return nil
}

// untouched asks the system only what may have changed: which file has the name now.
func (t *tail) untouched() (err error) {
	if t.opened == nil {
		t.opened, err = t.file.Stat()
	}
	named, errName := os.Stat(t.file.Name())
	if err = errors.Join(err, errName); err != nil || !os.SameFile(t.opened, named) {
		return errors.Join(fmt.Errorf("audit: %s was removed or renamed while it was in use: %w", t.file.Name(), ErrPoisoned), err)
	}
	if named.Size() != t.end || !t.empty() {
		return fmt.Errorf("audit: %s was written to or cut by somebody else: %w", t.file.Name(), ErrPoisoned)
	}
	return nil
}

// empty reports whether nobody else began to write where this process goes on.
func (t *tail) empty() bool {
	if !t.room {
		return true
	}
	var head [frameHead]byte
	b := head[:min(frameHead, t.end-t.size)]
	_, err := t.file.ReadAt(b, t.size)
	return err == nil && head == [frameHead]byte{}
}

// flushFound flushes what was there when the store was opened: a killed process
// may have written it without a flush, and now it is about to be signed, or
// acknowledged as there already. The last write is made again: if its flush failed,
// the system may show it all the same, take it for flushed, and never write it.
func (f *File) flushFound() error {
	if f.flushed {
		return nil
	}
	for _, t := range []*tail{&f.segments[len(f.segments)-1].tail, &f.signed} {
		if err := f.cut(t); err != nil {
			return err
		}
		if err := f.rewriteLast(t); err != nil {
			return fmt.Errorf("audit: write what was found again: %w", err)
		}
	}
	err := errors.Join(f.sync(f.segments[len(f.segments)-1].file), f.sync(f.signed.file), f.syncDir(f.dir))
	if err != nil {
		f.poison = ErrPoisoned
		return fmt.Errorf("audit: flush: %w: %w", ErrPoisoned, err)
	}
	f.flushed = true
	if f.pruned.Size > 0 {
		return f.sweep()
	}
	return nil
}

func (f *File) appendRows(b Batch) error {
	if f.head() != b.After {
		return ErrMoved
	}
	ids, err := newIDs(f.known, b.Rows)
	if err != nil {
		return err
	}
	if s := f.segments[len(f.segments)-1]; s.size >= f.maxSegment {
		if err := f.rotate(); err != nil {
			return fmt.Errorf("audit: begin a file: %w", err)
		}
	}
	s := f.segments[len(f.segments)-1]
	if s.size >= f.room {
		s.step = f.room
	}
	size := 0
	for i := range b.Rows {
		size += frameHead + entryBytes(&b.Rows[i]) + frameTail
	}
	data := slices.Grow(f.frames, size)[:0]
	if cap(data) <= maxFrames {
		f.frames = data
	}
	offsets := make([]uint32, len(b.Rows))
	for i := range b.Rows {
		offsets[i] = uint32(s.size) + uint32(len(data)) //nolint:gosec // segments are small
		kind := frameEntry
		if i == 0 {
			kind = frameBatch
		}
		data = appendEntry(data, kind, &b.Rows[i])
	}
	if err := f.write(&s.tail, data); err != nil {
		return err
	}
	s.offsets = append(s.offsets, offsets...)
	for _, id := range ids {
		f.known[id] = struct{}{}
	}
	last := &b.Rows[len(b.Rows)-1]
	f.size, f.last = last.Seq+1, last.leaf()
	return nil
}

func (f *File) appendCheckpoint(c Checkpoint) error {
	if _, found := slices.BinarySearchFunc(f.checkpoints, c.Size, compareSize); found {
		return nil
	}
	if err := f.write(&f.signed, appendSigned(nil, c)); err != nil {
		return err
	}
	f.checkpoints = insertCheckpoint(f.checkpoints, c)
	return nil
}

// rotate begins a new segment. The one before ends with its last entry, or entries would
// be missed after it.
func (f *File) rotate() error {
	if n := len(f.segments); n > 0 && f.segments[n-1].room {
		last := f.segments[n-1]
		if err := f.cut(&last.tail); err != nil {
			return err
		}
		if err := f.sync(last.file); err != nil {
			f.poison = ErrPoisoned
			return fmt.Errorf("flush: %w: %w", ErrPoisoned, err)
		}
	}
	t, err := f.createFile(f.dir, segmentName(f.size), segmentHead(f.log, f.size))
	if err != nil {
		return err
	}
	f.segments = append(f.segments, &segment{tail: t, first: f.size})
	return nil
}

// giveBack removes zeros that nothing was written over. If that fails, the next one who
// writes does it.
func (f *File) giveBack() {
	if n := len(f.segments); n > 0 && f.segments[n-1].room && f.poison == nil && f.untouched() == nil {
		_ = f.cut(&f.segments[n-1].tail)
	}
}

func (f *File) write(t *tail, data []byte) error {
	err := f.ops.write(t, data)
	if errors.Is(err, ErrPoisoned) {
		f.poison = ErrPoisoned
	}
	return err
}

// write adds data to a file, over whatever a crash left there before it was
// opened, and flushes it. A write that failed is taken back, so that a full disk
// can be cleared. After a flush that failed, or a write that cannot be taken back,
// nothing can be known about the file, even if a second one succeeds: [ErrPoisoned].
//
// A file that has to become longer gets room for more, if the disk has that.
func (o *ops) write(t *tail, data []byte) error {
	if !t.room {
		if err := o.cut(t); err != nil {
			return err
		}
	}
	end := t.size + int64(len(data))
	if t.step > 0 && end > t.end {
		if _, err := o.writeAt(t.file, zeros[:t.step], end); err == nil {
			t.end, t.room = end+t.step, true
		} else if err := o.undo(t, nil); err != nil {
			return err
		}
	}
	if _, err := o.writeAt(t.file, data, t.size); err != nil {
		return fmt.Errorf("audit: write: %w", o.undo(t, err))
	}
	if err := o.sync(t.file); err != nil {
		return fmt.Errorf("audit: flush: %w: %w", ErrPoisoned, err)
	}
	t.size, t.end = end, max(t.end, end)
	t.room = t.end > t.size
	return nil
}

// undo takes a write that failed back.
func (o *ops) undo(t *tail, err error) error {
	if undo := o.truncate(t.file, t.size); undo != nil {
		return errors.Join(err, undo, ErrPoisoned)
	}
	t.end, t.room = t.size, false
	return err
}

// cut drops what comes after the end of what is right.
func (o *ops) cut(t *tail) error {
	if t.end == t.size {
		return nil
	}
	if err := o.truncate(t.file, t.size); err != nil {
		return fmt.Errorf("audit: cut the end of a file: %w", err)
	}
	t.end, t.room = t.size, false
	return nil
}

// rewriteLast writes the same bytes to the same place. Those before were flushed
// before the last ones were written.
func (o *ops) rewriteLast(t *tail) error {
	if t.last == 0 {
		return nil
	}
	data := make([]byte, t.size-t.last)
	if _, err := t.file.ReadAt(data, t.last); err != nil {
		return err
	}
	_, err := o.writeAt(t.file, data, t.last)
	return err
}

var errInUse = errors.New("in use by another process")

// lockDir locks a folder, which it makes if it is not there, and returns its full name:
// a host may change its working folder. Nothing is written to the lock.
func (o *ops) lockDir(dir string) (string, tail, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", tail{}, err
	}
	if err := o.makeDir(dir); err != nil {
		return "", tail{}, err
	}
	f, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return "", tail{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return "", tail{}, errors.Join(err, f.Close())
	}
	return dir, tail{file: f, opened: info, size: info.Size(), end: info.Size()}, nil
}

// makeDir makes a folder and those above it, and flushes the names of what it made.
func (o *ops) makeDir(dir string) error {
	var above []string
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		above = append(above, filepath.Dir(at))
	}
	if err := o.makeDirs(dir, 0o700); err != nil {
		return err
	}
	for _, folder := range above {
		if err := o.syncDir(folder); err != nil {
			return err
		}
	}
	return nil
}

// createFile writes a file with its first frame under a temporary name, so that a
// crash leaves no half of it.
func (o *ops) createFile(dir, name string, head []byte) (tail, error) {
	path := filepath.Join(dir, name)
	f, err := o.open(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return tail{}, err
	}
	_, err = o.writeAt(f, head, 0)
	if err = errors.Join(err, o.sync(f), f.Close()); err != nil {
		return tail{}, err
	}
	if err := o.rename(path+".new", path); err != nil {
		return tail{}, err
	}
	if err := o.syncDir(dir); err != nil {
		return tail{}, err
	}
	f, err = o.open(path, os.O_RDWR, 0)
	return tail{file: f, size: int64(len(head)), end: int64(len(head))}, err
}

func appendSigned(b []byte, c Checkpoint) []byte {
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(c.Size)) //nolint:gosec // never negative
	return appendFrame(b, frameCheckpoint, size[:], c.Note)
}

func parseSigned(kind byte, payload []byte) (Checkpoint, bool) {
	if kind != frameCheckpoint || len(payload) < 8 {
		return Checkpoint{}, false
	}
	size := int64(binary.BigEndian.Uint64(payload)) //nolint:gosec // checked
	return Checkpoint{Size: size, Note: payload[8:]}, size >= 0
}
