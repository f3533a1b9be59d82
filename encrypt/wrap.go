package encrypt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// tenantKeyset is one version of a tenant's keyset, ready for use.
type tenantKeyset struct {
	scope     Scope
	version   uint32
	aead      keysetAEAD
	unwrapped int64  // when the KEK was asked for it
	epoch     uint64 // of the Keyring at that time
}

// wrap wraps a key of a scope.
func (t *tenantKeyset) wrap(s Scope, version uint32, secret []byte) ([]byte, error) {
	h := header{algorithmWrapped, t.version}
	ciphertext, err := t.aead.Encrypt(secret, scopeAD(domainKey, h, s, version))
	if err != nil {
		return nil, fmt.Errorf("encrypt: wrap a key: %w", err)
	}
	return append(h.append(nil), ciphertext...), nil
}

// unwrap is the inverse of wrap for the payload of a stored record. It appends to dst, and the
// memory of ad is used.
func (t *tenantKeyset) unwrap(dst []byte, r *Record, payload []byte, ad *[]byte) ([]byte, error) {
	*ad = appendScopeAD((*ad)[:0], domainKey, header{algorithmWrapped, t.version}, &r.Scope, r.Version)
	secret, err := t.aead.decryptTo(dst, payload, *ad)
	if err != nil || len(secret)-len(dst) != keySize {
		return nil, ErrDamaged
	}
	return secret, nil
}

// errNewerKeyset says that a key was wrapped by a keyset that is newer than what was
// read of the tenant's.
var errNewerKeyset = fmt.Errorf("%w: no such version of the tenant's keyset yet", ErrDamaged)

// unwrapper unwraps keys of one tenant. All go through the same memory.
type unwrapper struct {
	keyring *Keyring
	keysets []Record      // of the tenant
	last    *tenantKeyset // most keys are under the same
	ad      []byte
	secret  [keySize]byte
}

// all makes records of one scope ready for use.
func (u *unwrapper) all(ctx context.Context, keys *scopeKeys, records []Record) error {
	for i := range records {
		r, ready := &records[i], &keys.versions[i]
		secret, err := u.one(ctx, r)
		if err != nil {
			return err
		}
		keys.unwrapped = min(keys.unwrapped, u.last.unwrapped)
		ready.version = r.Version
		if r.Scope.Purpose != DataKey {
			ready.mac = &macKey{secret: bytes.Clone(secret)}
			continue
		}
		if ready.aead, err = newGCM(secret); err != nil {
			return err
		}
	}
	return nil
}

// one returns a secret that lasts until the next one.
func (u *unwrapper) one(ctx context.Context, r *Record) ([]byte, error) {
	version, payload, err := parse(r.Wrapped, algorithmWrapped, keySize)
	if err != nil {
		return nil, ErrDamaged
	}
	if u.last == nil || u.last.version != version {
		if u.last, err = u.keyring.tenantKey(ctx, u.keysets, version); err != nil {
			return nil, err
		}
	}
	return u.last.unwrap(u.secret[:0], r, payload, &u.ad)
}

// tenantKey returns one version of a tenant's keyset: from the cache, or with one
// call to the KEK, however many ask at the same time.
func (k *Keyring) tenantKey(ctx context.Context, records []Record, version uint32) (*tenantKeyset, error) {
	i := slices.IndexFunc(records, func(r Record) bool { return r.Version == version })
	switch {
	case i < 0 && (len(records) == 0 || version > records[len(records)-1].Version):
		return nil, errNewerKeyset
	case i < 0:
		return nil, fmt.Errorf("%w: no version %d of the tenant's keyset", ErrDamaged, version)
	}
	scope := records[i].Scope
	if key := k.cachedTenantKey(scope, version); key != nil {
		return key, nil
	}
	return share(ctx, k, keysetFlight(scope, version, k.epoch.Load()), func(ctx context.Context) (*tenantKeyset, error) {
		if key := k.cachedTenantKey(scope, version); key != nil {
			return key, nil
		}
		started, epoch := k.now(), k.epoch.Load()
		primitive, err := k.unwrapKeyset(ctx, records[i])
		if err != nil {
			return nil, err
		}
		unwrapped := &tenantKeyset{scope, version, primitive, started, epoch}
		k.rememberKeyset(unwrapped)
		return unwrapped, nil
	})
}

// cachedTenantKey heeds the age only: a tenant has no state besides its clients'.
func (k *Keyring) cachedTenantKey(scope Scope, version uint32) *tenantKeyset {
	if keys := k.tenants.get(&scope); keys != nil {
		if key := keys.version(version); key != nil && k.fresh(key.keyset) {
			return key.keyset
		}
	}
	return nil
}

// fresh says whether a keyset was unwrapped less than CacheAge ago, and since the
// last [Keyring.Invalidate].
func (k *Keyring) fresh(t *tenantKeyset) bool {
	return k.now()-t.unwrapped < int64(k.opts.CacheAge) && t.epoch == k.epoch.Load()
}

// rememberKeyset adds a version of a tenant's keyset to those in the cache: while the
// KEK turns, keys are wrapped by two of them.
func (k *Keyring) rememberKeyset(unwrapped *tenantKeyset) {
	all := []*tenantKeyset{unwrapped}
	if known := k.tenants.get(&unwrapped.scope); known != nil {
		for key := range known.newestFirst() {
			if other := key.keyset; other.version != unwrapped.version && k.fresh(other) {
				all = append(all, other)
			}
		}
	}
	slices.SortFunc(all, func(a, b *tenantKeyset) int { return cmp.Compare(a.version, b.version) })
	keys := &scopeKeys{scope: unwrapped.scope, state: Active, versions: make([]key, len(all)), loaded: unwrapped.unwrapped}
	for i, t := range all {
		keys.versions[i].version, keys.versions[i].keyset = t.version, t
	}
	k.tenants.put(keys)
}

// createTenant makes a tenant's keyset, once it is sure that the KEK is the right
// one, and puts what the store then holds into byScope.
func (k *Keyring) createTenant(ctx context.Context, scope Scope, byScope map[Scope][]Record) error {
	for range attempts {
		check, err := k.checkKEK(ctx)
		if err != nil {
			return err
		}
		keyset, err := k.newKeyset(scope, 1)
		if err != nil {
			return err
		}
		record, err := keyset.wrapped(ctx, k, check)
		if err != nil {
			return err
		}
		// What the KEK cannot decrypt would be noticed after a restart, with all that is sealed by then.
		if keyset.aead, err = k.unwrapKeyset(ctx, record); err != nil {
			return err
		}
		mine, err := k.insert(ctx, []Record{record}, byScope)
		if err != nil {
			return err
		}
		if mine[scope] {
			k.rememberKeyset(keyset.tenantKeyset)
		}
		if len(byScope[scope]) > 0 {
			return nil
		} // the KEK has turned meanwhile
	}
	return errNotKept
}

// freshKeyset is one that this process has just made.
type freshKeyset struct {
	*tenantKeyset
	handle *keyset.Handle
}

func (k *Keyring) newKeyset(scope Scope, version uint32) (freshKeyset, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return freshKeyset{}, fmt.Errorf("encrypt: make a keyset: %w", err)
	}
	primitive, err := newKeysetAEAD(handle)
	if err != nil {
		return freshKeyset{}, err
	}
	return freshKeyset{&tenantKeyset{scope, version, primitive, k.now(), k.epoch.Load()}, handle}, nil
}

// wrapped asks the KEK, of the generation of its check.
func (f freshKeyset) wrapped(ctx context.Context, k *Keyring, check *kekCheck) (Record, error) {
	h := header{algorithmKeyset, check.generation}
	kek := &remember{AEADWithContext: k.kek}
	var encrypted keysetCiphertext
	if err := f.handle.WriteWithContext(ctx, &encrypted, kek, scopeAD(domainKeyset, h, f.scope, f.version)); err != nil {
		return Record{}, unavailable("KEK", kek.cause(err))
	}
	return Record{Scope: f.scope, Version: f.version, State: Active, Wrapped: append(h.append(nil), encrypted...), Under: check.Wrapped, CreatedAt: k.wallClock()}, nil
}

func (k *Keyring) unwrapKeyset(ctx context.Context, r Record) (keysetAEAD, error) {
	generation, ciphertext, err := parse(r.Wrapped, algorithmKeyset, 1)
	if err != nil {
		return nil, fmt.Errorf("%w: the tenant's keyset", ErrDamaged)
	}
	kek := &remember{AEADWithContext: k.kek}
	encrypted := keysetCiphertext(ciphertext)
	handle, err := keyset.ReadWithContext(ctx, &encrypted, kek, scopeAD(domainKeyset, header{algorithmKeyset, generation}, r.Scope, r.Version))
	switch {
	case kek.err != nil:
		return nil, unavailable("KEK", kek.err)
	case err != nil:
		return nil, fmt.Errorf("%w: the tenant's keyset", ErrDamaged)
	}
	primitive, err := newKeysetAEAD(handle)
	if err != nil {
		return nil, fmt.Errorf("%w: the tenant's keyset: %w", ErrDamaged, err)
	}
	return primitive, nil
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
