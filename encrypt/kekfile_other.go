//go:build !unix || aix || (solaris && !illumos)

package encrypt

import (
	"context"
	"errors"
	"os"
)

var errNoPermissions = errors.New("this system has no Unix permissions or locks to rely on: use a KMS as KEK")

func checkKeyFile(*os.File, string) error { return errNoPermissions }

func openOwn(string) (*os.File, error) { return nil, errNoPermissions }

func keepOwner(*os.File, os.FileInfo) error { return errNoPermissions }

func lockFile(context.Context, string) (func() error, error) { return nil, errNoPermissions }
