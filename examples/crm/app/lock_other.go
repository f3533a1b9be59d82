//go:build !unix

package app

import (
	"errors"
	"os"
)

func lockFolder(_, _ string) (*os.File, error) {
	return nil, errors.New("this example needs a system with flock, such as Linux or macOS")
}
