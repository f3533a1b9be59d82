// Package gcpkms lets Google Cloud KMS hold the key-encryption key of package encrypt.
//
//	client, err := kms.NewKeyManagementClient(ctx)
//	kek, err := gcpkms.New(client, "projects/crm/locations/europe-west3/keyRings/crm/cryptoKeys/kek", nil)
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
//   - Associated data is part of Cloud KMS's additional authenticated data: it is bound.
//   - CRC32C checksums of all that is sent are verified by KMS, and that they were is
//     checked; those of all that comes back are verified here.
//   - The key that KMS names in each answer to an encryption is checked.
//   - Contexts reach the wire. The client's retries end with them.
//   - What KMS refuses because another key or other associated data made it is
//     encrypt.ErrWrongKEK; all else, such as quotas, is not. KMS tells by words, not by
//     a code of its own: should Google change them, a wrong key is seen as an outage.
//   - A new primary version needs about a minute until all of KMS knows it, rarely
//     hours: Rotate waits until the key answers with it, [Options.SettleTime] at most. A node of KMS that
//     still answers with an older version than this process has already seen is asked again
//     for the newer one.
//
// # Compatibility
//
// A ciphertext is the number of the version, four bytes, big-endian, and KMS's own
// ciphertext, whose additional authenticated data is these four bytes and the associated
// data. KMS does not say which version has decrypted something; so a process that reads
// what a newer version has encrypted knows that there is one.
//
// The tests run against a local server that speaks KMS's gRPC protocol, with real
// AES-GCM behind it. They have not run against Google Cloud.
package gcpkms

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crmguard/crmguard/encrypt"
)

// Options of a [KEK]. Nil means the defaults.
type Options struct {
	SettleTime time.Duration // how long Rotate waits until all of KMS knows what it has made; 0: 5 minutes
}

// KEK is a symmetric key of Cloud KMS with all its versions. It is safe for
// concurrent use.
type KEK struct {
	client *kms.KeyManagementClient
	key    string
	settle time.Duration

	rotating sync.Mutex // held while KMS's versions are changed

	mu     sync.Mutex
	floor  uint32 // this process encrypts with no older version
	opened uint32 // the newest version when this was opened or last rotated; 0: not known yet
}

var _ encrypt.RotatingKEK = (*KEK)(nil)

var keyName = regexp.MustCompile(`^projects/[\w.:-]+/locations/[\w-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+$`)

// New returns the key with this name, such as
// projects/crm/locations/europe-west3/keyRings/crm/cryptoKeys/kek. It asks nobody. The key
// is made by whoever administers the project.
func New(client *kms.KeyManagementClient, key string, o *Options) (*KEK, error) {
	if client == nil {
		return nil, errors.New("gcpkms: a client is needed")
	}
	if !keyName.MatchString(key) {
		return nil, fmt.Errorf("gcpkms: %q is not projects/…/locations/…/keyRings/…/cryptoKeys/…", key)
	}
	if o == nil {
		o = &Options{}
	}
	settle, err := settleTime(o.SettleTime)
	if err != nil {
		return nil, err
	}
	return &KEK{client: client, key: key, settle: settle}, nil
}

// EncryptWithContext implements tink.AEADWithContext.
func (k *KEK) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	k.mu.Lock()
	guess := k.floor
	k.mu.Unlock()
	// Which version is the primary one the answer tells; the guess is nearly always right.
	ciphertext, version, err := k.encrypt(ctx, k.key, guess, plaintext, associatedData)
	if err != nil {
		return nil, err
	}
	newest := k.raise(version)
	if version == guess && newest == guess {
		return ciphertext, nil
	}
	ciphertext, version, err = k.encrypt(ctx, k.version(newest), newest, plaintext, associatedData)
	if err == nil && version != newest {
		err = fmt.Errorf("gcpkms: encrypt: KMS used version %d instead of %d", version, newest)
	}
	if err != nil {
		return nil, err
	}
	return ciphertext, nil
}

// label says in a ciphertext which version has encrypted it. It is bound like the
// associated data, before which it stands.
func label(version uint32) []byte { return binary.BigEndian.AppendUint32(nil, version) }

const labelSize = 4

func (k *KEK) encrypt(ctx context.Context, name string, labeled uint32, plaintext, associatedData []byte) (ciphertext []byte, version uint32, err error) {
	additional := append(label(labeled), associatedData...)
	answer, err := k.client.Encrypt(ctx, &kmspb.EncryptRequest{
		Name: name, Plaintext: plaintext, PlaintextCrc32C: checksum(plaintext),
		AdditionalAuthenticatedData: additional, AdditionalAuthenticatedDataCrc32C: checksum(additional),
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
	return append(label(labeled), answer.GetCiphertext()...), version, nil
}

// DecryptWithContext implements tink.AEADWithContext.
func (k *KEK) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	if len(ciphertext) <= labelSize {
		return nil, fmt.Errorf("gcpkms: decrypt: %w: too short", encrypt.ErrWrongKEK)
	}
	additional := append(bytes.Clone(ciphertext[:labelSize]), associatedData...)
	sealed := ciphertext[labelSize:]
	answer, err := k.client.Decrypt(ctx, &kmspb.DecryptRequest{
		Name: k.key, Ciphertext: sealed, CiphertextCrc32C: checksum(sealed),
		AdditionalAuthenticatedData: additional, AdditionalAuthenticatedDataCrc32C: checksum(additional),
	})
	if err != nil {
		return nil, failed(ctx, "decrypt", err)
	}
	if !matches(answer.GetPlaintextCrc32C(), answer.GetPlaintext()) {
		return nil, errors.New("gcpkms: decrypt: the answer was damaged on its way")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.floor = max(k.floor, binary.BigEndian.Uint32(ciphertext)) // somebody has rotated, whatever this process was told
	return answer.GetPlaintext(), nil
}

// raise notes that a version has encrypted, and returns the one that must.
func (k *KEK) raise(version uint32) uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.opened == 0 {
		k.opened = version
	}
	k.floor = max(k.floor, version)
	return k.floor
}

func (k *KEK) version(n uint32) string {
	return k.key + "/cryptoKeyVersions/" + strconv.FormatUint(uint64(n), 10)
}

// number reads the name of a version of this key.
func (k *KEK) number(name string) (uint32, error) {
	digits, ours := strings.CutPrefix(name, k.key+"/cryptoKeyVersions/")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ours || err != nil || n == 0 {
		return 0, fmt.Errorf("gcpkms: KMS answered with %q instead of a version of %q", name, k.key)
	}
	return uint32(n), nil
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
