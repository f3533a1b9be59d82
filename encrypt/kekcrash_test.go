package encrypt_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/processtest"
)

const crashed = 3 // exit status

// changeKeyFile opens a key file, makes it if it is missing, changes it, and ends the
// process at a step.
func changeKeyFile(ctx context.Context, p *processtest.Process) error {
	path, change, crash := p.Args[0], p.Args[1], p.Args[2]
	armed := change == "create"
	kek, err := encrypt.OpenKeyFileStepping(path, func(step string) {
		if armed && step == crash {
			os.Exit(crashed)
		}
	})
	if err != nil {
		return err
	}
	armed = true
	switch change {
	case "rotate":
		return kek.Rotate(ctx)
	case "destroy":
		_, err = kek.DestroyOld(ctx)
	}
	return err
}

// Whenever a process ends while it changes a key file, there is a whole one, old or
// new; the next change leaves nothing beside it.
func TestACrashLeavesAWholeKeyFile(t *testing.T) {
	for change, steps := range map[string][]string{
		"create":  {"opened", "written", "linked"},
		"rotate":  {"opened", "written", "linked", "renamed", "synced", "overwritten", "removed"},
		"destroy": {"opened", "written", "linked", "renamed", "synced", "overwritten", "removed"},
	} {
		for _, step := range steps {
			t.Run(change+" "+step, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "kek.json")
				var first, second []byte
				if change != "create" {
					kek, err := encrypt.OpenKeyFile(path, "", true)
					require.NoError(t, err)
					first = wrapped(t, kek)
					require.NoError(t, kek.Rotate(t.Context()))
					second = wrapped(t, kek)
				}
				err := processtest.Command(t, "change key file", path, change, step).Run()
				var exit *exec.ExitError
				require.ErrorAs(t, err, &exit)
				require.Equal(t, crashed, exit.ExitCode(), "%s", exit.Stderr)

				kek, err := encrypt.OpenKeyFile(path, "", change == "create")
				require.NoError(t, err)
				if change != "create" {
					requireOpens(t, kek, second)
					_, err = kek.DecryptWithContext(t.Context(), first, []byte("ad"))
					if change == "rotate" || step == "opened" || step == "written" || step == "linked" {
						require.NoError(t, err, "the old key is still there")
					} else {
						require.ErrorIs(t, err, encrypt.ErrWrongKEK)
					}
				}
				require.NoError(t, kek.Rotate(t.Context()))
				third := wrapped(t, kek)
				_, err = kek.DestroyOld(t.Context())
				require.NoError(t, err)
				requireOpens(t, kek, third)
				entries, err := os.ReadDir(filepath.Dir(path))
				require.NoError(t, err)
				require.Len(t, entries, 1)
			})
		}
	}
}

// Planted fault: who changes the file in place and ends half-way leaves no key file,
// and that is noticed.
func TestAHalfWrittenKeyFileIsNoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	kek, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	before := wrapped(t, kek)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, text[:len(text)/2], 0o600))
	_, err = encrypt.OpenKeyFile(path, "", true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)
	_, err = kek.EncryptWithContext(t.Context(), nil, nil)
	require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)
	require.ErrorIs(t, kek.Rotate(t.Context()), encrypt.ErrKeyFileMalformed)
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(text[:len(text)/2]), string(now), "what is left may still be mended")
	requireOpens(t, kek, before)
}

// Old keys are overwritten where they lay: who holds the old file open, or reads its
// blocks later, finds zeros. So also what a crash has left.
func TestOldKeysAreOverwritten(t *testing.T) {
	for _, crash := range []string{"", "written", "linked", "renamed"} {
		for _, change := range []string{"rotate", "destroy"} {
			t.Run(fmt.Sprintf("%s, crash %q", change, crash), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "kek.json")
				kek, err := encrypt.OpenKeyFile(path, "", true)
				require.NoError(t, err)
				require.NoError(t, kek.Rotate(t.Context()))
				old, err := os.Open(path)
				require.NoError(t, err)
				defer old.Close() //nolint:errcheck // only read
				info, err := old.Stat()
				require.NoError(t, err)
				cmd := processtest.Command(t, "change key file", path, change, crash)
				if err := cmd.Run(); crash == "" {
					require.NoError(t, err)
				} else {
					require.Error(t, err)
					side, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".kek.json.*"))
					require.NoError(t, err)
					require.NotEmpty(t, side, "the crash was in time")
					require.NoError(t, kek.Rotate(t.Context()))
				}
				content := make([]byte, info.Size()+1)
				n, _ := old.ReadAt(content, 0)
				require.Equal(t, bytes.Repeat([]byte{0}, int(info.Size())), content[:n])
			})
		}
	}
}

// Many processes rotate one file at the same time and use it meanwhile: none of the
// keys is lost.
func TestProcessesRotateOneKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	kek, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	first := wrapped(t, kek)
	all := processtest.Race[[]byte](t, "rotate key file", path)
	ids := map[string]bool{string(first[:5]): true, string(wrapped(t, kek)[:5]): true}
	for _, ciphertext := range append(all, first) {
		requireOpens(t, kek, ciphertext)
		ids[string(ciphertext[:5])] = true
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 1+processtest.Racers, bytes.Count(text, []byte("keyData")), "one for each rotation")
	require.Greater(t, len(ids), 2)
	_, err = kek.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
}

func rotateKeyFile(_ context.Context, p *processtest.Process) (func(int) ([]byte, error), error) {
	kek, err := encrypt.OpenKeyFile(p.Args[0], "", false)
	return func(int) ([]byte, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := kek.Rotate(ctx); err != nil {
			return nil, err
		}
		return kek.EncryptWithContext(ctx, []byte("secret"), []byte("ad"))
	}, err
}
