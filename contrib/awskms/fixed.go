package awskms

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// FixedKEK is one key of AWS KMS, which nobody rotates here. It is safe for concurrent use.
type FixedKEK struct {
	client *kms.Client
	key    string
}

var _ tink.AEADWithContext = (*FixedKEK)(nil)

// NewFixed returns the key with this ARN, such as
// arn:aws:kms:eu-central-1:111122223333:key/1234abcd-…; it asks nobody. Aliases are for
// [New]: they could come to mean another key without anyone being asked.
func NewFixed(client *kms.Client, keyARN string) (*FixedKEK, error) {
	if _, err := parse(client, keyARN, "key/"); err != nil {
		return nil, err
	}
	return &FixedKEK{client, keyARN}, nil
}

// EncryptWithContext implements tink.AEADWithContext: at most 4096 bytes.
func (k *FixedKEK) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
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
func (k *FixedKEK) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
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

func isKey(want string, got *string) error {
	if aws.ToString(got) != want {
		return fmt.Errorf("awskms: KMS answered with the key %q instead of %q", aws.ToString(got), want)
	}
	return nil
}
