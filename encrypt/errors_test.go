package encrypt_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

// An error names its package once, alone and with what is said around it.
func TestErrorsNameThePackageOnce(t *testing.T) {
	for _, err := range []error{encrypt.ErrReadAgain, encrypt.ErrFIPS, encrypt.ErrPassphrase,
		encrypt.ErrKeyFileExposed, encrypt.ErrKeyFileInside, encrypt.ErrKeyFileLinked, encrypt.ErrKeyFileMalformed} {
		for _, err := range []error{err, &encrypt.KeyFileError{Path: "kek.json", Err: err}} {
			require.True(t, strings.HasPrefix(err.Error(), "encrypt: "), err)
			require.Equal(t, 1, strings.Count(err.Error(), "encrypt: "), err)
		}
	}
	path := filepath.Join(t.TempDir(), "kek.json")
	_, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = encrypt.OpenKeyFile(path, "", false)
	require.ErrorIs(t, err, encrypt.ErrKeyFileExposed)
	require.ErrorContains(t, err, "mode 0644")
	require.Equal(t, 1, strings.Count(err.Error(), "encrypt: "), err)
}
