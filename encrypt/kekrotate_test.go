package encrypt_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

// sealed is what a KEK made, with a name for messages.
func wrapped(t *testing.T, kek encrypt.RotatingKEK) []byte {
	t.Helper()
	ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	return ciphertext
}

func requireOpens(t *testing.T, kek encrypt.RotatingKEK, ciphertext []byte) {
	t.Helper()
	plaintext, err := kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(plaintext))
}

func requireWrongKEK(t *testing.T, kek encrypt.RotatingKEK, ciphertext []byte) {
	t.Helper()
	_, err := kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.ErrorIs(t, err, encrypt.ErrWrongKEK)
}

func TestKeyFileRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	kek, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	other, err := encrypt.OpenKeyFile(path, "", false)
	require.NoError(t, err)

	first := wrapped(t, kek)
	require.NoError(t, kek.Rotate(t.Context()))
	second := wrapped(t, kek)
	require.NotEqual(t, first[:5], second[:5], "another key")
	require.Equal(t, second[:5], wrapped(t, other)[:5], "in all processes")
	for _, k := range []encrypt.RotatingKEK{kek, other} {
		requireOpens(t, k, first)
		requireOpens(t, k, second)
	}

	_, err = other.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated, "not its rotation")
	before := time.Now()
	gone, err := kek.DestroyOld(t.Context())
	require.NoError(t, err)
	require.WithinRange(t, gone, before, time.Now())
	for _, k := range []encrypt.RotatingKEK{kek, other} {
		requireWrongKEK(t, k, first)
		requireOpens(t, k, second)
	}
	_, err = kek.DestroyOld(t.Context())
	require.NoError(t, err, "nothing more to do")

	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, kek.Rotate(cancelled), "nobody else holds the lock")
}
