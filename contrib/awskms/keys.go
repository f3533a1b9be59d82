package awskms

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/crmguard/crmguard/encrypt"
)

// number returns the number of a key that belongs to the KEK.
func (k *KEK) number(ctx context.Context, key string) (int, error) {
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

func (k *KEK) trust(key string, number int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known[key] = number
}

// tagName is the tag that keys of the KEK have besides their aliases, with the alias as its
// value: an alias is not part of a key, so that the right to make aliases alone makes no
// key trusted.
const tagName = "crmguard-kek"

// tags returns the tags of a key that belongs to the KEK by them.
func (k *KEK) tags(ctx context.Context, key string) (tags []types.Tag, err error) {
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
func (k *KEK) list(ctx context.Context) (keyList, error) {
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

func (k *KEK) numbered(n int) string { return k.alias.Resource + "/" + strconv.Itoa(n) }

func (k *KEK) keyARN(id string) string {
	key := k.alias
	key.Resource = "key/" + id
	return key.String()
}
