//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// canHide reports whether a file is a terminal, which shows what is typed.
func canHide(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), getTermios) //nolint:gosec // descriptors are small
	return err == nil
}

// hide makes a terminal show nothing of what is typed until show is called.
func hide(f *os.File) (show func() error, err error) {
	fd := int(f.Fd()) //nolint:gosec // descriptors are small
	before, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	silent := *before
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, setTermios, &silent); err != nil {
		return nil, err
	}
	return func() error { return unix.IoctlSetTermios(fd, setTermios, before) }, nil
}
