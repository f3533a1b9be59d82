package document_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt/document"
)

var update = flag.Bool("update", false, "write new golden files, when a new version of the format is added")

// fixed seals under a key that everybody knows, so that golden files open.
type fixed struct{}

func (fixed) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (fixed) place(at crmguard.Place) []byte {
	return []byte(strings.Join([]string{at.Tenant, at.Client, at.Kind, at.Record, at.Field}, "\n"))
}

func (f fixed) Seal(_ context.Context, at crmguard.Place, plaintext []byte) ([]byte, error) {
	aead, err := f.aead()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plaintext, f.place(at)), nil
}

func (f fixed) Open(_ context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	aead, err := f.aead()
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, sealed, f.place(at))
}

// What version 1 wrote opens forever.
func TestGoldenFiles(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	anna, err := document.ParseIdentity(golden(t, "anna.identity.txt"), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, string(golden(t, "anna.card.txt")), anna.Person().String())
	boris, err := document.OpenPassphrase(golden(t, "boris.passphrase.age"), passphrase, "acme", "boris")
	require.NoError(t, err)
	vera, err := document.OpenServerOpenable(t.Context(), fixed{}, golden(t, "vera.server.age"), "acme", "vera")
	require.NoError(t, err)

	l := letter{golden(t, "letter.age"), golden(t, "signature.age")}
	for _, i := range []*document.Identity{boris, vera} {
		path := filepath.Join(t.TempDir(), "letter.txt")
		require.NoError(t, l.open(path, i, anna.Person(), "contract-17"))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "the contract\n", string(got))
	}
	require.Equal(t, string(golden(t, "signature.txt")), string(l.plainSignature(t, boris)))
	// Ed25519 draws nothing, so signing again gives the same text.
	again := seal(t, "the contract\n", anna, "contract-17", vera.Person(), boris.Person())
	require.Equal(t, string(golden(t, "signature.txt")), string(again.plainSignature(t, boris)))

	got, err := openAll(t.Context(), newFiles(t, fixed{}), attachment, golden(t, "file.age"))
	require.NoError(t, err)
	require.Equal(t, "the attachment\n", string(got))
}

func golden(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "v1", name))
	require.NoError(t, err)
	return data
}

func writeGolden(t *testing.T) {
	t.Helper()
	anna, boris, vera := person(t, "anna"), person(t, "boris"), person(t, "vera")
	byPassphrase, err := boris.WrapPassphraseWith(passphrase, 10)
	require.NoError(t, err)
	byServer, err := vera.WrapServerOpenable(t.Context(), fixed{})
	require.NoError(t, err)
	l := seal(t, "the contract\n", anna, "contract-17", vera.Person(), boris.Person())
	for name, data := range map[string][]byte{
		"anna.identity.txt":    anna.Export(),
		"anna.card.txt":        []byte(anna.Person().String()),
		"boris.passphrase.age": byPassphrase,
		"vera.server.age":      byServer,
		"letter.age":           l.document,
		"signature.age":        l.signature,
		"signature.txt":        l.plainSignature(t, boris),
		"file.age":             bytes.Clone(store(t, newFiles(t, fixed{}), attachment, []byte("the attachment\n"))),
	} {
		require.NoError(t, os.WriteFile(filepath.Join("testdata", "v1", name), data, 0o600))
	}
}
