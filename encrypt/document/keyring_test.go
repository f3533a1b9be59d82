package document_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/document"
)

// With the keys that hosts use: the norm is asked once per client and act, before
// anything of the file is there, and erasing the client takes the files along.
func TestFilesOfARealKeyring(t *testing.T) {
	kek, err := encrypt.OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	var asked []string
	var norm error
	keys, err := encrypt.New(kek, encrypt.NewMemory(), &encrypt.Options{
		OnOpen: func(_ context.Context, _ string, clients []string) error {
			asked = append(asked, clients...)
			return norm
		},
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, keys.Close()) }()
	files := newFiles(t, keys)
	stored := store(t, files, attachment, []byte("a small file"))
	other := attachment
	other.Client = "c8"
	storedOther := store(t, files, other, []byte("another"))
	require.Empty(t, asked, "storing opens nothing")

	ctx := crmguard.WithAct(asAnna(t), crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "7"})
	for range 3 { // as the ranges of one request
		got, err := openAll(ctx, files, attachment, stored)
		require.NoError(t, err)
		require.Equal(t, "a small file", string(got))
	}
	require.Equal(t, []string{"c7"}, asked)

	norm = errors.New("the norm is used up")
	_, err = openAll(asAnna(t), files, attachment, stored)
	require.ErrorIs(t, err, norm)
	_, err = decryptAll(asAnna(t), files, attachment, stored)
	require.ErrorIs(t, err, norm)
	norm = nil
	_, err = openAll(t.Context(), files, attachment, stored)
	require.Error(t, err, "nobody acts")

	_, err = openAll(asAnna(t), files, other, stored)
	require.Error(t, err, "moved to another client")
	_, err = keys.Erase(asAnna(t), "acme", "c7")
	require.NoError(t, err)
	_, err = openAll(asAnna(t), files, attachment, stored)
	require.ErrorIs(t, err, crmguard.ErrErased)
	got, err := openAll(asAnna(t), files, other, storedOther)
	require.NoError(t, err)
	require.Equal(t, "another", string(got))

	// Identities lie at the tenant: neither norm nor subject.
	asked = nil
	anna := person(t, "anna")
	wrapped, err := anna.WrapServerOpenable(t.Context(), keys)
	require.NoError(t, err)
	_, err = document.OpenServerOpenable(t.Context(), keys, wrapped, "acme", "anna")
	require.NoError(t, err)
	require.Empty(t, asked)
}
