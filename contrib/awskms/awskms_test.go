package awskms_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/contrib/awskms"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

// The KEK behind an alias is what the package recommends.
func TestKEK(t *testing.T) {
	encrypttest.KEK(t, func(t *testing.T) encrypttest.KEKUnderTest {
		s, client := newServer(t)
		s.set(func() { s.aliases["alias/other"] = s.newKey("", "", tagged("alias/other")).ID })
		openAlias := func(arn string) encrypt.RotatingKEK {
			kek, err := awskms.New(client, arn, nil)
			require.NoError(t, err)
			return kek
		}
		return encrypttest.KEKUnderTest{
			Open:  func() encrypt.RotatingKEK { return openAlias(alias) },
			Other: func() encrypt.RotatingKEK { return openAlias(prefix + "alias/other") },
			Delay: 30 * 24 * time.Hour,
			KMS: &encrypttest.KMS{
				Decrypts: func() int { return s.count("Decrypt") },
				Down:     func(down bool) { s.set(func() { s.down = down }) },
				Hang: func(come func()) <-chan struct{} {
					ended := make(chan struct{}, 10)
					s.set(func() { s.hang = &hang{come, ended} })
					return ended
				},
				Unbind: func() { s.set(func() { s.ignoreAD = true }) },
			},
		}
	})
}

func TestFixed(t *testing.T) {
	s, client := newServer(t)
	id := s.aliases["alias/crm-kek"]
	fixed, err := awskms.NewFixed(client, prefix+"key/"+id)
	require.NoError(t, err)
	_, rotates := any(fixed).(encrypt.RotatingKEK)
	require.False(t, rotates, "there is nothing to turn")

	rotating, err := awskms.New(client, alias, nil)
	require.NoError(t, err)
	ciphertext, err := fixed.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	plaintext, err := rotating.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(plaintext), "both open the same bytes")
	for _, ad := range []string{"", "a", "add", "other"} {
		_, err = fixed.DecryptWithContext(t.Context(), ciphertext, []byte(ad))
		require.ErrorIs(t, err, encrypt.ErrWrongKEK, ad)
	}

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
