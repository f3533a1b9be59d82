// Package awskms lets AWS KMS hold the key-encryption key of package encrypt.
//
//	cfg, err := config.LoadDefaultConfig(ctx)
//	kek, err := awskms.New(kms.NewFromConfig(cfg), "arn:aws:kms:eu-central-1:111122223333:alias/crm-kek", nil)
//	keys, err := encrypt.New(kek, store, nil)
//
// An alias gives a [RotatingKEK], which encrypt.Keyring.Turn can replace and destroy.
// One fixed key, for hosts whose policies let nobody create keys, is a [KEK], made by
// [NewFixed]: its tenants' keysets stay under the same key, and Turn cannot destroy
// anything.
//
// # Rotation
//
// KMS's own rotation of a key keeps the old material for as long as the key exists, so
// it cannot make an old backup unreadable. Here Rotate creates a new key with the policy,
// description and tags of the current one, and points the alias at it. Each key has a
// numbered alias besides: alias/crm-kek/1, alias/crm-kek/2. Only keys with such
// an alias, and the one behind the alias itself, are the KEK's, and only if they have the
// tag crmguard-kek with the name of the alias, alias/crm-kek, as its value. Whoever makes the
// first key sets the tag, Rotate gives it to the next ones. Whatever another key has
// encrypted is refused, whatever the account could decrypt. KMS lets one of two
// processes create a number, so that rotations at the same moment leave one chain.
//
// DestroyOld schedules the deletion of all keys but the newest. KMS waits for
// [Options.DeletionDays] days, in which the keys decrypt nothing and an administrator
// can still cancel. A key with a numbered alias but without the tag is never deleted: it is
// an error instead, and nothing else is deleted either.
//
// # Security notes
//
//   - The associated data is the value of "associatedData" in the encryption context,
//     in hexadecimal, as Tink's client has it. KMS binds it, and writes it to CloudTrail:
//     names of tenants are in there, nothing of clients.
//   - The key that KMS names in each answer is checked: by its aliases and, once in a
//     process, its tags, which needs kms:ListAliases and kms:ListResourceTags. Who may make
//     aliases but not tag keys can neither plant a key nor have one deleted.
//   - Contexts reach the wire. The client's retries end with them.
//   - What KMS refuses because another key or other associated data made it is
//     encrypt.ErrWrongKEK; all else, such as throttling, is not.
//   - KMS needs seconds until all its nodes know a new key: Rotate waits until the alias
//     answers with it. A node that still answers with an older key than this process
//     has already seen is asked again for the newer one.
//
// # Compatibility
//
// Ciphertexts are KMS's own. A KEK and a RotatingKEK of the same key open each
// other's, and so does Tink's client for AWS KMS.
//
// The tests run against a local server that speaks KMS's protocol, with real AES-GCM
// behind it. They have not run against AWS.
package awskms

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard/encrypt"
)

// KEK is one key of AWS KMS. It is safe for concurrent use.
type KEK struct {
	client *kms.Client
	key    string
}

var _ tink.AEADWithContext = (*KEK)(nil)

// NewFixed returns the key with this ARN, such as
// arn:aws:kms:eu-central-1:111122223333:key/1234abcd-…; it asks nobody. Aliases are for
// [New]: they could come to mean another key without anyone being asked.
func NewFixed(client *kms.Client, keyARN string) (*KEK, error) {
	if _, err := parse(client, keyARN, "key/"); err != nil {
		return nil, err
	}
	return &KEK{client, keyARN}, nil
}

// EncryptWithContext implements tink.AEADWithContext: at most 4096 bytes.
func (k *KEK) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	answer, err := k.client.Encrypt(ctx, &kms.EncryptInput{
		KeyId: &k.key, Plaintext: plaintext, EncryptionContext: encryptionContext(associatedData),
	})
	if err != nil {
		return nil, failed("encrypt", err)
	}
	if err := isKey(k.key, answer.KeyId); err != nil {
		return nil, err
	}
	return answer.CiphertextBlob, nil
}

// DecryptWithContext implements tink.AEADWithContext.
func (k *KEK) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	answer, err := k.client.Decrypt(ctx, &kms.DecryptInput{
		KeyId: &k.key, CiphertextBlob: ciphertext, EncryptionContext: encryptionContext(associatedData),
	})
	if err != nil {
		return nil, failed("decrypt", err)
	}
	if err := isKey(k.key, answer.KeyId); err != nil {
		return nil, err
	}
	return answer.Plaintext, nil
}

// contextName is what Tink's client calls the associated data.
const contextName = "associatedData"

func encryptionContext(associatedData []byte) map[string]string {
	if len(associatedData) == 0 {
		return nil // KMS takes no empty values
	}
	return map[string]string{contextName: hex.EncodeToString(associatedData)}
}

func isKey(want string, got *string) error {
	if aws.ToString(got) != want {
		return fmt.Errorf("awskms: KMS answered with the key %q instead of %q", aws.ToString(got), want)
	}
	return nil
}

// failed tells a wrong key from an outage, where KMS does.
func failed(what string, err error) error {
	_, ciphertext := errors.AsType[*types.InvalidCiphertextException](err)
	_, key := errors.AsType[*types.IncorrectKeyException](err)
	if ciphertext || key {
		return fmt.Errorf("awskms: %s: %w: %w", what, encrypt.ErrWrongKEK, err)
	}
	return fmt.Errorf("awskms: %s: %w", what, err)
}

// parse reads the ARN of a key or alias; resource is what its last part starts with.
func parse(client *kms.Client, name, resource string) (arn.ARN, error) {
	parsed, err := arn.Parse(name)
	switch {
	case client == nil:
		return arn.ARN{}, errors.New("awskms: a client is needed")
	case err != nil, parsed.Service != "kms", parsed.Region == "", parsed.AccountID == "",
		!strings.HasPrefix(parsed.Resource, resource), len(parsed.Resource) == len(resource):
		return arn.ARN{}, fmt.Errorf("awskms: %q is not arn:PARTITION:kms:REGION:ACCOUNT:%s…", name, resource)
	}
	return parsed, nil
}
