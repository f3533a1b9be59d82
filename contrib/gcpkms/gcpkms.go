// Package gcpkms lets Google Cloud KMS hold the key-encryption key of package encrypt.
//
//	client, err := kms.NewKeyManagementClient(ctx)
//	kek, err := gcpkms.New(client, "projects/crm/locations/europe-west3/keyRings/crm/cryptoKeys/kek")
//	keys, err := encrypt.New(kek, store, nil)
//
// # Rotation
//
// Rotate creates a version of the key and makes it the primary one. DestroyOld schedules
// the destruction of all versions before it: they stop to decrypt at once, and are gone
// after the time that the key was created with, 30 days unless it says otherwise. Until
// then an administrator can restore them. The key may rotate by itself too: then the old
// versions go with the next Turn.
//
// # Security notes
//
//   - Associated data is Cloud KMS's additional authenticated data: it is bound.
//   - CRC32C checksums of all that is sent are verified by KMS, and that they were is
//     checked; those of all that comes back are verified here.
//   - The key that KMS names in each answer to an encryption is checked.
//   - Contexts reach the wire. The client's retries end with them.
//   - What KMS refuses because another key or other associated data made it is
//     encrypt.ErrWrongKEK; all else, such as quotas, is not. KMS tells by words, not by
//     a code of its own: should Google change them, a wrong key is seen as an outage.
//   - A new primary version needs about a minute until all of KMS knows it, rarely
//     hours: Rotate waits until the key answers with it. A node of KMS that
//     still answers with an older version than this process has already seen is asked again
//     for the newer one.
//
// # Compatibility
//
// Ciphertexts are KMS's own: Tink's client for Cloud KMS opens them, and this one
// Tink's.
//
// The tests run against a local server that speaks KMS's gRPC protocol, with real
// AES-GCM behind it. They have not run against Google Cloud.
package gcpkms

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"strconv"
	"strings"
	"sync"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crmguard/crmguard/encrypt"
)

// KEK is a symmetric key of Cloud KMS with all its versions. It is safe for
// concurrent use.
type KEK struct {
	client *kms.KeyManagementClient
	key    string

	rotating sync.Mutex // held while KMS's versions are changed

	mu     sync.Mutex
	floor  int64 // this process encrypts with no older version
	opened int64 // the newest version when this was opened or last rotated; 0: not known yet
}

var _ encrypt.RotatingKEK = (*KEK)(nil)

var keyName = regexp.MustCompile(`^projects/[\w.:-]+/locations/[\w-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+$`)

// New returns the key with this name, such as
// projects/crm/locations/europe-west3/keyRings/crm/cryptoKeys/kek. It asks nobody.
func New(client *kms.KeyManagementClient, key string) (*KEK, error) {
	if client == nil {
		return nil, errors.New("gcpkms: a client is needed")
	}
	if !keyName.MatchString(key) {
		return nil, fmt.Errorf("gcpkms: %q is not projects/…/locations/…/keyRings/…/cryptoKeys/…", key)
	}
	return &KEK{client: client, key: key}, nil
}

// EncryptWithContext implements tink.AEADWithContext.
func (k *KEK) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	ciphertext, version, err := k.encrypt(ctx, k.key, plaintext, associatedData)
	if err != nil {
		return nil, err
	}
	if newer := k.raise(version); newer > version { // KMS's node does not know the newer primary yet
		ciphertext, _, err = k.encrypt(ctx, k.version(newer), plaintext, associatedData)
	}
	return ciphertext, err
}

func (k *KEK) encrypt(ctx context.Context, name string, plaintext, associatedData []byte) (ciphertext []byte, version int64, err error) {
	answer, err := k.client.Encrypt(ctx, &kmspb.EncryptRequest{
		Name: name, Plaintext: plaintext, PlaintextCrc32C: checksum(plaintext),
		AdditionalAuthenticatedData: associatedData, AdditionalAuthenticatedDataCrc32C: checksum(associatedData),
	})
	switch {
	case err != nil:
		return nil, 0, failed(ctx, "encrypt", err)
	case !answer.GetVerifiedPlaintextCrc32C() || !answer.GetVerifiedAdditionalAuthenticatedDataCrc32C():
		return nil, 0, errors.New("gcpkms: encrypt: KMS did not verify the checksums of the request")
	case !matches(answer.GetCiphertextCrc32C(), answer.GetCiphertext()):
		return nil, 0, errors.New("gcpkms: encrypt: the answer was damaged on its way")
	}
	if version, err = k.number(answer.GetName()); err != nil {
		return nil, 0, err
	}
	return answer.GetCiphertext(), version, nil
}

// DecryptWithContext implements tink.AEADWithContext.
func (k *KEK) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	answer, err := k.client.Decrypt(ctx, &kmspb.DecryptRequest{
		Name: k.key, Ciphertext: ciphertext, CiphertextCrc32C: checksum(ciphertext),
		AdditionalAuthenticatedData: associatedData, AdditionalAuthenticatedDataCrc32C: checksum(associatedData),
	})
	if err != nil {
		return nil, failed(ctx, "decrypt", err)
	}
	if !matches(answer.GetPlaintextCrc32C(), answer.GetPlaintext()) {
		return nil, errors.New("gcpkms: decrypt: the answer was damaged on its way")
	}
	return answer.GetPlaintext(), nil
}

// raise notes that a version has encrypted, and returns the one that must.
func (k *KEK) raise(version int64) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.opened == 0 {
		k.opened = version
	}
	k.floor = max(k.floor, version)
	return k.floor
}

func (k *KEK) version(n int64) string {
	return k.key + "/cryptoKeyVersions/" + strconv.FormatInt(n, 10)
}

// number reads the name of a version of this key.
func (k *KEK) number(name string) (int64, error) {
	digits, ours := strings.CutPrefix(name, k.key+"/cryptoKeyVersions/")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ours || err != nil || n <= 0 {
		return 0, fmt.Errorf("gcpkms: KMS answered with %q instead of a version of %q", name, k.key)
	}
	return n, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(b, castagnoli)))
}

func matches(got *wrapperspb.Int64Value, b []byte) bool {
	return got != nil && got.GetValue() == checksum(b).GetValue()
}

// failed tells a wrong key from an outage, where KMS does, and gives the ends of
// contexts the names that Go has for them.
func failed(ctx context.Context, what string, err error) error {
	s, _ := status.FromError(err)
	switch {
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("gcpkms: %s: %w: %w", what, ctx.Err(), err)
	case s.Code() == codes.InvalidArgument && strings.HasPrefix(s.Message(), "Decryption failed"):
		return fmt.Errorf("gcpkms: %s: %w: %w", what, encrypt.ErrWrongKEK, err)
	}
	return fmt.Errorf("gcpkms: %s: %w", what, err)
}
