package document_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt/document"
)

func BenchmarkEncrypt(b *testing.B) {
	files := newFiles(b, crmguardtest.NewKeys())
	plain := content(16 << 20)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		w, err := files.Encrypt(asAnna(b), attachment, io.Discard)
		require.NoError(b, err)
		_, err = w.Write(plain)
		require.NoError(b, err)
		require.NoError(b, w.Close())
	}
}

func BenchmarkOpen(b *testing.B) {
	files := newFiles(b, crmguardtest.NewKeys())
	stored := store(b, files, attachment, content(16<<20))
	b.SetBytes(16 << 20)
	for b.Loop() {
		r, err := files.Open(asAnna(b), attachment, bytes.NewReader(stored), int64(len(stored)))
		require.NoError(b, err)
		_, err = io.Copy(io.Discard, r)
		require.NoError(b, err)
	}
}

func BenchmarkDecrypt(b *testing.B) {
	files := newFiles(b, crmguardtest.NewKeys())
	stored := store(b, files, attachment, content(16<<20))
	b.SetBytes(16 << 20)
	for b.Loop() {
		r, err := files.Decrypt(asAnna(b), attachment, bytes.NewReader(stored))
		require.NoError(b, err)
		_, err = io.Copy(io.Discard, r)
		require.NoError(b, err)
	}
}

// A small file is all header: what one attachment costs before its content.
func BenchmarkOpenSmall(b *testing.B) {
	files := newFiles(b, crmguardtest.NewKeys())
	stored := store(b, files, attachment, []byte("a small file"))
	for b.Loop() {
		_, err := files.Open(asAnna(b), attachment, bytes.NewReader(stored), int64(len(stored)))
		require.NoError(b, err)
	}
}

func BenchmarkSeal(b *testing.B) {
	anna := person(b, "anna")
	to := anna.Person()
	for b.Loop() {
		require.NoError(b, document.Seal(io.Discard, io.Discard, bytes.NewReader([]byte("contract")), anna, "c-17", to))
	}
}
