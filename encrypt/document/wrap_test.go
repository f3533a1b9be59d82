package document_test

import (
	"bytes"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt/document"
)

var passphrase = []byte("correct horse battery staple")

// wrappedAnna is an identity under a passphrase with the work factor that people get.
// With the race detector that takes many seconds, so tests share one.
var wrappedAnna = sync.OnceValues(func() (anna *document.Identity, wrapped []byte) {
	anna, err := document.GenerateIdentity("acme", "anna")
	if err != nil {
		panic(err)
	}
	if wrapped, err = anna.WrapPassphrase(passphrase); err != nil {
		panic(err)
	}
	return anna, wrapped
})

func TestWrappedByPassphrase(t *testing.T) {
	anna, wrapped := wrappedAnna()
	require.Contains(t, string(wrapped[:80]), " 18\n", "age's own work factor")
	require.False(t, document.ServerOpenable(wrapped))
	again, err := document.OpenPassphrase(wrapped, passphrase, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, anna, again)
}

func TestWhatOpenPassphraseRefuses(t *testing.T) {
	anna := person(t, "anna")
	_, err := anna.WrapPassphrase(nil)
	require.Error(t, err)
	_, err = (&document.Identity{}).WrapPassphraseWith(passphrase, 1)
	require.Error(t, err)
	wrapped, err := anna.WrapPassphraseWith(passphrase, 1)
	require.NoError(t, err)
	_, err = document.OpenPassphrase(wrapped, []byte("Correct horse battery staple"), "acme", "anna")
	require.ErrorIs(t, err, document.ErrPassphrase)
	_, err = document.OpenPassphrase(wrapped, nil, "acme", "anna")
	require.Error(t, err)
	_, err = document.OpenPassphrase(wrapped, passphrase, "acme", "boris")
	require.ErrorIs(t, err, document.ErrMalformed)
	_, err = document.OpenPassphrase(wrapped, passphrase, "other", "anna")
	require.ErrorIs(t, err, document.ErrMalformed)
	_, err = document.OpenPassphrase(nil, passphrase, "acme", "anna")
	require.ErrorIs(t, err, document.ErrMalformed)

	// A work factor that would cost 4 GiB is refused before any work.
	costly := bytes.Replace(wrapped, []byte(" 1\n"), []byte(" 22\n"), 1)
	require.NotEqual(t, wrapped, costly)
	_, err = document.OpenPassphrase(costly, passphrase, "acme", "anna")
	require.ErrorContains(t, err, "work factor too large")

	// Other content under the right passphrase is no identity.
	for _, text := range [][]byte{nil, []byte("hello\n"), bytes.Repeat([]byte("#\n"), 4<<10), append(anna.Export(), '\n')} {
		_, err = document.OpenPassphrase(scrypted(t, text), passphrase, "acme", "anna")
		require.ErrorIs(t, err, document.ErrMalformed)
	}
}

func scrypted(tb testing.TB, text []byte) []byte {
	tb.Helper()
	to, err := age.NewScryptRecipient(string(passphrase))
	require.NoError(tb, err)
	to.SetWorkFactor(1)
	var file bytes.Buffer
	w, err := age.Encrypt(&file, to)
	require.NoError(tb, err)
	_, err = w.Write(text)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return file.Bytes()
}

func TestEveryFlippedBitOfAWrappedIdentityIsRefused(t *testing.T) {
	anna := person(t, "anna")
	wrapped, err := anna.WrapPassphraseWith(passphrase, 2) // "2" flipped is at most "6"
	require.NoError(t, err)
	flips(wrapped, func(bit int, flipped []byte) {
		if _, err := document.OpenPassphrase(flipped, passphrase, "acme", "anna"); err == nil {
			t.Error("opens with bit changed:", bit)
		}
	})
	keys := crmguardtest.NewKeys()
	wrapped, err = anna.WrapServerOpenable(t.Context(), keys)
	require.NoError(t, err)
	flips(wrapped, func(bit int, flipped []byte) {
		if _, err := document.OpenServerOpenable(t.Context(), keys, flipped, "acme", "anna"); err == nil {
			t.Error("opens with bit changed:", bit)
		}
	})
	for n := range wrapped {
		_, err := document.OpenServerOpenable(t.Context(), keys, wrapped[:n], "acme", "anna")
		require.Error(t, err)
	}
}

func TestServerOpenable(t *testing.T) {
	keys := crmguardtest.NewKeys()
	anna := person(t, "anna")
	wrapped, err := anna.WrapServerOpenable(t.Context(), keys)
	require.NoError(t, err)
	require.True(t, document.ServerOpenable(wrapped))
	again, err := document.OpenServerOpenable(t.Context(), keys, wrapped, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, anna, again)
	for _, who := range [][2]string{{"acme", "boris"}, {"other", "anna"}, {"", "anna"}, {"acme", ""}} {
		_, err = document.OpenServerOpenable(t.Context(), keys, wrapped, who[0], who[1])
		require.Error(t, err)
	}
	_, err = document.OpenServerOpenable(t.Context(), crmguardtest.NewKeys(), wrapped, "acme", "anna")
	require.Error(t, err, "another CRM's keys")
	_, err = document.OpenServerOpenable(t.Context(), nil, wrapped, "acme", "anna")
	require.Error(t, err)
	_, err = anna.WrapServerOpenable(t.Context(), nil)
	require.Error(t, err)

	// The planted fault: keys that forget the place hand Anna's identity to whoever
	// asks, and then only the names in it refuse.
	loose := forgetful{keys}
	wrapped, err = anna.WrapServerOpenable(t.Context(), loose)
	require.NoError(t, err)
	_, err = document.OpenServerOpenable(t.Context(), loose, wrapped, "acme", "boris")
	require.ErrorIs(t, err, document.ErrMalformed)
}
