package encrypt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/processtest"
)

func TestMain(m *testing.M) {
	processtest.Main(map[string]processtest.Task{
		"key file": processtest.Racer(func(_ context.Context, p *processtest.Process) (func(int) ([]byte, error), error) {
			return func(int) ([]byte, error) { return encryptUnder(p.Args[0]) }, nil
		}),
		"key file, planted fault": processtest.Racer(writesAnyway),
		"rotate key file":         processtest.Racer(rotateKeyFile),
		"change key file":         changeKeyFile,
	})
	os.Exit(m.Run())
}

func encryptUnder(path string) ([]byte, error) {
	kek, err := encrypt.OpenKeyFile(path, "", true)
	if err != nil {
		return nil, err
	}
	return kek.EncryptWithContext(context.Background(), []byte("x"), nil)
}

// writesAnyway is a planted fault: the file was not there before anybody acted, so
// each process makes one.
func writesAnyway(_ context.Context, p *processtest.Process) (func(int) ([]byte, error), error) {
	own := filepath.Join(p.Args[1], strconv.Itoa(p.N))
	ciphertext, err := encryptUnder(own)
	return func(int) ([]byte, error) {
		if err := os.Rename(own, p.Args[0]); err != nil && !errors.Is(err, os.ErrNotExist) { // another goroutine has
			return nil, err
		}
		return ciphertext, nil
	}, err
}

// Processes that start on a new installation at the same time have one KEK.
func TestProcessesMakeOneKeyFile(t *testing.T) {
	opened := func(t *testing.T, task string) (n int) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "kek.json")
		all := processtest.Race[[]byte](t, task, path, t.TempDir())
		kek, err := encrypt.OpenKeyFile(path, "", false)
		require.NoError(t, err)
		for _, ciphertext := range all {
			if _, err := kek.DecryptWithContext(t.Context(), ciphertext, nil); err == nil {
				n++
			}
		}
		return n
	}
	require.Equal(t, processtest.Racers, opened(t, "key file"))
	require.Equal(t, processtest.PerProcess, opened(t, "key file, planted fault"))
}
