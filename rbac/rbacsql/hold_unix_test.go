//go:build unix

package rbacsql_test

import (
	"os"
	"syscall"
)

// hold stops a process, or lets it go on.
func hold(p *os.Process, on bool) error {
	if on {
		return p.Signal(syscall.SIGSTOP)
	}
	return p.Signal(syscall.SIGCONT)
}
