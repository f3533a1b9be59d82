package audit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const (
	anchorHead = "crmguard audit anchor 1\n"

	frameAnchored byte = 'A'

	lockEvery = 5 * time.Millisecond // until a lock is tried again that another process has for about as long
)

// FileAnchor is an anchor in one file, to which it only ever adds: on another disk,
// or on a file system of another host, whose owner keeps the journal's host from
// changing what is there. On the journal's own disk it is worth little.
//
// Each Keep locks the file, so that several processes may share it, adds one
// checkpoint and flushes it; they wait for each other. What a crash cut short is overwritten by the next.
// A file that is removed, cut or replaced while a process uses it is not begun
// again: [ErrPoisoned], until somebody has looked and opens the anchor anew. What happened
// between two processes it cannot tell: see [Anchor].
type FileAnchor struct {
	ops
	path     string
	verifier note.Verifier
	clock    func() time.Time

	mu     sync.Mutex
	seen   os.FileInfo // of the file, after the last Keep; nil: there was none
	end    int64       // of what is right in it
	poison error
}

var _ Anchor = (*FileAnchor)(nil)

// NewFileAnchor returns the anchor in the file path, which the first Keep makes if it
// does not exist. The folder exists. Only what v signed is kept and returned.
func NewFileAnchor(path string, v note.Verifier) (*FileAnchor, error) {
	if v == nil {
		return nil, errVerifier
	}
	path, err := filepath.Abs(path) // a host may change its working folder
	if err != nil {
		return nil, fmt.Errorf("audit: anchor: %w", err)
	}
	return &FileAnchor{ops: realOps, path: path, verifier: v, clock: time.Now}, nil
}

// String names the file.
func (f *FileAnchor) String() string { return "file " + f.path }

// Keep implements [Anchor].
func (f *FileAnchor) Keep(ctx context.Context, checkpoint []byte) error {
	if _, err := openOutside(checkpoint, f.verifier); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.poison != nil {
		return f.poison
	}
	if err := f.keep(ctx, checkpoint); err != nil {
		if errors.Is(err, ErrPoisoned) {
			f.poison = err
		}
		return fmt.Errorf("audit: anchor %s: %w", f.path, err)
	}
	return nil
}

func (f *FileAnchor) keep(ctx context.Context, checkpoint []byte) (err error) {
	file, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := f.follow(file); err != nil {
		return err
	}
	var b []byte
	if f.end == 0 {
		b = appendFrame(b, frameFile, []byte(anchorHead))
		if err := f.syncDir(filepath.Dir(f.path)); err != nil {
			return err
		}
	}
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(f.clock().UnixMicro())) //nolint:gosec // after 1970
	b = appendFrame(b, frameAnchored, at[:], checkpoint)
	info, err := file.Stat()
	if err != nil {
		return err
	}
	t := tail{file: file, size: f.end, end: info.Size()}
	if err := f.write(&t, b); err != nil {
		return err
	}
	f.end = t.size
	f.seen, err = file.Stat()
	return err
}

// lock waits for other processes, and looks each time whether the file is the same.
func (f *FileAnchor) lock(ctx context.Context) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, anchorTimeout, errHangs)
	defer cancel()
	for {
		if err := f.same(os.Stat(f.path)); err != nil { // lockFile would make it anew
			return nil, err
		}
		file, err := lockFile(f.path)
		if err == nil {
			if err := f.same(file.Stat()); err != nil {
				return nil, errors.Join(err, file.Close())
			}
			return file, nil
		}
		if !errors.Is(err, errInUse) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		case <-time.After(lockEvery):
		}
	}
}

// same refuses another file than the one that was seen.
func (f *FileAnchor) same(info os.FileInfo, err error) error {
	if f.seen == nil || err == nil && os.SameFile(f.seen, info) {
		return nil
	}
	return errors.Join(fmt.Errorf("the file was removed or replaced: %w", ErrPoisoned), err)
}

// follow finds the end of what is right in the file: at first, and when another
// process added something.
func (f *FileAnchor) follow(file *os.File) error {
	info, err := file.Stat()
	if err != nil || info.Size() == f.end {
		return err
	}
	if info.Size() < f.end {
		return fmt.Errorf("the file was cut: %w", ErrPoisoned)
	}
	content := make([]byte, info.Size())
	if _, err := io.ReadFull(io.NewSectionReader(file, 0, info.Size()), content); err != nil {
		return err
	}
	whole, err := anchored(content, func([]byte, time.Time) bool { return true })
	if err != nil {
		return err
	}
	if int64(whole) < f.end {
		return fmt.Errorf("the file was rewritten: %w", ErrPoisoned)
	}
	f.end = int64(whole)
	return nil
}

// anchored goes through the frames of a file, and returns how much of it is whole.
// What a crash cut short is no error.
func anchored(content []byte, visit func(checkpoint []byte, at time.Time) bool) (whole int, err error) {
	damaged := func() (int, error) { return whole, fmt.Errorf("damaged at byte %d", whole) }
	for whole < len(content) {
		kind, payload, n, state := readFrame(content, whole)
		switch {
		case state == frameTorn:
			return whole, nil
		case state != frameOK:
			return damaged()
		case whole == 0:
			if kind != frameFile || string(payload) != anchorHead {
				return damaged()
			}
		case kind != frameAnchored || len(payload) < 8:
			return damaged()
		default:
			if !visit(payload[8:], time.UnixMicro(int64(binary.BigEndian.Uint64(payload)))) { //nolint:gosec // as it was written
				return whole + n, nil
			}
		}
		whole += n
	}
	return whole, nil
}

func (f *FileAnchor) read(visit func(checkpoint []byte, at time.Time) bool) error {
	content, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = anchored(content, visit)
	}
	if err != nil {
		return fmt.Errorf("audit: anchor %s: %w", f.path, err)
	}
	return nil
}

// Newest implements [Anchor]. It reads the file, in whatever process.
func (f *FileAnchor) Newest(context.Context) (checkpoint []byte, at time.Time, err error) {
	var all []Kept
	err = f.read(func(c []byte, t time.Time) bool {
		all = append(all, Kept{Note: c, At: t})
		return true
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	k := newestKept(all, func(k *Kept) error {
		_, err := openOutside(k.Note, f.verifier)
		return err
	})
	return k.Note, k.At, nil
}

// All returns every checkpoint in the file, in the order in which they were kept.
func (f *FileAnchor) All(context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		more := true
		err := f.read(func(c []byte, _ time.Time) bool {
			more = yield(c, nil)
			return more
		})
		if err != nil && more {
			yield(nil, err)
		}
	}
}
