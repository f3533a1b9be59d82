package gcpkms_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/crmguard/crmguard/contrib/gcpkms"
	"github.com/crmguard/crmguard/encrypt"
)

func open(t *testing.T, client *kms.KeyManagementClient) *gcpkms.KEK {
	t.Helper()
	kek, err := gcpkms.New(client, keyName, nil)
	require.NoError(t, err)
	return kek
}

func seal(t *testing.T, kek *gcpkms.KEK) []byte {
	t.Helper()
	ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	return ciphertext
}

func opens(t *testing.T, kek *gcpkms.KEK, ciphertext []byte) error {
	t.Helper()
	plaintext, err := kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	if err == nil {
		require.Equal(t, "secret", string(plaintext))
	}
	return err
}

// versionOf: the server's ciphertexts begin with the version.
func versionOf(ciphertext []byte) int { return int(binary.BigEndian.Uint32(ciphertext)) }

func TestRotate(t *testing.T) {
	s, client := newServer(t)
	kek, other := open(t, client), open(t, client)
	one := seal(t, kek)
	s.set(func() { s.generations = 2 }) // a key in hardware
	require.NoError(t, kek.Rotate(t.Context()))
	two := seal(t, kek)
	require.Equal(t, []int{1, 2, 2}, []int{versionOf(one), versionOf(two), versionOf(seal(t, other))})
	for _, k := range []*gcpkms.KEK{kek, other, open(t, client)} {
		require.NoError(t, opens(t, k, one))
		require.NoError(t, opens(t, k, two))
	}
	require.NoError(t, kek.Rotate(t.Context()))
	s.set(func() { s.keys[keyName].versions[0].State = kmspb.CryptoKeyVersion_DISABLED })

	gone, err := kek.DestroyOld(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), gone, time.Minute)
	require.Equal(t, 2, s.count("DestroyCryptoKeyVersion"))
	require.Error(t, opens(t, kek, one))
	require.Error(t, opens(t, kek, two))
	require.NoError(t, opens(t, kek, seal(t, kek)))

	again, err := kek.DestroyOld(t.Context())
	require.NoError(t, err)
	require.Equal(t, gone, again)
	require.Equal(t, 2, s.count("DestroyCryptoKeyVersion"))

	s.set(func() { // the time is over; one was never made
		s.keys[keyName].versions[0].State = kmspb.CryptoKeyVersion_DESTROYED
		s.keys[keyName].versions[1].State = kmspb.CryptoKeyVersion_GENERATION_FAILED
	})
	gone, err = kek.DestroyOld(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), gone, time.Minute)

	s.set(func() { s.keys[keyName].versions[0].State = kmspb.CryptoKeyVersion_EXTERNAL_DESTRUCTION_FAILED })
	_, err = kek.DestroyOld(t.Context())
	require.ErrorContains(t, err, "cannot be destroyed", "no time is named for what does not go")
}

// KMS's nodes learn of a new primary version one after another.
func TestSlowNodes(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client)
	s.set(func() { s.generations = 0 })
	require.NoError(t, kek.Rotate(t.Context()))
	s.set(func() { s.lag = 3 })
	require.NoError(t, kek.Rotate(t.Context()))
	s.set(func() { require.Zero(t, s.lag, "it waited"); s.lag = 1 })
	require.Equal(t, 3, versionOf(seal(t, kek)), "a node that lags behind is not believed")
	require.Zero(t, s.lag)

	// Another process learns of the new version from what was encrypted with it.
	other, now := open(t, client), seal(t, kek)
	s.set(func() { s.lag = 2 })
	require.Equal(t, 2, versionOf(seal(t, other)))
	require.NoError(t, opens(t, other, now))
	require.Equal(t, 3, versionOf(seal(t, other)))
	require.Zero(t, s.lag)
	_, err := other.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated, "it has used both")
}

func TestLabelIsBound(t *testing.T) {
	_, client := newServer(t)
	kek := open(t, client)
	ciphertext := seal(t, kek)
	for i := range 32 {
		ciphertext[i/8] ^= 1 << (i % 8)
		require.ErrorIs(t, opens(t, kek, ciphertext), encrypt.ErrWrongKEK)
		ciphertext[i/8] ^= 1 << (i % 8)
	}
	require.Equal(t, 1, versionOf(seal(t, kek)))
}

func TestDestroyOldNeedsToKnowWhatIsNew(t *testing.T) {
	s, client := newServer(t)
	_, err := open(t, client).DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	require.ErrorContains(t, err, "nothing was encrypted or rotated here yet")

	kek, other := open(t, client), open(t, client)
	one := seal(t, kek)
	gone, err := kek.DestroyOld(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), gone, time.Minute, "nothing old is there")

	require.NoError(t, other.Rotate(t.Context()))
	seal(t, kek)
	_, err = kek.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	require.NoError(t, opens(t, kek, one))

	s.set(func() { s.keys[keyName].primary = 1 }) // somebody went back by hand
	_, err = other.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	require.Equal(t, 2, versionOf(seal(t, other)), "back is no way")
	require.NoError(t, opens(t, kek, one))

	// A version that somebody has just made, and not made primary yet.
	s.set(func() { s.keys[keyName].primary = 2; s.add(keyName) })
	_, err = other.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	require.Zero(t, s.count("DestroyCryptoKeyVersion"))
}

func TestFailedRotation(t *testing.T) {
	for _, method := range []string{"CreateCryptoKeyVersion", "GetCryptoKeyVersion", "UpdateCryptoKeyPrimaryVersion"} {
		t.Run(method, func(t *testing.T) {
			s, client := newServer(t)
			kek := open(t, client)
			one := seal(t, kek)
			s.set(func() { s.fail[method] = codes.PermissionDenied })
			require.Error(t, kek.Rotate(t.Context()))
			require.Equal(t, 1, versionOf(seal(t, kek)))
			s.set(func() { delete(s.fail, method) })
			require.NoError(t, kek.Rotate(t.Context()), "the next one succeeds")
			s.set(func() { s.keys[keyName].versions[1].State = kmspb.CryptoKeyVersion_ENABLED }) // it was pending when Rotate failed
			require.Less(t, 1, versionOf(seal(t, kek)))
			_, err := kek.DestroyOld(t.Context())
			require.NoError(t, err)
			require.Error(t, opens(t, kek, one))
		})
	}
	t.Run("generation", func(t *testing.T) {
		s, client := newServer(t)
		s.set(func() { s.generated = kmspb.CryptoKeyVersion_GENERATION_FAILED })
		require.ErrorContains(t, open(t, client).Rotate(t.Context()), "GENERATION_FAILED")
		require.Equal(t, 1, versionOf(seal(t, open(t, client))))
	})
	t.Run("deadline", func(t *testing.T) {
		s, client := newServer(t)
		s.set(func() { s.generations = 1 << 20 })
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, open(t, client).Rotate(ctx), context.DeadlineExceeded)
	})
}

func TestFailedDestruction(t *testing.T) {
	for _, method := range []string{"GetCryptoKey", "ListCryptoKeyVersions", "DestroyCryptoKeyVersion"} {
		s, client := newServer(t)
		kek := open(t, client)
		require.NoError(t, kek.Rotate(t.Context()))
		s.set(func() { s.fail[method] = codes.PermissionDenied })
		_, err := kek.DestroyOld(t.Context())
		require.Error(t, err, method)
		s.set(func() { delete(s.fail, method) })
		_, err = kek.DestroyOld(t.Context())
		require.NoError(t, err)
	}

	s, client := newServer(t)
	kek := open(t, client)
	seal(t, kek)
	s.set(func() {
		s.answer = func(answer any) {
			if answer, ok := answer.(*kmspb.CryptoKey); ok {
				answer.Primary = &kmspb.CryptoKeyVersion{Name: ring + "kek2/cryptoKeyVersions/1"}
			}
		}
	})
	_, err := kek.DestroyOld(t.Context())
	require.ErrorContains(t, err, "instead of a version of")
	require.NotErrorIs(t, err, encrypt.ErrKEKRotated)
}

// Receipts rest on the date: none is not "now".
func TestDestructionWithoutADate(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client)
	require.NoError(t, kek.Rotate(t.Context()))
	s.set(func() {
		s.answer = func(answer any) {
			if answer, ok := answer.(*kmspb.CryptoKeyVersion); ok {
				answer.DestroyTime = nil
			}
			if answer, ok := answer.(*kmspb.ListCryptoKeyVersionsResponse); ok {
				for _, version := range answer.CryptoKeyVersions {
					version.DestroyTime = nil
				}
			}
		}
	})
	for range 2 { // now, and when it is scheduled already
		_, err := kek.DestroyOld(t.Context())
		require.ErrorContains(t, err, "does not say when")
	}
}

func TestSettleTime(t *testing.T) {
	s, client := newServer(t)
	kek, err := gcpkms.New(client, keyName, &gcpkms.Options{SettleTime: time.Second})
	require.NoError(t, err)
	s.set(func() { s.lag = 1 << 30 })
	err = kek.Rotate(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Regexp(t, "^gcpkms: (KMS still makes the new version|the key does not answer with the new version yet): ", err.Error(), "whichever it was at")
	_, err = gcpkms.New(client, keyName, &gcpkms.Options{SettleTime: -1})
	require.ErrorContains(t, err, "negative SettleTime")
}
