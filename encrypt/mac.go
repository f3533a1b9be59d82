package encrypt

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/crmguard/crmguard"
)

// pseudonymSize makes accidental collisions impossible in practice (2^64 values)
// and the index half as large.
const pseudonymSize = 16

// ownKind is of the MACs that the package makes for itself. Whoever could have one made of a text
// of his own would write receipts of what was never erased.
const ownKind = "crmguard"

var errOwnKind = errors.New(`encrypt: the kind "` + ownKind + `" is this package's own`)

// Pseudonyms implements [crmguard.Pseudonymizer]: 16 bytes for each version of the
// key of this tenant, kind and field. The indexes of tables have keys of their own.
// Nobody need be in the context, but a subject of another tenant is [ErrSubject].
func (k *Keyring) Pseudonyms(ctx context.Context, at crmguard.Place, value []byte) ([][]byte, error) {
	if err := checkMAC(ctx, &at); err != nil {
		return nil, err
	}
	scope := fieldScope(IndexKey, &at)
	keys, err := k.keysOf(ctx, &scope, true)
	if err != nil {
		return nil, err
	}
	return keys.pseudonyms(&at, "", value), nil
}

// pseudonyms are those of all live versions, the newest first.
func (s *scopeKeys) pseudonyms(at *crmguard.Place, index string, value []byte) [][]byte {
	pseudonyms := make([][]byte, 0, len(s.versions))
	for key := range s.newestFirst() {
		pseudonyms = append(pseudonyms, key.pseudonym(at, index, value))
	}
	return pseudonyms
}

// pseudonym is the same for all clients and records of a field.
func (key *key) pseudonym(at *crmguard.Place, index string, value []byte) []byte {
	place := crmguard.Place{Tenant: at.Tenant, Kind: at.Kind, Field: at.Field, Record: index}
	return key.hmac(domainIndex, &place, value)[:pseudonymSize]
}

// MAC implements [crmguard.Authenticator], with a key of this tenant, kind and
// field. All of the place is bound. The kind "crmguard" is refused here and everywhere else.
// Nobody need be in the context, but a subject of another tenant is [ErrSubject].
func (k *Keyring) MAC(ctx context.Context, at crmguard.Place, data []byte) ([]byte, error) {
	if err := checkMAC(ctx, &at); err != nil {
		return nil, err
	}
	return k.mac(ctx, at, data)
}

// mac also makes those of [ownKind].
func (k *Keyring) mac(ctx context.Context, at crmguard.Place, data []byte) ([]byte, error) {
	if err := checkParts(&at); err != nil {
		return nil, err
	}
	scope := fieldScope(MACKey, &at)
	keys, err := k.keysOf(ctx, &scope, true)
	if err != nil {
		return nil, err
	}
	key := keys.newest()
	mac := header{algorithmHMAC, key.version}.append(make([]byte, 0, headerSize+macSize))
	return append(mac, key.hmac(domainMAC, &at, data)...), nil
}

// Verify implements [crmguard.Authenticator]. Beside [crmguard.ErrMAC] its error
// says which it is: [ErrMalformed], [ErrForeign], [ErrRetired], or [ErrNoKey], because
// where there never was a key no MAC was made. Any other error, such as [ErrDamaged],
// [ErrSubject] and [crmguard.ErrUnavailable], says nothing about the MAC.
func (k *Keyring) Verify(ctx context.Context, at crmguard.Place, data, mac []byte) error {
	if err := checkMAC(ctx, &at); err != nil {
		return err
	}
	return k.verify(ctx, at, data, mac)
}

// verify also looks at those of [ownKind].
func (k *Keyring) verify(ctx context.Context, at crmguard.Place, data, mac []byte) error {
	err := k.compare(ctx, at, data, mac)
	if errors.Is(err, ErrMalformed) || errors.Is(err, ErrForeign) || errors.Is(err, ErrRetired) || errors.Is(err, ErrNoKey) {
		return fmt.Errorf("%w: %w", crmguard.ErrMAC, err)
	}
	return err
}

func (k *Keyring) compare(ctx context.Context, at crmguard.Place, data, mac []byte) error {
	if err := checkParts(&at); err != nil {
		return err
	}
	version, tag, err := parse(mac, algorithmHMAC, macSize)
	if err != nil || len(tag) != macSize {
		return ErrMalformed
	}
	scope := fieldScope(MACKey, &at)
	keys, err := k.keysOf(ctx, &scope, false)
	if err != nil {
		return err
	}
	key, err := k.versionOf(ctx, &scope, keys, version)
	if err != nil {
		return err
	}
	if !hmac.Equal(tag, key.hmac(domainMAC, &at, data)) {
		return ErrForeign
	}
	return nil
}

// checkMAC refuses another tenant's subject: who may make MACs and pseudonyms of a tenant writes
// its rows that give access, and finds out which values it has.
func checkMAC(ctx context.Context, at *crmguard.Place) error {
	if err := checkPlace(at); err != nil {
		return err
	}
	return checkForeign(ctx, at.Tenant)
}

// macKey is the secret of an index or MAC key.
type macKey struct {
	secret []byte
	hashes sync.Pool // of hash.Hash with that secret
}

func (key *key) hmac(domain string, at *crmguard.Place, data []byte) []byte {
	h, ok := key.mac.hashes.Get().(hash.Hash)
	if ok {
		h.Reset() // which is faster than to begin with the key again
	} else {
		h = hmac.New(sha256.New, key.mac.secret)
	}
	pooled := adPool.Get().(*[]byte)
	ad := appendPlaceAD((*pooled)[:0], domain, header{algorithmHMAC, key.version}, at)
	h.Write(ad)
	*pooled = ad
	adPool.Put(pooled)
	h.Write(data)
	sum := h.Sum(make([]byte, 0, macSize))
	key.mac.hashes.Put(h)
	return sum
}
