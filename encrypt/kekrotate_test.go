package encrypt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

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
}

// A file that other processes change is never used half-way: each use finds the keys
// that it needs, or says so.
func TestKeyFileIsUsedWhileItRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	rotating, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	var users sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		users.Go(func() {
			kek, err := encrypt.OpenKeyFile(path, "", false)
			require.NoError(t, err)
			for {
				ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("x"), nil)
				if !assert.NoError(t, err) {
					return
				}
				_, err = rotating.DecryptWithContext(t.Context(), ciphertext, nil)
				if errors.Is(err, encrypt.ErrWrongKEK) { // destroyed in between
					_, err = kek.DecryptWithContext(t.Context(), ciphertext, nil)
					assert.ErrorIs(t, err, encrypt.ErrWrongKEK)
				} else {
					assert.NoError(t, err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 20 {
		require.NoError(t, rotating.Rotate(t.Context()))
		_, err := rotating.DestroyOld(t.Context())
		require.NoError(t, err)
	}
	close(done)
	users.Wait()
}

func TestKeyFileKeepsModeAndGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	kek, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	group := os.Getegid()
	if os.Geteuid() == 0 {
		group = 65534
		require.NoError(t, os.Chown(path, 0, group))
	}
	require.NoError(t, os.Chmod(path, 0o400))
	require.NoError(t, kek.Rotate(t.Context()))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o400), info.Mode())
	require.EqualValues(t, group, info.Sys().(*syscall.Stat_t).Gid)
	_, err = kek.DestroyOld(t.Context())
	require.NoError(t, err)
	_, err = encrypt.OpenKeyFile(path, "", false)
	require.NoError(t, err)
}

// While the file is gone or wrong nothing new is encrypted, and what was read before
// goes on decrypting.
func TestKeyFileThatIsGoneOrWrong(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kek.json")
	kek, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	known := wrapped(t, kek)
	other, err := encrypt.OpenKeyFile(filepath.Join(dir, "other.json"), "", true)
	require.NoError(t, err)
	foreign := wrapped(t, other)
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	restore := func() {
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, os.WriteFile(path, good, 0o600))
	}
	for name, c := range map[string]struct {
		damage func() error
		err    error
	}{
		"gone":      {func() error { return os.Remove(path) }, os.ErrNotExist},
		"truncated": {func() error { return os.Truncate(path, 100) }, encrypt.ErrKeyFileMalformed},
		"exposed":   {func() error { return os.Chmod(path, 0o644) }, encrypt.ErrKeyFileExposed},
		"a folder": {func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
			encrypt.ErrKeyFileMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			defer restore()
			require.NoError(t, c.damage())
			_, err := kek.EncryptWithContext(t.Context(), nil, nil)
			require.ErrorIs(t, err, c.err)
			e, ok := errors.AsType[*encrypt.KeyFileError](err)
			require.True(t, ok)
			require.Equal(t, path, e.Path)
			requireOpens(t, kek, known)
			_, err = kek.DecryptWithContext(t.Context(), foreign, []byte("ad"))
			require.ErrorIs(t, err, c.err, "whether the KEK is wrong cannot be told")
			require.NotErrorIs(t, err, encrypt.ErrWrongKEK)
			require.ErrorIs(t, kek.Rotate(t.Context()), c.err)
			_, err = kek.DestroyOld(t.Context())
			require.ErrorIs(t, err, c.err)
		})
		wrapped(t, kek)
		requireOpens(t, kek, known)
		requireWrongKEK(t, kek, foreign)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
}

// Of two changes at once the second waits, as long as its context lets it.
func TestKeyFileChangesWaitForEachOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	var changing func(string)
	kek, err := encrypt.OpenKeyFileStepping(path, func(step string) {
		if changing != nil {
			changing(step)
		}
	})
	require.NoError(t, err)
	other, err := encrypt.OpenKeyFile(path, "", false)
	require.NoError(t, err)
	changing = func(step string) {
		if step == "written" {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, other.Rotate(ctx), context.DeadlineExceeded)
			_, err := other.DestroyOld(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	}
	require.NoError(t, kek.Rotate(t.Context()))
	changing = nil
	require.NoError(t, other.Rotate(t.Context()))
}

// Programs that know nothing of the lock, such as tinkey, lose no update.
func TestKeyFileChangedByAnotherProgram(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kek.json")
	theirs, err := encrypt.OpenKeyFile(filepath.Join(dir, "theirs.json"), "", true)
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(dir, "theirs.json"))
	require.NoError(t, err)
	write := false
	kek, err := encrypt.OpenKeyFileStepping(path, func(step string) {
		if write && step == "written" {
			require.NoError(t, os.WriteFile(path, text, 0o600))
		}
	})
	require.NoError(t, err)
	write = true
	require.ErrorContains(t, kek.Rotate(t.Context()), "another program")
	write = false
	requireOpens(t, theirs, wrapped(t, kek))
	_, err = kek.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
}
