package encrypt

import (
	"bytes"
	"context"
	"fmt"
)

// kekCheckText is what the KEK check wraps. It is no secret.
var kekCheckText = []byte("crmguard KEK check")

var kekCheckScope = Scope{Purpose: KEKCheck}

// kekCheck is the newest check of the KEK. Each [Keyring.Turn] begins with the next
// version of it. The generation of the KEK, which headers of what it wraps carry, is
// the version of the last Turn that has rotated it: one less while a Turn has begun
// and not got so far.
type kekCheck struct {
	Record
	generation uint32
}

// checkKEK asks the KEK for a known value in the store, and puts it there first
// where it is missing. Without it a wrong KEK would start a second set of keys
// beside the first. A KEK that has decrypted the value of a generation encrypts
// with the key of that generation, or a later one, from then on.
func (k *Keyring) checkKEK(ctx context.Context) (*kekCheck, error) {
	records, err := k.stored(ctx, kekCheckScope)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		first, err := k.newCheck(ctx, 1, 1)
		if err != nil {
			return nil, err
		}
		if records, err = k.store.Insert(ctx, []Record{first}); err != nil {
			return nil, unavailable("key store", err)
		}
		if len(records) == 0 {
			return nil, errNotKept
		}
	}
	newest := records[len(records)-1]
	generation, ciphertext, err := parse(newest.Wrapped, algorithmKeyset, 1)
	if err != nil {
		return nil, fmt.Errorf("%w: the check of the KEK", ErrDamaged)
	}
	text, err := k.kek.DecryptWithContext(ctx, ciphertext, scopeAD(domainKeyset, header{algorithmKeyset, generation}, kekCheckScope, newest.Version))
	if err != nil {
		return nil, unavailable("KEK", err)
	}
	if !bytes.Equal(text, kekCheckText) {
		return nil, ErrWrongKEK
	}
	return &kekCheck{newest, generation}, nil
}

func (k *Keyring) newCheck(ctx context.Context, version, generation uint32) (Record, error) {
	h := header{algorithmKeyset, generation}
	ciphertext, err := k.kek.EncryptWithContext(ctx, kekCheckText, scopeAD(domainKeyset, h, kekCheckScope, version))
	if err != nil {
		return Record{}, unavailable("KEK", err)
	}
	return Record{Scope: kekCheckScope, Version: version, State: Active, Wrapped: append(h.append(nil), ciphertext...), CreatedAt: k.wallClock()}, nil
}
