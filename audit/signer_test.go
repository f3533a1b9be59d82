package audit_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/racetest"
)

func TestOpenSigner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "journal.key")
	const name = "crm.example/journal"
	_, _, err := audit.OpenSigner(path, name, false)
	require.ErrorIs(t, err, os.ErrNotExist, "a key is not made by accident")
	signer, verifier, err := audit.OpenSigner(path, name, true)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	again, _, err := audit.OpenSigner(path, name, true)
	require.NoError(t, err)
	require.Equal(t, signer.KeyHash(), again.KeyHash(), "the key that is there is used")
	signed, err := note.Sign(&note.Note{Text: "text\n"}, again)
	require.NoError(t, err)
	_, err = note.Open(signed, note.VerifierList(verifier))
	require.NoError(t, err)

	public, err := os.ReadFile(path + ".pub")
	require.NoError(t, err)
	pinned, err := note.NewVerifier(strings.TrimSpace(string(public)))
	require.NoError(t, err)
	require.Equal(t, verifier.KeyHash(), pinned.KeyHash())

	_, _, err = audit.OpenSigner(path, "other.example/journal", false)
	require.ErrorContains(t, err, "is named")
	require.NoError(t, os.Chmod(path, 0o640))
	_, _, err = audit.OpenSigner(path, name, false)
	require.ErrorContains(t, err, "may be read by others")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 2, "no temporary file is left")
}

func TestOpenSignerDoesNotQuoteTheKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	secret := "PRIVATE+KEY+crm.example/journal+00000000+AXNlY3JldHNlY3JldA=="
	require.NoError(t, os.WriteFile(path, []byte(secret), 0o600))
	_, _, err := audit.OpenSigner(path, "crm.example/journal", true)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "AXNl")
}

// Of many that start at the same time one makes the key.
func TestOpenSignerRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	hashes := racetest.Run(t, func(int) (uint32, error) {
		signer, _, err := audit.OpenSigner(path, "crm.example/journal", true)
		if err != nil {
			return 0, err
		}
		return signer.KeyHash(), nil
	})
	require.Len(t, slices.Compact(hashes), 1)
}

func TestOpenSignerAndItsPublicKey(t *testing.T) {
	const name = "crm.example/journal"
	path := filepath.Join(t.TempDir(), "key")
	_, _, err := audit.OpenSigner(path, name, true)
	require.NoError(t, err)
	public, err := os.ReadFile(path + ".pub")
	require.NoError(t, err)

	other := filepath.Join(t.TempDir(), "key")
	_, _, err = audit.OpenSigner(other, name, true)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(other+".pub", public, 0o600))
	_, _, err = audit.OpenSigner(other, name, true)
	require.ErrorContains(t, err, "another key", "verifiers would be handed the wrong one")

	require.NoError(t, os.Remove(path))
	_, _, err = audit.OpenSigner(path, name, true)
	require.ErrorIs(t, err, os.ErrNotExist, "a lost key is not replaced silently")
	require.NoFileExists(t, path)
}
