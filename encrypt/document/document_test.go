package document_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt/document"
)

func TestSmoke(t *testing.T) {
	keys := crmguardtest.NewKeys()
	files, err := document.NewFiles(keys)
	require.NoError(t, err)
	ctx := crmguard.System(t.Context(), "acme", "test")
	at := crmguard.Place{Tenant: "acme", Client: "c7", Kind: "attachments", Record: "1", Field: "file"}
	var stored bytes.Buffer
	w, err := files.Encrypt(ctx, at, &stored)
	require.NoError(t, err)
	_, err = io.WriteString(w, "hello")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	r, err := files.Open(ctx, at, bytes.NewReader(stored.Bytes()), int64(stored.Len()))
	require.NoError(t, err)
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "hello", string(text))

	anna, err := document.GenerateIdentity("acme", "anna")
	require.NoError(t, err)
	boris, err := document.GenerateIdentity("acme", "boris")
	require.NoError(t, err)
	var d, s bytes.Buffer
	require.NoError(t, document.Seal(&d, &s, bytes.NewReader([]byte("contract")), anna, "c-17", boris.Person()))
	path := filepath.Join(t.TempDir(), "x")
	require.NoError(t, document.OpenFile(path, &d, &s, boris, anna.Person(), "c-17"))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "contract", string(got))
	card, err := document.ParsePerson(anna.Person().String(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, anna.Person(), card)
	wrapped, err := anna.WrapServerOpenable(ctx, keys)
	require.NoError(t, err)
	require.True(t, document.ServerOpenable(wrapped))
	again, err := document.OpenServerOpenable(ctx, keys, wrapped, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, anna.Export(), again.Export())
}
