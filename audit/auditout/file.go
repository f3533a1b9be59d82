package auditout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Writer is a [Sink] that writes lines. What an error cut off is a line that does not
// parse; the same records follow whole.
type Writer struct {
	w      io.Writer
	format Format
	sync   func() error // nil: there is nothing to flush
	torn   bool         // the last line may have no end
	began  bool         // the header is there
}

var _ Sink = (*Writer)(nil)

// NewWriter returns a sink that writes to w, such as the output of a command.
func NewWriter(w io.Writer, f Format) (*Writer, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return &Writer{w: w, format: f}, nil
}

// Send implements [Sink].
func (w *Writer) Send(_ context.Context, records []Record) error {
	var b []byte
	if w.torn {
		b = append(b, '\n')
	}
	if !w.began {
		b = append(b, w.format.Header()...)
	}
	b, err := w.format.appendAll(b, records)
	if err != nil {
		return err
	}
	w.torn = true
	if _, err := w.w.Write(b); err != nil {
		return fmt.Errorf("auditout: write: %w", err)
	}
	w.torn, w.began = false, true
	if w.sync != nil {
		if err := w.sync(); err != nil {
			return fmt.Errorf("auditout: flush: %w", err)
		}
	}
	return nil
}

// File is a [Writer] to a file, flushed before a batch counts as delivered. If the file
// is renamed or removed, as who rotates files does, it is begun anew: what nobody finds
// is not delivered.
type File struct {
	Writer
	path string
	file *os.File
}

// NewFile returns a sink that adds to a file, which only its owner may read.
func NewFile(path string, f Format) (*File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(path) // a host may change its working folder
	if err != nil {
		return nil, fmt.Errorf("auditout: %w", err)
	}
	s := &File{Writer: Writer{format: f}, path: path}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("auditout: %w", err)
	}
	return s, nil
}

func (f *File) open() error {
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	var last [1]byte
	if err == nil && info.Size() > 0 {
		_, err = file.ReadAt(last[:], info.Size()-1)
	}
	if err == nil {
		err = syncDir(filepath.Dir(f.path)) // its name, too, is there after a crash
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if f.file != nil {
		_ = f.file.Close() // what it holds was flushed
	}
	f.file, f.w, f.sync = file, file, file.Sync
	f.began = info.Size() > 0
	f.torn = f.began && last[0] != '\n' // what a crash left
	return nil
}

// found reports whether the file is the one that others find.
func (f *File) found() (bool, error) {
	opened, err := f.file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && opened.Size() == 0 { // emptied where it lies
		f.began, f.torn = false, false
	}
	return err == nil && os.SameFile(opened, named), err
}

// Send implements [Sink].
func (f *File) Send(ctx context.Context, records []Record) error {
	found, err := f.found()
	if err == nil && !found {
		err = f.open()
	}
	if err != nil {
		return fmt.Errorf("auditout: %w", err)
	}
	if err := f.Writer.Send(ctx, records); err != nil {
		return err
	}
	if found, err = f.found(); err != nil || !found {
		return errors.Join(errors.New("auditout: the file was renamed or removed while it was written"), err)
	}
	return nil
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }
