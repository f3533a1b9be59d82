package encrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// kekVersion stands in headers of what the KEK wrapped: a KEK keeps its versions
// to itself.
const kekVersion = 1

// wrapKey wraps a key of a scope under the tenant's keyset.
func wrapKey(wrapping *key, s Scope, version uint32, secret []byte) ([]byte, error) {
	h := header{algorithmWrapped, wrapping.version}
	ciphertext, err := wrapping.wrap.Encrypt(secret, scopeAD(domainKey, h, s, version))
	if err != nil {
		return nil, fmt.Errorf("encrypt: wrap a key: %w", err)
	}
	return append(h.append(nil), ciphertext...), nil
}

// unwrapKey is the inverse of wrapKey for a stored record. It says since when the
// tenant's keyset has been unwrapped.
func (k *Keyring) unwrapKey(ctx context.Context, r Record, tenantRecords []Record) (secret []byte, since int64, err error) {
	version, ciphertext, err := parse(r.Wrapped, algorithmWrapped, keySize)
	if err != nil {
		return nil, 0, ErrDamaged
	}
	wrapping, err := k.tenantKey(ctx, tenantRecords, version)
	if err != nil {
		return nil, 0, err
	}
	secret, err = wrapping.wrap.Decrypt(ciphertext, scopeAD(domainKey, header{algorithmWrapped, version}, r.Scope, r.Version))
	if err != nil || len(secret) != keySize {
		return nil, 0, ErrDamaged
	}
	return secret, wrapping.unwrapped, nil
}

// tenantKey returns one version of a tenant's keyset: from the cache, or with one
// call to the KEK, however many ask at the same time.
func (k *Keyring) tenantKey(ctx context.Context, records []Record, version uint32) (*key, error) {
	i := 0
	for ; i < len(records) && records[i].Version != version; i++ {
	}
	if i == len(records) {
		return nil, fmt.Errorf("%w: no version %d of the tenant's keyset", ErrDamaged, version)
	}
	scope := records[i].Scope
	if key := k.cachedTenantKey(scope, version); key != nil {
		return key, nil
	}
	return share(ctx, k, keysetFlight(scope, version), func(ctx context.Context) (*key, error) {
		if key := k.cachedTenantKey(scope, version); key != nil {
			return key, nil
		}
		started := k.now()
		wrap, err := k.unwrapKeyset(ctx, records[i])
		if err != nil {
			return nil, err
		}
		unwrapped := &key{scope: scope, version: version, wrap: wrap, unwrapped: started}
		k.cache.put(&scope, &scopeKeys{scope: scope, state: Active, versions: []*key{unwrapped}, loaded: started})
		return unwrapped, nil
	})
}

// cachedTenantKey heeds the age only: a tenant has no state besides its clients'.
func (k *Keyring) cachedTenantKey(scope Scope, version uint32) *key {
	keys := k.cache.get(&scope)
	if keys == nil || k.now()-keys.loaded >= int64(k.opts.CacheAge) {
		return nil
	}
	return keys.version(version)
}

// createTenant makes a tenant's keyset, once it is sure that the KEK is the right
// one, and puts what the store then holds into byScope.
func (k *Keyring) createTenant(ctx context.Context, scope Scope, byScope map[Scope][]Record) error {
	if err := k.checkKEK(ctx); err != nil {
		return err
	}
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return fmt.Errorf("encrypt: make a keyset: %w", err)
	}
	h := header{algorithmKeyset, kekVersion}
	kek := &remember{AEADWithContext: k.kek}
	var encrypted keysetCiphertext
	if err := handle.WriteWithContext(ctx, &encrypted, kek, scopeAD(domainKeyset, h, scope, 1)); err != nil {
		return unavailable("KEK", kek.cause(err))
	}
	wrapped := append(h.append(nil), encrypted...)
	_, err = k.insert(ctx, []Record{{Scope: scope, Version: 1, State: Active, Wrapped: wrapped, CreatedAt: k.wallClock()}}, byScope)
	return err
}

func (k *Keyring) unwrapKeyset(ctx context.Context, r Record) (tink.AEAD, error) {
	version, ciphertext, err := parse(r.Wrapped, algorithmKeyset, 1)
	if err != nil || version != kekVersion {
		return nil, fmt.Errorf("%w: the tenant's keyset", ErrDamaged)
	}
	kek := &remember{AEADWithContext: k.kek}
	encrypted := keysetCiphertext(ciphertext)
	handle, err := keyset.ReadWithContext(ctx, &encrypted, kek, scopeAD(domainKeyset, header{algorithmKeyset, version}, r.Scope, r.Version))
	if err != nil {
		return nil, unavailable("KEK", kek.cause(err))
	}
	return newKeysetAEAD(handle)
}

// keysetCiphertext is what Tink writes an encrypted keyset to and reads it from.
// Tink's message also holds a description of the keyset in the clear, which nothing
// authenticates: only the ciphertext is kept.
type keysetCiphertext []byte

var errClearKeyset = errors.New("encrypt: keysets are stored encrypted")

func (c *keysetCiphertext) Write(*tinkpb.Keyset) error    { return errClearKeyset }
func (c *keysetCiphertext) Read() (*tinkpb.Keyset, error) { return nil, errClearKeyset }
func (c *keysetCiphertext) WriteEncrypted(k *tinkpb.EncryptedKeyset) error {
	*c = k.GetEncryptedKeyset()
	return nil
}
func (c *keysetCiphertext) ReadEncrypted() (*tinkpb.EncryptedKeyset, error) {
	return &tinkpb.EncryptedKeyset{EncryptedKeyset: *c}, nil
}

// remember keeps the KEK's error, which Tink's keyset functions turn into text.
type remember struct {
	tink.AEADWithContext
	err error
}

func (r *remember) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	out, err := r.AEADWithContext.EncryptWithContext(ctx, plaintext, associatedData)
	r.err = err
	return out, err
}

func (r *remember) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	out, err := r.AEADWithContext.DecryptWithContext(ctx, ciphertext, associatedData)
	r.err = err
	return out, err
}

func (r *remember) cause(err error) error {
	if r.err != nil {
		return r.err
	}
	return err
}

// kekCheckText is what the KEK check wraps. It is no secret.
var kekCheckText = []byte("crmguard KEK check")

// checkKEK asks the KEK for a known value in the store, and puts it there first
// where it is missing. Without it a wrong KEK would start a second set of keys
// beside the first.
func (k *Keyring) checkKEK(ctx context.Context) error {
	scope := Scope{Purpose: KEKCheck}
	h := header{algorithmKeyset, kekVersion}
	ad := scopeAD(domainKeyset, h, scope, 1)
	records, err := k.store.Load(ctx, []Scope{scope})
	if err != nil {
		return unavailable("key store", err)
	}
	if len(records) == 0 {
		ciphertext, err := k.kek.EncryptWithContext(ctx, kekCheckText, ad)
		if err != nil {
			return unavailable("KEK", err)
		}
		records, err = k.store.Insert(ctx, []Record{{Scope: scope, Version: 1, State: Active, Wrapped: append(h.append(nil), ciphertext...), CreatedAt: k.wallClock()}})
		if err != nil {
			return unavailable("key store", err)
		}
		if len(records) == 0 {
			return fmt.Errorf("%w: the key store did not keep a new key", ErrUnavailable)
		}
	}
	_, ciphertext, err := parse(records[0].Wrapped, algorithmKeyset, 1)
	if err != nil {
		return fmt.Errorf("%w: the check of the KEK", ErrDamaged)
	}
	text, err := k.kek.DecryptWithContext(ctx, ciphertext, ad)
	if err != nil {
		return unavailable("KEK", err)
	}
	if !bytes.Equal(text, kekCheckText) {
		return ErrWrongKEK
	}
	return nil
}
