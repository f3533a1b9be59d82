//go:build !unix

package audit

import (
	"errors"
	"fmt"
	"os"
)

// lockFile refuses: without a lock that ends with the process, two processes
// could write one log.
func lockFile(string) (*os.File, error) {
	return nil, fmt.Errorf("the file store locks its folder with flock: %w", errors.ErrUnsupported)
}
