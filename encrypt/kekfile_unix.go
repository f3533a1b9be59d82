//go:build unix && !aix && (!solaris || illumos)

package encrypt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// checkKeyFile refuses a file that others can read, replace or reach by another
// name.
func checkKeyFile(file *os.File, dir string) error {
	info, err := file.Stat()
	if err != nil {
		return pathless(err)
	}
	if info.Mode().Perm()&0o077 != 0 || !ours(info) {
		return fmt.Errorf("%w (mode %04o)", ErrKeyFileExposed, info.Mode().Perm())
	}
	folder, err := os.Stat(dir)
	if err != nil {
		return pathless(err)
	}
	// In a sticky folder, such as /tmp, others cannot replace what is not theirs, but
	// they can take the names beside it.
	if folder.Mode().Perm()&0o022 != 0 || !ours(folder) {
		return fmt.Errorf("%w (folder with mode %04o)", ErrKeyFileExposed, folder.Mode().Perm())
	}
	// A process that makes or replaces the file gives it two names for a moment.
	for range 50 {
		if info, err = file.Stat(); err != nil {
			return pathless(err)
		}
		if info.Sys().(*syscall.Stat_t).Nlink <= 1 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return ErrKeyFileLinked
}

// ours reports whether a file belongs to this process's user or to root.
func ours(info os.FileInfo) bool {
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	return owner == os.Geteuid() || owner == 0
}

// openOwn opens for writing what this program has left behind, and nothing else.
func openOwn(name string) (*os.File, error) {
	const flags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	read, err := os.OpenFile(name, os.O_RDONLY|flags, 0) //nolint:gosec // the host chooses the path
	if err != nil {
		return nil, err
	}
	info, err := read.Stat()
	if err == nil && (!info.Mode().IsRegular() || !ours(info) || info.Sys().(*syscall.Stat_t).Nlink != 1) {
		err = errNotOurs
	}
	if err == nil {
		err = read.Chmod(0o600) // its owner may have made it read-only
	}
	if err := errors.Join(err, read.Close()); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|flags, 0) //nolint:gosec // the host chooses the path
	if err != nil {
		return nil, err
	}
	now, err := file.Stat()
	if err == nil && !os.SameFile(now, info) {
		err = errNotOurs
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// keepOwner gives a file the owner and group of another one.
func keepOwner(file *os.File, like os.FileInfo) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	is, was := info.Sys().(*syscall.Stat_t), like.Sys().(*syscall.Stat_t)
	if is.Uid == was.Uid && is.Gid == was.Gid {
		return nil
	}
	return file.Chown(int(was.Uid), int(was.Gid))
}

// lockFile keeps all others out, also in this process, until unlock is called or the
// process ends. The file is removed with the lock: who waited for it sees that it is
// no longer the one with the name, and starts again.
func lockFile(ctx context.Context, name string) (unlock func() error, err error) {
	for {
		// Through a link that somebody has put there it would make a file elsewhere.
		file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600) //nolint:gosec // the host chooses the path
		if err != nil {
			return nil, pathless(err)
		}
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a file descriptor
		if err == nil {
			mine, err := file.Stat()
			if err != nil {
				return nil, errors.Join(pathless(err), file.Close())
			}
			if there, err := os.Lstat(name); err == nil && os.SameFile(mine, there) {
				return func() error { return pathless(errors.Join(os.Remove(name), file.Close())) }, nil
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, errors.Join(pathless(err), file.Close())
			}
		}
		if closeErr := file.Close(); closeErr != nil {
			return nil, closeErr
		}
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, fmt.Errorf("lock: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another process is changing it: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
