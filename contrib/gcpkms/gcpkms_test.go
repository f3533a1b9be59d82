package gcpkms_test

import (
	"hash/crc32"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crmguard/crmguard/contrib/gcpkms"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

func TestKEK(t *testing.T) {
	encrypttest.KEK(t, func(t *testing.T) encrypttest.KEKUnderTest {
		s, client := newServer(t)
		openKey := func(name string) encrypt.RotatingKEK {
			kek, err := gcpkms.New(client, name, nil)
			require.NoError(t, err)
			return kek
		}
		return encrypttest.KEKUnderTest{
			Open:  func() encrypt.RotatingKEK { return openKey(keyName) },
			Other: func() encrypt.RotatingKEK { return openKey(ring + "kek2") },
			Delay: 24 * time.Hour,
			KMS: &encrypttest.KMS{
				Decrypts: func() int { return s.count("Decrypt") },
				Down: func(down bool) {
					s.set(func() {
						delete(s.fail, "")
						if down {
							s.fail[""] = codes.ResourceExhausted
						}
					})
				},
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

func TestNames(t *testing.T) {
	_, client := newServer(t)
	for _, name := range []string{"", "kek", "gcp-kms://" + keyName, keyName + "/cryptoKeyVersions/1", ring, keyName + "\n"} {
		_, err := gcpkms.New(client, name, nil)
		require.Error(t, err, name)
	}
	_, err := gcpkms.New(nil, keyName, nil)
	require.Error(t, err)
}

func TestDamagedAnswers(t *testing.T) {
	for name, damage := range map[string]func(answer any){
		"ciphertext": func(answer any) {
			if answer, ok := answer.(*kmspb.EncryptResponse); ok {
				answer.Ciphertext[0] ^= 1
			}
		},
		"checksum of the ciphertext": func(answer any) {
			if answer, ok := answer.(*kmspb.EncryptResponse); ok {
				answer.CiphertextCrc32C = nil
			}
		},
		"unverified plaintext": func(answer any) {
			if answer, ok := answer.(*kmspb.EncryptResponse); ok {
				answer.VerifiedPlaintextCrc32C = false
			}
		},
		"unverified associated data": func(answer any) {
			if answer, ok := answer.(*kmspb.EncryptResponse); ok {
				answer.VerifiedAdditionalAuthenticatedDataCrc32C = false
			}
		},
		"another key": func(answer any) { // whose name begins with ours
			if answer, ok := answer.(*kmspb.EncryptResponse); ok {
				answer.Name = ring + "kek2/cryptoKeyVersions/1"
			}
		},
		"plaintext": func(answer any) {
			if answer, ok := answer.(*kmspb.DecryptResponse); ok {
				answer.Plaintext[0] ^= 1
			}
		},
		"checksum of the plaintext": func(answer any) {
			if answer, ok := answer.(*kmspb.DecryptResponse); ok {
				answer.PlaintextCrc32C = nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := newServer(t)
			kek, err := gcpkms.New(client, keyName, nil)
			require.NoError(t, err)
			s.set(func() { s.answer = damage })
			ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
			if err == nil {
				_, err = kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
			}
			require.Error(t, err)
			require.NotErrorIs(t, err, encrypt.ErrWrongKEK)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

// The client tries again by itself what may succeed then.
func TestShortOutage(t *testing.T) {
	s, client := newServer(t)
	kek, err := gcpkms.New(client, keyName, nil)
	require.NoError(t, err)
	s.set(func() { s.failOnce = codes.Unavailable })
	_, err = kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	require.Equal(t, 3, s.count("Encrypt"), "one more, and the first learns which version is the primary one")
	_, err = kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	require.Equal(t, 4, s.count("Encrypt"))
}

// docs/formats/kms.md
func TestFormat(t *testing.T) {
	_, client := newServer(t)
	kek, err := gcpkms.New(client, keyName, nil)
	require.NoError(t, err)
	ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	require.Equal(t, "\x00\x00\x00\x01", string(ciphertext[:4]))
	additional := []byte("\x00\x00\x00\x01ad")
	answer, err := client.Decrypt(t.Context(), &kmspb.DecryptRequest{
		Name: keyName, Ciphertext: ciphertext[4:], CiphertextCrc32C: checksum(ciphertext[4:]),
		AdditionalAuthenticatedData: additional, AdditionalAuthenticatedDataCrc32C: checksum(additional),
	})
	require.NoError(t, err)
	require.Equal(t, "secret", string(answer.GetPlaintext()))
}

// Tink's client sends plaintext and associated data as they are, and stores what KMS answers. Whoever
// comes from there opens that with Tink's client: see docs/guides/tink.md.
func TestWhatTinkWrappedIsRefused(t *testing.T) {
	_, client := newServer(t)
	sum := func(b []byte) *wrapperspb.Int64Value {
		return wrapperspb.Int64(int64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
	}
	for _, ad := range [][]byte{nil, []byte("contacts.phone")} {
		answer, err := client.Encrypt(t.Context(), &kmspb.EncryptRequest{
			Name: keyName, Plaintext: []byte("key"), PlaintextCrc32C: sum([]byte("key")), AdditionalAuthenticatedData: ad, AdditionalAuthenticatedDataCrc32C: sum(ad),
		})
		require.NoError(t, err)
		_, err = open(t, client).DecryptWithContext(t.Context(), answer.GetCiphertext(), ad)
		require.ErrorIs(t, err, encrypt.ErrWrongKEK)
	}
}
