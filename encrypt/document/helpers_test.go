package document_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt/document"
)

const chunk = 64 << 10 // of age's payload

var attachment = crmguard.Place{Tenant: "acme", Client: "c7", Kind: "attachments", Record: "17", Field: "file"}

func asAnna(tb testing.TB) context.Context {
	return crmguard.WithSubject(tb.Context(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
}

// content is n bytes that no two positions share.
func content(n int) []byte {
	b := make([]byte, 0, n+sha256.Size)
	for i := uint64(0); len(b) < n; i++ {
		block := sha256.Sum256(binary.BigEndian.AppendUint64(nil, i))
		b = append(b, block[:]...)
	}
	return b[:n]
}

func newFiles(tb testing.TB, keys crmguard.Sealer) *document.Files {
	tb.Helper()
	files, err := document.NewFiles(keys)
	require.NoError(tb, err)
	return files
}

func store(tb testing.TB, files *document.Files, at crmguard.Place, plain []byte) []byte {
	tb.Helper()
	var stored bytes.Buffer
	w, err := files.Encrypt(asAnna(tb), at, &stored)
	require.NoError(tb, err)
	_, err = w.Write(plain)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return stored.Bytes()
}

// openAll reads a stored file with random access, decryptAll as a stream.
func openAll(ctx context.Context, files *document.Files, at crmguard.Place, stored []byte) ([]byte, error) {
	r, err := files.Open(ctx, at, bytes.NewReader(stored), int64(len(stored)))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func decryptAll(ctx context.Context, files *document.Files, at crmguard.Place, stored []byte) ([]byte, error) {
	r, err := files.Decrypt(ctx, at, bytes.NewReader(stored))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func person(tb testing.TB, name string) *document.Identity {
	tb.Helper()
	i, err := document.GenerateIdentity("acme", name)
	require.NoError(tb, err)
	return i
}

// flips calls check with every change of one bit.
func flips(text []byte, check func(bit int, flipped []byte)) {
	flipped := bytes.Clone(text)
	for bit := range len(text) * 8 {
		flipped[bit/8] ^= 1 << (bit % 8)
		check(bit, flipped)
		flipped[bit/8] ^= 1 << (bit % 8)
	}
}
