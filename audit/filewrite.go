package audit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
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

// flushFound flushes what was there when the store was opened: a killed process
// may have written it without a flush, and now it is about to be signed, or
// acknowledged as there already.
func (f *File) flushFound() error {
	if f.flushed {
		return nil
	}
	if err := f.sync(f.segments[len(f.segments)-1].file); err != nil {
		f.poison = ErrPoisoned
		return fmt.Errorf("audit: flush: %w: %w", ErrPoisoned, err)
	}
	f.flushed = true
	return nil
}

func (f *File) appendRows(b Batch) error {
	if f.head() != b.After {
		return ErrMoved
	}
	if err := duplicates(f.known, b.Rows); err != nil {
		return err
	}
	if s := f.segments[len(f.segments)-1]; s.size >= f.maxSegment {
		if err := f.rotate(); err != nil {
			return fmt.Errorf("audit: begin a file: %w", err)
		}
	}
	s := f.segments[len(f.segments)-1]
	var data []byte
	offsets := make([]uint32, len(b.Rows))
	for i := range b.Rows {
		offsets[i] = uint32(s.size) + uint32(len(data)) //nolint:gosec // segments are small
		data = appendEntry(data, &b.Rows[i])
	}
	if err := f.write(s.file, s.size, data); err != nil {
		return err
	}
	s.size += int64(len(data))
	s.offsets = append(s.offsets, offsets...)
	for i := range b.Rows {
		f.known[b.Rows[i].Keys.id()] = struct{}{}
	}
	last := &b.Rows[len(b.Rows)-1]
	f.size, f.chain = last.Seq+1, last.Chain
	return nil
}

func (f *File) appendCheckpoint(c Checkpoint) error {
	if _, found := slices.BinarySearchFunc(f.checkpoints, c.Size, compareSize); found {
		return nil
	}
	data := appendSigned(nil, c)
	if err := f.write(f.signed, f.signedSize, data); err != nil {
		return err
	}
	f.signedSize += int64(len(data))
	f.checkpoints = insertCheckpoint(f.checkpoints, c)
	return nil
}

// rotate begins a new segment.
func (f *File) rotate() error {
	head := segmentHead(f.log, f.size)
	file, err := createFile(f.dir, segmentName(f.size), head)
	if err != nil {
		return err
	}
	f.segments = append(f.segments, &segment{file: file, first: f.size, size: int64(len(head))})
	return nil
}

// write puts data where the file is right so far, over whatever a crash left
// there, and flushes it. A write that failed is taken back, so that a full disk
// can be cleared. After a flush that failed nothing can be known about the file,
// even if a second one succeeds.
func (f *File) write(file *os.File, at int64, data []byte) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if unlinked(info) || info.Size() < at {
		f.poison = ErrPoisoned
		return fmt.Errorf("audit: %s was removed or cut while it was in use: %w", file.Name(), ErrPoisoned)
	}
	if info.Size() > at {
		if err := file.Truncate(at); err != nil {
			return fmt.Errorf("audit: drop an unfinished write: %w", err)
		}
	}
	if _, err := file.WriteAt(data, at); err != nil {
		if undo := file.Truncate(at); undo != nil {
			f.poison = ErrPoisoned
			err = errors.Join(err, undo)
		}
		return fmt.Errorf("audit: write: %w", err)
	}
	if err := f.sync(file); err != nil {
		f.poison = ErrPoisoned
		return fmt.Errorf("audit: flush: %w: %w", ErrPoisoned, err)
	}
	return nil
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
