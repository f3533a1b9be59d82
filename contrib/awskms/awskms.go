// Package awskms lets AWS KMS hold the key-encryption key of package encrypt.
//
//	cfg, err := config.LoadDefaultConfig(ctx)
//	kek, err := awskms.New(kms.NewFromConfig(cfg), "arn:aws:kms:eu-central-1:111122223333:alias/crm-kek", nil)
//	keys, err := encrypt.New(kek, store, nil)
//
// encrypt.Keyring.Turn can replace and destroy the key behind an alias. One fixed key, for
// hosts whose policies let nobody create keys, is a [FixedKEK], made by [NewFixed]: tenants'
// keysets stay under the same key, and Turn cannot destroy anything.
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
//     answers with it, [Options.SettleTime] at most. A node that still answers with an older key than this process
//     has already seen is asked again for the newer one.
//
// # Compatibility
//
// Ciphertexts are KMS's own. A KEK and a FixedKEK of the same key open each
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
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/crmguard/crmguard/encrypt"
)

// Options of a [KEK]. Nil means the defaults.
type Options struct {
	DeletionDays int32         // how long KMS waits before it deletes an old key: 7 to 30; 0: 30
	SettleTime   time.Duration // how long Rotate waits until all of KMS knows what it has made; 0: 5 minutes
}

// KEK is the key behind an alias of AWS KMS, and the keys that were there
// before. It is safe for concurrent use.
type KEK struct {
	client *kms.Client
	alias  arn.ARN
	days   int32
	settle time.Duration

	rotating sync.Mutex // held while KMS's keys are changed

	mu     sync.Mutex
	known  map[string]int // ARN of a trusted key to its number
	floor  int            // this process encrypts with no older key
	opened int            // the newest key when this was opened or last rotated; 0: not known yet
}

var _ encrypt.RotatingKEK = (*KEK)(nil)

// New returns the KEK behind the alias with this ARN, such as
// arn:aws:kms:eu-central-1:111122223333:alias/crm-kek. It asks nobody. The alias and its
// first key, with the tag crmguard-kek=alias/crm-kek, are made by whoever administers the
// account.
func New(client *kms.Client, aliasARN string, o *Options) (*KEK, error) {
	alias, err := parse(client, aliasARN, "alias/")
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(alias.Resource, "alias/aws/") {
		return nil, errors.New("awskms: aliases that begin with alias/aws/ are AWS's own")
	}
	k := &KEK{client: client, alias: alias, days: 30, known: map[string]int{}}
	if o == nil {
		o = &Options{}
	}
	if o.DeletionDays != 0 {
		k.days = o.DeletionDays
	}
	if k.days < 7 || k.days > 30 {
		return nil, errors.New("awskms: DeletionDays is 7 to 30")
	}
	if k.settle, err = settleTime(o.SettleTime); err != nil {
		return nil, err
	}
	return k, nil
}

// EncryptWithContext implements tink.AEADWithContext: at most 4096 bytes.
func (k *KEK) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	ciphertext, number, err := k.encrypt(ctx, k.alias.String(), plaintext, associatedData)
	if err != nil {
		return nil, err
	}
	if newer := k.raise(number); newer != "" { // KMS's node does not know the newer key yet
		ciphertext, _, err = k.encrypt(ctx, newer, plaintext, associatedData)
	}
	return ciphertext, err
}

func (k *KEK) encrypt(ctx context.Context, name string, plaintext, associatedData []byte) ([]byte, int, error) {
	answer, err := k.client.Encrypt(ctx, &kms.EncryptInput{
		KeyId: &name, Plaintext: plaintext, EncryptionContext: encryptionContext(associatedData),
	})
	if err != nil {
		return nil, 0, failed("encrypt", err)
	}
	number, err := k.number(ctx, aws.ToString(answer.KeyId))
	if err != nil {
		return nil, 0, err
	}
	return answer.CiphertextBlob, number, nil
}

// DecryptWithContext implements tink.AEADWithContext.
func (k *KEK) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	// Without KeyId KMS takes the key that the ciphertext names; which it was is checked.
	answer, err := k.client.Decrypt(ctx, &kms.DecryptInput{
		CiphertextBlob: ciphertext, EncryptionContext: encryptionContext(associatedData),
	})
	if err != nil {
		return nil, failed("decrypt", err)
	}
	number, err := k.number(ctx, aws.ToString(answer.KeyId))
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.floor = max(k.floor, number) // somebody has rotated, whatever this process was told
	return answer.Plaintext, nil
}

// raise notes that a key has encrypted. It returns the newer key that must be used
// instead, if there is one.
func (k *KEK) raise(number int) (newer string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.opened == 0 {
		k.opened = number
	}
	if number >= k.floor {
		k.floor = number
		return ""
	}
	for key, n := range k.known {
		if n == k.floor {
			newer = key
		}
	}
	return newer
}

// contextName is what Tink's client calls the associated data.
const contextName = "associatedData"

func encryptionContext(associatedData []byte) map[string]string {
	if len(associatedData) == 0 {
		return nil // KMS takes no empty values
	}
	return map[string]string{contextName: hex.EncodeToString(associatedData)}
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
