//go:build !unix

package encrypt

import (
	"errors"
	"os"
)

func checkKeyFile(*os.File, string) error {
	return errors.New("this system has no Unix permissions to check: use a KMS as KEK")
}
