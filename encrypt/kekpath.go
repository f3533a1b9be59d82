package encrypt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// makeDir makes a folder and those above it, durably: a key that is gone after a
// power cut takes all data with it.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	above := filepath.Dir(dir)
	if above != dir {
		if err := makeDir(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(above)
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the host chooses the path
	if err != nil {
		return pathless(err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// within reports whether path, which is resolved, lies inside dir, symbolic links
// followed. Neither need exist yet.
func within(path, dir string) (bool, error) {
	if dir == "" {
		return false, nil
	}
	dir, err := resolve(dir)
	if err != nil {
		return false, err
	}
	relative, err := filepath.Rel(dir, path)
	if err != nil {
		return false, err
	}
	if relative != ".." && !strings.HasPrefix(relative, ".."+string(filepath.Separator)) {
		return true, nil
	}
	return below(path, dir), nil
}

// below finds dir above path under another name: a bind mount, or other letters where the file
// system takes upper and lower case for the same.
func below(path, dir string) bool {
	data, err := os.Stat(dir)
	if err != nil {
		return false // nothing is inside of what is not there
	}
	for above := filepath.Dir(path); above != path; path, above = above, filepath.Dir(above) {
		if info, err := os.Stat(above); err == nil && os.SameFile(info, data) {
			return true
		}
	}
	return false
}

// resolve follows the links of the part of a path that exists.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for rest := ""; ; {
		resolved, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(resolved, rest), nil
		}
		// A link to nowhere is not "a part that does not exist yet", and what another
		// process has made meanwhile is there now.
		info, statErr := os.Lstat(path)
		switch {
		case !errors.Is(err, fs.ErrNotExist), statErr == nil && info.Mode()&fs.ModeSymlink != 0:
			return "", pathless(err)
		case statErr == nil:
			continue
		}
		above := filepath.Dir(path)
		if above == path {
			return "", pathless(err)
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = above
	}
}

// pathless drops the path, which [KeyFileError] names already.
func pathless(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	return err
}
