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

// shortestDelay in days, for keys that never encrypted anything.
const shortestDelay = 7

var probe = []byte("awskms probe")

// Rotate implements encrypt.RotatingKEK. It returns once the alias answers with
// the new key, which takes seconds, sometimes minutes. When somebody else rotates at
// the same moment one of the two gets encrypt.ErrKEKRotated. A failure leaves a key in
// use that both know; a key that was made in vain is scheduled for deletion.
func (k *KEK) Rotate(ctx context.Context) error {
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
	return k.follow(ctx, created, next)
}

// keepNumber gives the current key the alias that it keeps when the alias moves on.
func (k *KEK) keepNumber(ctx context.Context, keys keyList) error {
	name := k.numbered(keys.numbers[keys.current])
	err := k.createAlias(ctx, name, keys.current)
	if _, exists := errors.AsType[*types.AlreadyExistsException](err); exists {
		return nil
	}
	return err
}

// createLike creates a key with the policy, description and tags of another.
func (k *KEK) createLike(ctx context.Context, key string, tags []types.Tag) (created string, err error) {
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
func (k *KEK) prepare(ctx context.Context, key string, number int) error {
	err := k.createAlias(ctx, k.numbered(number), key)
	if _, taken := errors.AsType[*types.AlreadyExistsException](err); taken {
		return fmt.Errorf("awskms: %w: %w", encrypt.ErrKEKRotated, err)
	}
	if err != nil {
		return err
	}
	fixed := &FixedKEK{k.client, key}
	return k.retry(ctx, func(err error) bool { return isMissing(err) || isDenied(err) }, func() error {
		ciphertext, err := fixed.EncryptWithContext(ctx, probe, probe)
		if err != nil {
			return err
		}
		_, err = fixed.DecryptWithContext(ctx, ciphertext, probe)
		return err
	})
}

func (k *KEK) createAlias(ctx context.Context, name, key string) error {
	return k.retry(ctx, isMissing, func() error {
		if _, err := k.client.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: &key}); err != nil {
			return failed("create alias", err)
		}
		return nil
	})
}

// follow waits until the alias answers with the key of this number, or a newer one.
func (k *KEK) follow(ctx context.Context, key string, number int) error {
	answersOld := errors.New("awskms: the alias does not answer with the new key yet")
	unsettled := func(err error) bool {
		return errors.Is(err, answersOld) || errors.Is(err, encrypt.ErrWrongKEK) || isMissing(err)
	}
	err := k.retry(ctx, unsettled, func() error {
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

// retry calls f again while its error is one that goes away once all of KMS knows a
// new key.
func (k *KEK) retry(ctx context.Context, goesAway func(error) bool, f func() error) error {
	return eventually(ctx, k.settle, func() (done bool, err error) {
		err = f()
		return err == nil || !goesAway(err), err
	})
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

// DestroyOld implements encrypt.RotatingKEK: it schedules the deletion of all keys but
// the newest. Calling it again returns the same time. When a key has a numbered alias but
// not the tag it deletes nothing: it may be somebody else's, or one whose tag was taken away
// so that it stays.
func (k *KEK) DestroyOld(ctx context.Context) (gone time.Time, err error) {
	k.rotating.Lock()
	defer k.rotating.Unlock()
	k.mu.Lock()
	opened := k.opened
	k.mu.Unlock()
	if opened == 0 {
		return time.Time{}, fmt.Errorf("awskms: nothing was encrypted or rotated here yet, so this cannot be ruled out: %w", encrypt.ErrKEKRotated)
	}
	keys, err := k.list(ctx)
	if err != nil {
		return time.Time{}, err
	}
	for key := range keys.numbers {
		if _, err := k.tags(ctx, key); isMissing(err) {
			continue // gone, its alias will follow
		} else if err != nil {
			return time.Time{}, fmt.Errorf("%w: nothing was deleted: delete the alias, or tag the key if it is the KEK's", err)
		}
	}
	if keys.last != opened || keys.numbers[keys.current] != opened {
		return time.Time{}, fmt.Errorf("awskms: %w", encrypt.ErrKEKRotated)
	}
	gone = time.Now()
	for key := range keys.numbers {
		if key == keys.current {
			continue
		}
		deleted, err := k.deleteKey(ctx, key)
		if err != nil {
			return time.Time{}, err
		}
		if deleted.After(gone) {
			gone = deleted
		}
	}
	return gone, nil
}

// deleteKey schedules the deletion of an old key, unless that was done, and returns
// when it will be gone; the zero time when it is.
func (k *KEK) deleteKey(ctx context.Context, key string) (time.Time, error) {
	described, err := k.client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &key})
	if isMissing(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, failed("describe key", err)
	}
	if described.KeyMetadata.KeyState == types.KeyStatePendingDeletion {
		return told(described.KeyMetadata.DeletionDate)
	}
	return k.schedule(ctx, key, k.days)
}

func (k *KEK) schedule(ctx context.Context, key string, days int32) (time.Time, error) {
	answer, err := k.client.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &key, PendingWindowInDays: &days})
	if err != nil {
		return time.Time{}, failed("schedule key deletion", err)
	}
	return told(answer.DeletionDate)
}

// told refuses a deletion without a date: to receipts it would be over.
func told(deleted *time.Time) (time.Time, error) {
	if deleted == nil {
		return time.Time{}, errors.New("awskms: KMS does not say when an old key is deleted")
	}
	return *deleted, nil
}
