//go:build unix

package audit_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// A file that is replaced while a process waits for the lock is not taken for the one that it
// knows, nor is one that is removed made anew.
func TestFileAnchorReplacedWhileWaiting(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	list := signedSizes(t, signer, 1, 2)
	for name, replace := range map[string]func(t *testing.T, path string){
		"by a copy": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path+"2", b, 0o600))
			require.NoError(t, os.Rename(path+"2", path))
		},
		"by nothing": func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "anchor")
			a := fileAnchor(t, path, verifier)
			require.NoError(t, a.Keep(t.Context(), list[0]))
			other, err := os.Open(path)
			require.NoError(t, err)
			require.NoError(t, syscall.Flock(int(other.Fd()), syscall.LOCK_EX))
			kept := make(chan error)
			go func() { kept <- a.Keep(t.Context(), list[1]) }()
			select {
			case err := <-kept:
				t.Fatal("it does not wait", err)
			case <-time.After(20 * time.Millisecond):
			}
			replace(t, path)
			require.NoError(t, other.Close())
			require.ErrorIs(t, <-kept, audit.ErrPoisoned)
			if name == "by nothing" {
				require.NoFileExists(t, path)
			}
		})
	}
}
