//go:build unix

package encrypt

import (
	"fmt"
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
		return fmt.Errorf("mode %04o: %w", info.Mode().Perm(), ErrKeyFileExposed)
	}
	folder, err := os.Stat(dir)
	if err != nil {
		return pathless(err)
	}
	// In a sticky folder, such as /tmp, others cannot replace what is not theirs.
	if folder.Mode().Perm()&0o022 != 0 && folder.Mode()&os.ModeSticky == 0 || !ours(folder) {
		return fmt.Errorf("folder with mode %04o: %w", folder.Mode().Perm(), ErrKeyFileExposed)
	}
	// A process that makes the file gives it two names for a moment.
	for range 50 {
		if info, err = file.Stat(); err != nil {
			return pathless(err)
		}
		if info.Sys().(*syscall.Stat_t).Nlink == 1 {
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
