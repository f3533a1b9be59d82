package awskms_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/contrib/awskms"
	"github.com/crmguard/crmguard/encrypt"
)

// newService is the KEK behind an alias, which is what the package recommends.
func newService(t *testing.T) service {
	t.Helper()
	s, client := newServer(t)
	s.mu.Lock()
	s.aliases["alias/wrong"] = s.newKey("", "", tagged("alias/wrong")).ID
	s.mu.Unlock()
	kek, err := awskms.New(client, alias, nil)
	require.NoError(t, err)
	wrong, err := awskms.New(client, prefix+"alias/wrong", nil)
	require.NoError(t, err)
	return service{
		delay: 30 * 24 * time.Hour,
		kek:   kek, wrong: wrong,
		ignoreAD: func() { s.set(func() { s.ignoreAD = true }) },
		down:     func(down bool) { s.set(func() { s.down = down }) },
		hang: func() <-chan struct{} {
			s.set(func() { s.hang = make(chan struct{}, 10) })
			return s.hang
		},
		decrypts: func() int { return s.count("Decrypt") },
	}
}

// A KMS that does not bind the encryption context is noticed by the test of it.
func TestPlantedFault(t *testing.T) {
	s := newService(t)
	s.ignoreAD()
	require.False(t, bound(t, s.kek))
}

func TestFixed(t *testing.T) {
	s, client := newServer(t)
	id := s.aliases["alias/crm-kek"]
	fixed, err := awskms.NewFixed(client, prefix+"key/"+id)
	require.NoError(t, err)
	require.True(t, bound(t, fixed))
	_, rotates := any(fixed).(encrypt.RotatingKEK)
	require.False(t, rotates, "there is nothing to turn")

	rotating, err := awskms.New(client, alias, nil)
	require.NoError(t, err)
	ciphertext, err := fixed.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	plaintext, err := rotating.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(plaintext), "both open the same bytes")

	wrong, err := awskms.NewFixed(client, prefix+"key/"+s.aliases["alias/crm-kek-other/1"])
	require.NoError(t, err)
	_, err = wrong.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.ErrorIs(t, err, encrypt.ErrWrongKEK)

	s.set(func() { s.otherKey = prefix + "key/other" })
	_, err = fixed.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.ErrorContains(t, err, "answered with the key")
	_, err = fixed.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.ErrorContains(t, err, "answered with the key")
}

func TestNames(t *testing.T) {
	_, client := newServer(t)
	key := prefix + "key/1"
	for name, client := range map[string]*kms.Client{
		"": client, "alias/crm": client, alias: client, prefix + "key/": client, key: nil,
		strings.Replace(key, "kms", "s3", 1): client, strings.Replace(key, account, "", 1): client, strings.Replace(key, "eu-central-1", "", 1): client,
	} {
		_, err := awskms.NewFixed(client, name)
		require.Error(t, err, name)
	}
	for _, name := range []string{key, prefix + "alias/", prefix + "alias/aws/ebs", "alias/crm"} {
		_, err := awskms.New(client, name, nil)
		require.Error(t, err, name)
	}
	for _, days := range []int32{-1, 6, 31} {
		_, err := awskms.New(client, alias, &awskms.Options{DeletionDays: days})
		require.Error(t, err, days)
	}
}

// docs/formats/kms.md
func TestFormat(t *testing.T) {
	_, client := newServer(t)
	kek, err := awskms.New(client, alias, nil)
	require.NoError(t, err)
	ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	answer, err := client.Decrypt(t.Context(), &kms.DecryptInput{
		CiphertextBlob: ciphertext, EncryptionContext: map[string]string{"associatedData": "6164"},
	})
	require.NoError(t, err)
	require.Equal(t, "secret", string(answer.Plaintext))
}
