package auditout

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// cursorHead is the first line of a cursor's file; id of the log and number follow,
// each on a line of its own.
const cursorHead = "crmguard audit cursor 1\n"

// FileCursor is a [Cursor] in a file.
type FileCursor struct {
	path string
	sync func(*os.File) error
}

// NewFileCursor returns a cursor that keeps itself in a file. The folder must exist.
func NewFileCursor(path string) (*FileCursor, error) {
	path, err := filepath.Abs(path) // a host may change its working folder
	if err != nil {
		return nil, fmt.Errorf("auditout: cursor: %w", err)
	}
	c := &FileCursor{path: path, sync: (*os.File).Sync}
	if _, _, err := c.Load(context.Background()); err != nil {
		return nil, err
	}
	return c, nil
}

// Load implements [Cursor]. A file that is not a cursor is an error, not a new
// beginning.
func (c *FileCursor) Load(context.Context) (log [16]byte, seq int64, err error) {
	b, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return log, -1, nil
	}
	if err != nil {
		return log, -1, fmt.Errorf("auditout: cursor: %w", err)
	}
	log, seq, ok := parseCursor(b)
	if !ok {
		return log, -1, fmt.Errorf("auditout: %s is not a cursor", c.path)
	}
	return log, seq, nil
}

func appendCursor(b []byte, log [16]byte, seq int64) []byte {
	return fmt.Appendf(b, "%s%x\n%d\n", cursorHead, log, seq)
}

// parseCursor accepts exactly what appendCursor makes.
func parseCursor(b []byte) (log [16]byte, seq int64, ok bool) {
	rest, ok := bytes.CutPrefix(b, []byte(cursorHead))
	id, rest, okID := bytes.Cut(rest, []byte("\n"))
	number, _, okSeq := bytes.Cut(rest, []byte("\n"))
	raw, errID := hex.DecodeString(string(id))
	seq, errSeq := strconv.ParseInt(string(number), 10, 64)
	if !ok || !okID || !okSeq || errID != nil || errSeq != nil || len(raw) != len(log) || seq < 0 {
		return log, -1, false
	}
	log = [16]byte(raw)
	return log, seq, bytes.Equal(b, appendCursor(nil, log, seq))
}

// Save implements [Cursor]: a new file is written, flushed, and put in place of the
// old one.
func (c *FileCursor) Save(_ context.Context, log [16]byte, seq int64) error {
	if err := c.save(appendCursor(nil, log, seq)); err != nil {
		return fmt.Errorf("auditout: cursor: %w", err)
	}
	return nil
}

func (c *FileCursor) save(content []byte) error {
	next := c.path + ".next"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the host's own path
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = c.sync(f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, c.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(c.path))
}

// syncDir makes a rename durable, where folders can be flushed.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir) //nolint:gosec // the host's own path
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
