package encrypt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

var passphrase = []byte("nine crows on a wire")

func TestPassphraseFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys", "kek.sealed")
	_, err := encrypt.OpenPassphraseFile(path, "", passphrase, false)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = encrypt.OpenPassphraseFile(path, "", []byte("eleven char"), true)
	require.ErrorContains(t, err, "12 bytes")
	require.NoFileExists(t, path)

	kek, err := encrypt.OpenPassphraseFile(path, "", passphrase, true)
	require.NoError(t, err)
	other, err := encrypt.OpenPassphraseFile(path, "", passphrase, true)
	require.NoError(t, err)
	first := wrapped(t, kek)
	require.NoError(t, kek.Rotate(t.Context()))
	second := wrapped(t, other)
	require.NotEqual(t, first[:5], second[:5], "the other process has noticed")
	requireOpens(t, kek, second)
	requireOpens(t, other, first)
	_, err = kek.DestroyOld(t.Context())
	require.NoError(t, err)
	requireWrongKEK(t, other, first)
	reopened, err := encrypt.OpenPassphraseFile(path, "", passphrase, false)
	require.NoError(t, err)
	requireOpens(t, reopened, second)
	require.Equal(t, "encrypt.KEK[redacted]", fmt.Sprintf("%+v", kek))

	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(text), "AesGcmKey")
	for _, wrong := range [][]byte{nil, []byte("nine crows on a wirf"), []byte("nine crows on a wire ")} {
		_, err = encrypt.OpenPassphraseFile(path, "", wrong, true)
		require.ErrorIs(t, err, encrypt.ErrPassphrase, "%q", wrong)
	}
	_, err = encrypt.OpenKeyFile(path, "", true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)
	require.ErrorContains(t, err, "under a passphrase")
	clear := filepath.Join(dir, "keys", "kek.json")
	_, err = encrypt.OpenKeyFile(clear, "", true)
	require.NoError(t, err)
	_, err = encrypt.OpenPassphraseFile(clear, "", passphrase, true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)

	_, err = encrypt.OpenPassphraseFile(path, dir, passphrase, true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileInside)
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = encrypt.OpenPassphraseFile(path, "", passphrase, true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileExposed)
}
