package auditout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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

// File is a [Writer] to a file, flushed before a batch counts as delivered.
type File struct {
	Writer
	file *os.File
}

// NewFile returns a sink that adds to a file, which only its owner may read.
func NewFile(path string, f Format) (*File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600) //nolint:gosec // the host's own path
	if err != nil {
		return nil, fmt.Errorf("auditout: %w", err)
	}
	s := &File{Writer: Writer{w: file, format: f, sync: file.Sync}, file: file}
	info, err := file.Stat()
	if err == nil && info.Size() > 0 {
		s.began = true
		var last [1]byte
		_, err = file.ReadAt(last[:], info.Size()-1)
		s.torn = last[0] != '\n' // what a crash left
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("auditout: %w", err), file.Close())
	}
	return s, nil
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }
