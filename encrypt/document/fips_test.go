package document_test

import (
	"bytes"
	"crypto/fips140"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt/document"
	"github.com/crmguard/crmguard/internal/fipstest"
)

// age fails there obscurely, or panics; this package returns an error that says so.
func TestFIPSOnly(t *testing.T) { fipstest.Only(t, underFIPS) }

func underFIPS(t *testing.T) {
	keys := crmguardtest.NewKeys()
	_, err := document.NewFiles(keys)
	require.ErrorIs(t, err, document.ErrFIPS)
	_, err = document.GenerateIdentity("acme", "anna")
	require.ErrorIs(t, err, document.ErrFIPS)
	_, err = document.ImportIdentity("acme", "anna", "")
	require.ErrorIs(t, err, document.ErrFIPS)
	_, err = document.ParsePerson("", "acme", "anna")
	require.ErrorIs(t, err, document.ErrFIPS)
	_, err = document.OpenPassphrase(nil, passphrase, "acme", "anna")
	require.ErrorIs(t, err, document.ErrFIPS)
	_, err = document.OpenServerOpenable(t.Context(), keys, nil, "acme", "anna")
	require.ErrorIs(t, err, document.ErrFIPS)

	// Values that were made outside of the enforcement fail as clearly.
	var files *document.Files
	var anna *document.Identity
	var l letter
	var stored []byte
	fips140.WithoutEnforcement(func() {
		files, anna = newFiles(t, keys), person(t, "anna")
		l = seal(t, "contract", anna, "c-17", anna.Person())
		stored = store(t, files, attachment, []byte("a small file"))
	})
	_, err = files.Encrypt(asAnna(t), attachment, io.Discard)
	require.ErrorIs(t, err, document.ErrFIPS)
	_, err = openAll(asAnna(t), files, attachment, stored)
	require.ErrorIs(t, err, document.ErrFIPS)
	_, err = decryptAll(asAnna(t), files, attachment, stored)
	require.ErrorIs(t, err, document.ErrFIPS)
	require.ErrorIs(t, files.Reencrypt(asAnna(t), attachment, io.Discard, bytes.NewReader(stored)), document.ErrFIPS)
	_, err = anna.WrapPassphrase(passphrase)
	require.ErrorIs(t, err, document.ErrFIPS)
	_, err = anna.WrapServerOpenable(t.Context(), keys)
	require.ErrorIs(t, err, document.ErrFIPS)
	require.ErrorIs(t, document.Seal(io.Discard, io.Discard, strings.NewReader(""), anna, "c-17", anna.Person()), document.ErrFIPS)
	require.ErrorIs(t, l.refused(t, anna, anna.Person(), "c-17"), document.ErrFIPS)

	// Signatures are Ed25519 and SHA-256.
	var text []byte
	fips140.WithoutEnforcement(func() { text = l.plainSignature(t, anna) })
	_, err = document.Verify(text, anna.Person(), "c-17", strings.NewReader("contract"))
	require.NoError(t, err)
}
