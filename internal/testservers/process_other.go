//go:build !linux

package testservers

import (
	"os"
	"os/exec"
)

var (
	stopSignals = []os.Signal{os.Interrupt, os.Kill}
	crashSignal = os.Kill
)

// account is always nil here: servers run as the current user.
type account struct{}

func unprivileged() (*account, error) { return nil, nil }

func (*account) give(...string) error { return nil }

func (*account) prepare(*exec.Cmd) {}
