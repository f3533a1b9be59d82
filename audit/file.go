package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// maxSegment is when a new file is begun.
const maxSegment = 64 << 20

// File is a store in a folder of its own: for one process, without a database.
//
// Each batch is written and flushed once. A write that a crash cut short is
// dropped when the next one is made: nobody was told that it succeeded. A file
// that was changed otherwise still opens, so that [VerifyStore] can say where, but
// a [Log] refuses it. It keeps about 60 bytes of memory an entry; Find reads
// backwards through the files, without an index.
type File struct {
	dir  string
	lock *os.File

	mu          sync.RWMutex
	log         [16]byte
	segments    []*segment
	size        int64
	chain       [32]byte
	known       map[[32]byte]struct{}
	checkpoints []Checkpoint
	signed      *os.File
	signedSize  int64
	damage      error // found when opened
	unsigned    error // the file of checkpoints is damaged
	flushed     bool  // what was there when opened is on the disk
	poison      error // ErrPoisoned or ErrClosed
	sync        func(*os.File) error
	maxSegment  int64
}

var _ Store = (*File)(nil)

// OpenFile opens the store in dir, or makes one. A second process, or a second
// OpenFile, gets an error. Close it after its Log.
func OpenFile(dir string) (*File, error) {
	f, err := openFile(dir)
	if err != nil {
		return nil, fmt.Errorf("audit: open %s: %w", dir, err)
	}
	return f, nil
}

func openFile(dir string) (*File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	f := &File{
		dir: dir, lock: lock, known: make(map[[32]byte]struct{}),
		sync: (*os.File).Sync, maxSegment: maxSegment,
	}
	if err := errors.Join(f.load(), f.loadCheckpoints()); err != nil {
		return nil, errors.Join(err, f.closeFiles())
	}
	return f, nil
}

func (f *File) load() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	var firsts []int64
	for _, e := range entries {
		if first, ok := segmentFirst(e.Name()); ok {
			firsts = append(firsts, first)
		}
	}
	if len(firsts) == 0 {
		return f.begin()
	}
	slices.Sort(firsts)
	for i, first := range firsts {
		if f.damage != nil || first != f.size {
			f.damaged(f.size, "entries or a file are missing before it")
			return nil
		}
		if err := f.loadSegment(first, i == len(firsts)-1); err != nil {
			return err
		}
	}
	return nil
}

// begin makes an empty log.
func (f *File) begin() error {
	if _, err := os.Stat(filepath.Join(f.dir, checkpointName)); err == nil {
		f.damaged(0, "the files of entries are missing")
		return nil
	}
	_, _ = rand.Read(f.log[:]) // never fails
	return f.rotate()
}

func (f *File) damaged(seq int64, detail string) {
	if f.damage == nil {
		f.damage = &BrokenError{Seq: seq, Detail: detail}
	}
}

func (f *File) loadSegment(first int64, last bool) error {
	file, err := os.OpenFile(filepath.Join(f.dir, segmentName(first)), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s := &segment{file: file, first: first}
	f.segments = append(f.segments, s)
	content, err := os.ReadFile(file.Name())
	if err != nil {
		return err
	}
	damaged, torn := s.scan(content, &f.log, func(r *Row) {
		f.known[r.Keys.id()] = struct{}{}
		f.size, f.chain = r.Seq+1, r.Chain
	})
	switch {
	case damaged >= 0:
		f.damaged(damaged, "it is damaged in the file")
	case torn && !last:
		f.damaged(f.size, "the file ends early")
	}
	return nil
}

func (f *File) loadCheckpoints() error {
	path := filepath.Join(f.dir, checkpointName)
	content, err := os.ReadFile(path) //nolint:gosec // the host's own path
	if errors.Is(err, fs.ErrNotExist) {
		if f.size > 0 || f.damage != nil {
			f.unsigned = &BrokenError{Detail: "the file of checkpoints is missing"}
			return nil
		}
		head := appendFrame(nil, frameFile, []byte(checkpointHead), f.log[:])
		f.signedSize = int64(len(head))
		f.signed, err = createFile(f.dir, checkpointName, head)
		return err
	}
	if err != nil {
		return err
	}
	if f.signed, err = os.OpenFile(path, os.O_RDWR, 0); err != nil { //nolint:gosec // the host's own path
		return err
	}
	kind, payload, n, state := readFrame(content, 0)
	if state != frameOK || kind != frameFile || string(payload) != checkpointHead+string(f.log[:]) {
		f.unsigned = &BrokenError{Detail: "the file of checkpoints is damaged"}
		return nil
	}
	for f.signedSize = int64(n); f.signedSize < int64(len(content)); f.signedSize += int64(n) {
		kind, payload, n, state = readFrame(content, int(f.signedSize))
		if state == frameTorn {
			return nil
		}
		c, ok := parseSigned(kind, payload)
		if state != frameOK || !ok {
			f.unsigned = &BrokenError{Detail: "the file of checkpoints is damaged"}
			return nil
		}
		f.checkpoints = insertCheckpoint(f.checkpoints, c)
	}
	return nil
}

// Head implements [Store].
func (f *File) Head(context.Context) (Head, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.head(), f.damage
}

func (f *File) head() Head {
	h := Head{Log: f.log, Size: f.size}
	if f.size > 0 {
		h.Chain = f.chain
	}
	return h
}

// Read implements [Store].
func (f *File) Read(_ context.Context, from int64, n int) ([]Row, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if errors.Is(f.poison, ErrClosed) {
		return nil, ErrClosed
	}
	var rows []Row
	for seq := max(from, 0); seq < f.size && len(rows) < n; seq++ {
		row, err := f.row(seq)
		if err != nil && len(rows) > 0 {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 && f.damage != nil {
		return nil, f.damage
	}
	return rows, nil
}

func (f *File) row(seq int64) (Row, error) {
	i, found := slices.BinarySearchFunc(f.segments, seq, func(s *segment, seq int64) int { return cmp.Compare(s.first, seq) })
	if !found {
		i--
	}
	return f.segments[i].read(seq)
}

// Find implements [Store].
func (f *File) Find(ctx context.Context, q Query) ([]Row, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if errors.Is(f.poison, ErrClosed) {
		return nil, ErrClosed
	}
	var found []Row
	for seq := newest(q, f.size); seq >= 0 && len(found) < q.Limit; seq-- {
		if seq%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		row, err := f.row(seq)
		if _, broken := errors.AsType[*BrokenError](err); broken {
			continue // one entry must not hide those before it
		}
		if err != nil {
			return nil, err
		}
		if row.Keys.matches(&q) {
			found = append(found, row)
		}
	}
	return found, nil
}

// Checkpoints implements [Store].
func (f *File) Checkpoints(_ context.Context, after int64, n int) ([]Checkpoint, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.unsigned != nil {
		return nil, f.unsigned
	}
	return pageOf(f.checkpoints, after, n), nil
}

// Close releases the folder. A second call does nothing.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(f.poison, ErrClosed) {
		return nil
	}
	f.poison = ErrClosed
	return f.closeFiles()
}

func (f *File) closeFiles() error {
	var err error
	for _, s := range f.segments {
		err = errors.Join(err, s.file.Close())
	}
	if f.signed != nil {
		err = errors.Join(err, f.signed.Close())
	}
	return errors.Join(err, f.lock.Close())
}
