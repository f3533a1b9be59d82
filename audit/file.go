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

const (
	maxSegment  = 64 << 20  // when a new file is begun
	segmentRoom = 512 << 10 // what is added to one at once, as soon as it holds as much
	maxFrames   = 1 << 20   // of memory that is kept from batch to batch
)

var zeros [segmentRoom]byte

// File is a store in a folder of its own: for one process, without a database.
//
// Each batch is written and flushed once. It is written over zeros, which is half the
// work for the disk of making a file longer. A write that a crash cut short is
// dropped when the next one is made: nobody was told that it succeeded. A file
// that was changed otherwise still opens, so that [VerifyStore] can say where, but
// a [Log] refuses it. A file that is removed, renamed or written by somebody else
// while it is in use ends the use: [ErrPoisoned]. It keeps about 60 bytes of memory
// an entry; Find reads backwards through the files, without an index.
type File struct {
	ops
	dir  string
	lock tail // nothing is written to it

	mu          sync.RWMutex
	log         [16]byte
	segments    []*segment
	size        int64
	last        [32]byte // leaf of the last entry
	known       map[[32]byte]struct{}
	checkpoints []Checkpoint
	pruned      Pruning
	nodes       []Node   // of what was pruned
	leftover    []string // files of entries that were pruned
	signed      tail     // the file of checkpoints
	unfinished  bool     // the last batch may be what a crash left
	damage      error    // found when opened
	unsigned    error    // the file of checkpoints is damaged
	flushed     bool     // what was there when opened is on the disk
	poison      error    // ErrPoisoned or ErrClosed
	maxSegment  int64
	room        int64  // segmentRoom
	frames      []byte // memory for those of a batch
}

var (
	_ Store  = (*File)(nil)
	_ Pruner = (*File)(nil)
)

// ops are all that changes files, and so what durability hangs on.
type ops struct {
	sync     func(*os.File) error
	syncDir  func(dir string) error
	writeAt  func(f *os.File, b []byte, at int64) (int, error)
	open     func(path string, flag int, mode os.FileMode) (*os.File, error)
	truncate func(f *os.File, size int64) error
	rename   func(from, to string) error
	remove   func(path string) error
	makeDirs func(path string, mode os.FileMode) error
}

var realOps = ops{
	sync: (*os.File).Sync, syncDir: syncDir, writeAt: (*os.File).WriteAt, open: os.OpenFile, truncate: (*os.File).Truncate,
	rename: os.Rename, remove: os.Remove, makeDirs: os.MkdirAll,
}

// tail is the end of a file that is written to.
type tail struct {
	file *os.File
	size int64 // of what is right
	end  int64 // of the file: beyond size is what a crash left, or
	room bool  // zeros, to be written over
	step int64 // how much room it gets when it has to become longer

	opened os.FileInfo // what it is; nil: not asked yet
	last   int64       // where the last write that was found begins; 0: none was
}

// OpenFile opens the store in dir, or makes one. A second process, or a second
// OpenFile, gets an error. Close it after its Log.
func OpenFile(dir string) (*File, error) {
	f, err := openFile(dir, realOps)
	if err != nil {
		return nil, fmt.Errorf("audit: open %s: %w", dir, err)
	}
	return f, nil
}

func openFile(dir string, o ops) (*File, error) {
	dir, lock, err := o.lockDir(dir)
	if err != nil {
		return nil, err
	}
	f := &File{ops: o, dir: dir, lock: lock, known: make(map[[32]byte]struct{}), maxSegment: maxSegment, room: segmentRoom}
	// One after the other: checkpoints that were begun beside entries that could not
	// be would make the next one who opens the folder miss the entries.
	for _, load := range []func() error{f.loadPruned, f.load, f.loadCheckpoints} {
		if err := load(); err != nil {
			return nil, errors.Join(err, f.closeFiles())
		}
	}
	if n := len(f.checkpoints); f.unfinished && f.unsigned == nil && (n == 0 || f.checkpoints[n-1].Size <= f.size) {
		f.damage = nil
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
	for len(firsts) > 1 && firsts[1] <= f.pruned.Size {
		f.leftover = append(f.leftover, filepath.Join(f.dir, segmentName(firsts[0])))
		firsts = firsts[1:]
	}
	if firsts[0] <= f.pruned.Size {
		f.size = firsts[0]
	}
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
	file, err := f.open(filepath.Join(f.dir, segmentName(first)), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s := &segment{tail: tail{file: file}, first: first}
	f.segments = append(f.segments, s)
	content, err := os.ReadFile(file.Name())
	if err != nil {
		return err
	}
	s.end = int64(len(content))
	damaged, torn := s.scan(content, &f.log, func(r *Row) {
		if r.Seq >= f.pruned.Size {
			f.known[r.Keys.id()] = struct{}{}
		}
		f.size, f.last = r.Seq+1, r.leaf()
	})
	switch {
	case damaged >= 0:
		f.damaged(damaged, "it is damaged in the file")
		f.unfinished = last && s.size > 0 && !batchAfter(content, int(s.size))
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
		f.signed, err = f.createFile(f.dir, checkpointName, head)
		return err
	}
	if err != nil {
		return err
	}
	if f.signed.file, err = f.open(path, os.O_RDWR, 0); err != nil {
		return err
	}
	f.signed.end = int64(len(content))
	kind, payload, n, state := readFrame(content, 0)
	if state != frameOK || kind != frameFile || string(payload) != checkpointHead+string(f.log[:]) {
		f.unsigned = &BrokenError{Detail: "the file of checkpoints is damaged"}
		return nil
	}
	for f.signed.size = int64(n); f.signed.size < int64(len(content)); f.signed.size += int64(n) {
		kind, payload, n, state = readFrame(content, int(f.signed.size))
		if state == frameTorn {
			return nil
		}
		c, ok := parseSigned(kind, payload)
		if state != frameOK || !ok {
			f.unsigned = &BrokenError{Detail: "the file of checkpoints is damaged"}
			return nil
		}
		f.checkpoints = insertCheckpoint(f.checkpoints, c)
		f.signed.last = f.signed.size
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
		h.Last = f.last
	}
	return h
}

// view is what a reader goes through without keeping anybody from writing.
type view struct {
	segments []segment
	first    int64 // those before were pruned
	size     int64
}

func (f *File) view() (view, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if errors.Is(f.poison, ErrClosed) {
		return view{}, ErrClosed
	}
	v := view{segments: make([]segment, len(f.segments)), first: f.pruned.Size, size: f.size}
	for i, s := range f.segments {
		v.segments[i] = *s
	}
	return v, nil
}

func (v *view) row(seq int64) (Row, error) {
	i, found := slices.BinarySearchFunc(v.segments, seq, func(s segment, seq int64) int { return cmp.Compare(s.first, seq) })
	if !found {
		i--
	}
	return v.segments[i].read(seq)
}

// Read implements [Store].
func (f *File) Read(ctx context.Context, from int64, n int) ([]Row, error) {
	v, err := f.view()
	if err != nil {
		return nil, err
	}
	var rows []Row
	for seq := max(from, v.first); seq < v.size && len(rows) < n; seq++ {
		row, err := v.row(seq)
		if err != nil && len(rows) > 0 {
			return rows, nil
		}
		if errors.Is(err, ErrClosed) && ctx.Err() == nil {
			return f.Read(ctx, from, n) // the file was pruned meanwhile, or all are closed
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

// Find implements [Store].
func (f *File) Find(ctx context.Context, q Query) ([]Row, error) {
	if len(q.Pseudonyms) > 0 {
		return nil, fmt.Errorf("audit: files keep no pseudonyms: %w", errors.ErrUnsupported)
	}
	v, err := f.view()
	if err != nil {
		return nil, err
	}
	var found []Row
	for seq := newest(q, v.size); seq >= v.first && len(found) < q.Limit; seq-- {
		if seq%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		row, err := v.row(seq)
		if _, broken := errors.AsType[*BrokenError](err); broken {
			continue // one entry must not hide those before it
		}
		if errors.Is(err, ErrClosed) {
			return f.Find(ctx, q)
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
	f.giveBack()
	f.poison = ErrClosed
	return f.closeFiles()
}

func (f *File) closeFiles() error {
	var err error
	for _, s := range f.segments {
		err = errors.Join(err, s.file.Close())
	}
	if f.signed.file != nil {
		err = errors.Join(err, f.signed.file.Close())
	}
	return errors.Join(err, f.lock.file.Close())
}
