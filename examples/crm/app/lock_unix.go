//go:build unix

package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockFolder keeps a second process out of the data or keys folder. The kernel
// releases the lock with the process, however it ends.
func lockFolder(dir, what string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the folder is the operator's choice
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil { //nolint:gosec // a descriptor fits
		_ = f.Close() // the first error counts
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the %s folder %s is in use by another process: stop it first, or use another -%s", what, dir, what)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}
