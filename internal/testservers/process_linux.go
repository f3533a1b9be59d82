package testservers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"strconv"
	"syscall"
)

// stopSignals are PostgreSQL's fast and immediate shutdown, and the end.
var stopSignals = []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL}

// crashSignal ends PostgreSQL and its children without a checkpoint.
const crashSignal = syscall.SIGQUIT

// account is the user as whom servers run; nil is the current one.
type account struct{ uid, gid uint32 }

// unprivileged finds a user for a process started by root, which PostgreSQL
// refuses to run as.
func unprivileged() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var errs []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := osuser.Lookup(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("testservers: user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("testservers: user %s: %w", name, err)
		}
		return &account{uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return nil, fmt.Errorf("testservers: PostgreSQL does not run as root: %w", errors.Join(errs...))
}

// give makes the account the owner of paths.
func (a *account) give(paths ...string) error {
	if a == nil {
		return nil
	}
	for _, path := range paths {
		if err := os.Chown(path, int(a.uid), int(a.gid)); err != nil {
			return fmt.Errorf("testservers: %w", err)
		}
	}
	return nil
}

// prepare makes cmd run as the account, in a process group of its own, so that
// Ctrl-C reaches it only through us, and end with us whatever happens.
func (a *account) prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
}
