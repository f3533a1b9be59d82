package awskms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/crmguard/crmguard/encrypt"
)

// Options of a [RotatingKEK]. Nil means the defaults.
type Options struct {
	DeletionDays int32 // how long KMS waits before it deletes an old key: 7 to 30; 0: 30
}

// RotatingKEK is the key behind an alias of AWS KMS, and the keys that were there
// before. It is safe for concurrent use.
type RotatingKEK struct {
	client *kms.Client
	alias  arn.ARN
	days   int32

	rotating sync.Mutex // held while KMS's keys are changed

	mu     sync.Mutex
	known  map[string]int // ARN of a trusted key to its number
	floor  int            // this process encrypts with no older key
	opened int            // the newest key when this was opened or last rotated; 0: not known yet
}

var _ encrypt.RotatingKEK = (*RotatingKEK)(nil)

// New returns the KEK behind the alias with this ARN, such as
// arn:aws:kms:eu-central-1:111122223333:alias/crm-kek. It asks nobody. The alias and its
// first key, with the tag crmguard-kek=alias/crm-kek, are made by whoever administers the
// account.
func New(client *kms.Client, aliasARN string, o *Options) (*RotatingKEK, error) {
	alias, err := parse(client, aliasARN, "alias/")
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(alias.Resource, "alias/aws/") {
		return nil, errors.New("awskms: aliases that begin with alias/aws/ are AWS's own")
	}
	k := &RotatingKEK{client: client, alias: alias, days: 30, known: map[string]int{}}
	if o != nil && o.DeletionDays != 0 {
		k.days = o.DeletionDays
	}
	if k.days < 7 || k.days > 30 {
		return nil, errors.New("awskms: DeletionDays is 7 to 30")
	}
	return k, nil
}

// EncryptWithContext implements tink.AEADWithContext: at most 4096 bytes.
func (k *RotatingKEK) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	ciphertext, number, err := k.encrypt(ctx, k.alias.String(), plaintext, associatedData)
	if err != nil {
		return nil, err
	}
	if newer := k.raise(number); newer != "" { // KMS's node does not know the newer key yet
		ciphertext, _, err = k.encrypt(ctx, newer, plaintext, associatedData)
	}
	return ciphertext, err
}

func (k *RotatingKEK) encrypt(ctx context.Context, name string, plaintext, associatedData []byte) ([]byte, int, error) {
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
func (k *RotatingKEK) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
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
func (k *RotatingKEK) raise(number int) (newer string) {
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

// number returns the number of a key that belongs to the KEK.
func (k *RotatingKEK) number(ctx context.Context, key string) (int, error) {
	k.mu.Lock()
	number := k.known[key]
	k.mu.Unlock()
	if number != 0 {
		return number, nil
	}
	keys, err := k.list(ctx)
	if err != nil {
		return 0, err
	}
	if number = keys.numbers[key]; number == 0 {
		return 0, fmt.Errorf("awskms: %w: the key %q has no alias of %s", encrypt.ErrWrongKEK, key, k.alias.Resource)
	}
	if _, err := k.tags(ctx, key); err != nil {
		return 0, err
	}
	k.trust(key, number)
	return number, nil
}

func (k *RotatingKEK) trust(key string, number int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known[key] = number
}

// tagName is the tag that keys of the KEK have besides their aliases, with the alias as its
// value: an alias is not part of a key, so that the right to make aliases alone makes no
// key trusted.
const tagName = "crmguard-kek"

// tags returns the tags of a key that belongs to the KEK by them.
func (k *RotatingKEK) tags(ctx context.Context, key string) (tags []types.Tag, err error) {
	for pages := kms.NewListResourceTagsPaginator(k.client, &kms.ListResourceTagsInput{KeyId: &key}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, failed("list tags", err)
		}
		tags = append(tags, page.Tags...)
	}
	if !slices.ContainsFunc(tags, func(t types.Tag) bool {
		return aws.ToString(t.TagKey) == tagName && aws.ToString(t.TagValue) == k.alias.Resource
	}) {
		return nil, fmt.Errorf("awskms: %w: the key %q has an alias of %s, but not the tag %s=%s", encrypt.ErrWrongKEK, key, k.alias.Resource, tagName, k.alias.Resource)
	}
	return tags, nil
}

// keyList is what the aliases say.
type keyList struct {
	numbers map[string]int // ARN of a key to its number
	current string         // the key behind the alias itself
	last    int            // the highest number
}

// list reads which keys belong to the KEK by their aliases; their tags are to be checked.
// A key behind the alias that has no number yet counts as the next one, one that has several
// keeps the first.
func (k *RotatingKEK) list(ctx context.Context) (keyList, error) {
	keys := keyList{numbers: map[string]int{}}
	pages := kms.NewListAliasesPaginator(k.client, &kms.ListAliasesInput{Limit: aws.Int32(100)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return keyList{}, failed("list aliases", err)
		}
		for _, alias := range page.Aliases {
			if alias.TargetKeyId == nil {
				continue
			}
			rest, ok := strings.CutPrefix(aws.ToString(alias.AliasName), k.alias.Resource)
			switch {
			case !ok:
			case rest == "":
				keys.current = k.keyARN(*alias.TargetKeyId)
			default:
				if n := numberOf(rest); n > 0 {
					key := k.keyARN(*alias.TargetKeyId)
					if first := keys.numbers[key]; first == 0 || n < first {
						keys.numbers[key] = n
					}
					keys.last = max(keys.last, n)
				}
			}
		}
	}
	if keys.current == "" {
		return keyList{}, fmt.Errorf("awskms: no %s is there", k.alias.Resource)
	}
	if keys.numbers[keys.current] == 0 {
		keys.last++
		keys.numbers[keys.current] = keys.last
	}
	return keys, nil
}

// numberOf reads "/17"; all else is 0.
func numberOf(rest string) int {
	digits, ok := strings.CutPrefix(rest, "/")
	if n, err := strconv.Atoi(digits); ok && err == nil && n > 0 && strconv.Itoa(n) == digits {
		return n
	}
	return 0
}

func (k *RotatingKEK) numbered(n int) string { return k.alias.Resource + "/" + strconv.Itoa(n) }

func (k *RotatingKEK) keyARN(id string) string {
	key := k.alias
	key.Resource = "key/" + id
	return key.String()
}

// DestroyOld implements encrypt.RotatingKEK: it schedules the deletion of all keys but
// the newest. Calling it again returns the same time. When a key has a numbered alias but
// not the tag it deletes nothing: it may be somebody else's, or one whose tag was taken away
// so that it stays.
func (k *RotatingKEK) DestroyOld(ctx context.Context) (gone time.Time, err error) {
	k.rotating.Lock()
	defer k.rotating.Unlock()
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
	k.mu.Lock()
	opened := k.opened
	k.mu.Unlock()
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
