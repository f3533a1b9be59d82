package awskms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/crmguard/crmguard/encrypt"
)

const (
	// settling is how long KMS may take until all of it knows a new key; AWS names five
	// minutes for permissions by alias.
	settling = 5 * time.Minute
	// shortestDelay in days, for keys that never encrypted anything.
	shortestDelay = 7
)

var probe = []byte("awskms probe")

// Rotate implements encrypt.RotatingKEK. It returns once the alias answers with
// the new key, which takes seconds, sometimes minutes. When somebody else rotates at
// the same moment one of the two gets encrypt.ErrKEKRotated. A failure leaves a key in
// use that both know; a key that was made in vain is scheduled for deletion.
func (k *RotatingKEK) Rotate(ctx context.Context) error {
	k.rotating.Lock()
	defer k.rotating.Unlock()
	keys, err := k.list(ctx)
	if err != nil {
		return err
	}
	tags, err := k.tags(ctx, keys.current)
	if err != nil {
		return err
	}
	if err := k.keepNumber(ctx, keys); err != nil {
		return err
	}
	created, err := k.createLike(ctx, keys.current, tags)
	if err != nil {
		return err
	}
	next := keys.last + 1
	if err := k.prepare(ctx, created, next); err != nil {
		// The host's context may be what ended.
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, deleteErr := k.schedule(cleanup, created, shortestDelay)
		return errors.Join(err, deleteErr)
	}
	// From here on the key may be in use, even where an error comes back.
	if _, err := k.client.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: &k.alias.Resource, TargetKeyId: &created}); err != nil {
		return failed("update alias", err)
	}
	return k.settle(ctx, created, next)
}

// keepNumber gives the current key the alias that it keeps when the alias moves on.
func (k *RotatingKEK) keepNumber(ctx context.Context, keys keyList) error {
	name := k.numbered(keys.numbers[keys.current])
	err := k.createAlias(ctx, name, keys.current)
	if _, exists := errors.AsType[*types.AlreadyExistsException](err); exists {
		return nil
	}
	return err
}

// createLike creates a key with the policy, description and tags of another.
func (k *RotatingKEK) createLike(ctx context.Context, key string, tags []types.Tag) (created string, err error) {
	described, err := k.client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &key})
	if err != nil {
		return "", failed("describe key", err)
	}
	old := described.KeyMetadata
	if old.KeyManager != types.KeyManagerTypeCustomer || old.Origin != types.OriginTypeAwsKms ||
		old.KeySpec != types.KeySpecSymmetricDefault || old.KeyUsage != types.KeyUsageTypeEncryptDecrypt || aws.ToBool(old.MultiRegion) {
		return "", fmt.Errorf("awskms: %q is not a symmetric key of this account and region with material made by KMS: rotate it by hand", key)
	}
	policy, err := k.client.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: &key, PolicyName: aws.String("default")})
	if err != nil {
		return "", failed("get key policy", err)
	}
	tags = slices.DeleteFunc(tags, func(t types.Tag) bool { return strings.HasPrefix(aws.ToString(t.TagKey), "aws:") }) // those only AWS sets
	answer, err := k.client.CreateKey(ctx, &kms.CreateKeyInput{
		Description: old.Description, Policy: policy.Policy, Tags: tags,
		KeySpec: old.KeySpec, KeyUsage: old.KeyUsage, Origin: old.Origin,
	})
	if err != nil {
		return "", failed("create key", err)
	}
	return k.keyARN(aws.ToString(answer.KeyMetadata.KeyId)), nil
}

// prepare gives a new key its number and sees that it works.
func (k *RotatingKEK) prepare(ctx context.Context, key string, number int) error {
	err := k.createAlias(ctx, k.numbered(number), key)
	if _, taken := errors.AsType[*types.AlreadyExistsException](err); taken {
		return fmt.Errorf("awskms: %w: %w", encrypt.ErrKEKRotated, err)
	}
	if err != nil {
		return err
	}
	fixed := &KEK{k.client, key}
	return eventually(ctx, func(err error) bool { return isMissing(err) || isDenied(err) }, func() error {
		ciphertext, err := fixed.EncryptWithContext(ctx, probe, probe)
		if err != nil {
			return err
		}
		_, err = fixed.DecryptWithContext(ctx, ciphertext, probe)
		return err
	})
}

func (k *RotatingKEK) createAlias(ctx context.Context, name, key string) error {
	return eventually(ctx, isMissing, func() error {
		if _, err := k.client.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: &key}); err != nil {
			return failed("create alias", err)
		}
		return nil
	})
}

// settle waits until the alias answers with the key of this number, or a newer one.
func (k *RotatingKEK) settle(ctx context.Context, key string, number int) error {
	answersOld := errors.New("awskms: the alias does not answer with the new key yet")
	unsettled := func(err error) bool {
		return errors.Is(err, answersOld) || errors.Is(err, encrypt.ErrWrongKEK) || isMissing(err)
	}
	err := eventually(ctx, unsettled, func() error {
		_, n, err := k.encrypt(ctx, k.alias.String(), probe, probe)
		if err == nil && n < number {
			return answersOld
		}
		return err
	})
	if err != nil {
		return err
	}
	k.trust(key, number)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opened, k.floor = number, max(k.floor, number)
	return nil
}

// eventually calls f again while its error is one that goes away once all of KMS
// knows a new key.
func eventually(ctx context.Context, goesAway func(error) bool, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := f()
		if err == nil || !goesAway(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(pause):
		}
	}
}

func isMissing(err error) bool {
	_, missing := errors.AsType[*types.NotFoundException](err)
	return missing
}

// isDenied: permissions by alias come some time after the alias.
func isDenied(err error) bool {
	answer, ok := errors.AsType[smithy.APIError](err)
	return ok && answer.ErrorCode() == "AccessDeniedException"
}

// deleteKey schedules the deletion of an old key, unless that was done, and returns
// when it will be gone; the zero time when it is.
func (k *RotatingKEK) deleteKey(ctx context.Context, key string) (time.Time, error) {
	described, err := k.client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &key})
	if isMissing(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, failed("describe key", err)
	}
	if described.KeyMetadata.KeyState == types.KeyStatePendingDeletion {
		return aws.ToTime(described.KeyMetadata.DeletionDate), nil
	}
	return k.schedule(ctx, key, k.days)
}

func (k *RotatingKEK) schedule(ctx context.Context, key string, days int32) (time.Time, error) {
	answer, err := k.client.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &key, PendingWindowInDays: &days})
	if err != nil {
		return time.Time{}, failed("schedule key deletion", err)
	}
	return aws.ToTime(answer.DeletionDate), nil
}
