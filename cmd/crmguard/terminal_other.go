//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package main

import (
	"errors"
	"os"
)

// canHide is false: elsewhere passphrases come from files and pipes.
func canHide(*os.File) bool { return false }

func hide(*os.File) (func() error, error) {
	return nil, errors.New("this terminal shows what is typed: give the passphrase in a file")
}
