package encrypt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/crmguard/crmguard"
)

// Overhead is how many bytes a sealed value is longer than the plain one.
const Overhead = headerSize + nonceSize + tagSize

// maxPlaintext is far above any field and far below what AES-GCM can do.
const maxPlaintext = 64 << 20

var errTooLong = errors.New("encrypt: a field is at most 64 MiB long")

// adPool lends memory for associated data: handed to an interface, an array on
// the stack would be moved to the heap each time.
var adPool = sync.Pool{New: func() any {
	b := make([]byte, 0, usualAD)
	return &b
}}

// usualAD is enough for the associated data of most fields. Keys do not keep more than maxAD.
const (
	usualAD = 256
	maxAD   = 1 << 10
)

// Seal implements [crmguard.Sealer]. Nil is sealed as an empty value: NULL is for those who
// have columns, see [Cell] and [Table]. A place without a client uses a key of the
// tenant's own. A client that is being or was erased is [crmguard.ErrErased].
func (k *Keyring) Seal(ctx context.Context, at crmguard.Place, plaintext []byte) ([]byte, error) {
	if err := checkSealing(ctx, &at); err != nil {
		return nil, err
	}
	if len(plaintext) > maxPlaintext {
		return nil, errTooLong
	}
	var scope Scope // a literal would be put together elsewhere and copied, and the copy waits for the parts
	scope.Tenant, scope.Purpose, scope.Name = at.Tenant, DataKey, at.Client
	for range attempts {
		keys, err := k.keysOf(ctx, &scope, true)
		if err != nil {
			return nil, err
		}
		key := keys.newest()
		if key.left.Add(-1) < 0 {
			if key, err = k.takeMore(ctx, scope, key, 1); err != nil {
				return nil, err
			}
			if !k.current(keys, k.now()) { // that may have taken long
				continue
			}
		}
		ad := key.borrowAD(&keys.scope)
		sealed := key.seal(make([]byte, 0, Overhead+len(plaintext)), &at, plaintext, 0, ad)
		key.returnAD(ad)
		return sealed, nil
	}
	return nil, errStalled
}

// Open implements [crmguard.Sealer]. At a place with a client it needs a Subject of
// the same tenant in the context, and counts as a batch of one for OnOpen.
func (k *Keyring) Open(ctx context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	if err := checkOpening(ctx, &at); err != nil {
		return nil, err
	}
	_, version, err := parseField(sealed)
	if err != nil {
		return nil, err
	}
	var scope Scope
	scope.Tenant, scope.Purpose, scope.Name = at.Tenant, DataKey, at.Client
	keys, err := k.keysOf(ctx, &scope, false)
	if err != nil {
		return nil, err
	}
	key, err := k.versionOf(ctx, &scope, keys, version)
	if err != nil {
		return nil, err
	}
	if at.Client != "" && k.opts.OnOpen != nil {
		if act := crmguard.ActFrom(ctx); !act.Opened(at.Client) {
			if err := k.askOnOpen(ctx, act, at.Tenant, []string{at.Client}); err != nil {
				return nil, err
			}
			if key, err = k.opening(ctx, &scope, keys, version); err != nil {
				return nil, err
			}
		}
	}
	ad := key.borrowAD(&keys.scope)
	plaintext, err := key.open(make([]byte, 0, len(sealed)-Overhead), &at, sealed, ad)
	key.returnAD(ad)
	return plaintext, err
}

// borrowAD returns memory for associated data, begun for the scope of the key and to be returned:
// the key's own, in which it stays begun, unless another goroutine has that.
func (key *key) borrowAD(s *Scope) *[]byte {
	ad := &key.ad
	if !key.adUsed.CompareAndSwap(false, true) {
		ad = adPool.Get().(*[]byte)
	} else if *ad != nil {
		return ad
	}
	key.begin(ad, s)
	return ad
}

func (key *key) returnAD(ad *[]byte) {
	if ad != &key.ad {
		adPool.Put(ad)
		return
	}
	if cap(*ad) > maxAD {
		*ad = nil
	}
	key.adUsed.Store(false)
}

// begin puts into memory what the associated data of all fields under this key begins with.
func (key *key) begin(memory *[]byte, s *Scope) {
	b := *memory
	if b == nil {
		b = make([]byte, 0, usualAD)
	}
	b = appendAD(b[:0], domainField, header{algorithmGCM, key.version})
	*memory = appendString(appendString(b, s.Tenant), s.Name)
}

// askOnOpen may take as long as it likes: keys are looked at again after it.
func (k *Keyring) askOnOpen(ctx context.Context, act *crmguard.Act, tenant string, clients []string) error {
	if err := k.opts.OnOpen(ctx, tenant, clients); err != nil {
		return fmt.Errorf("encrypt: opening: %w", err)
	}
	act.MarkOpened(clients...)
	return nil
}

// opening returns the key of one version after something that may have taken long.
func (k *Keyring) opening(ctx context.Context, s *Scope, keys *scopeKeys, version uint32) (*key, error) {
	keys, err := k.still(ctx, s, keys)
	if err != nil {
		return nil, err
	}
	return k.versionOf(ctx, s, keys, version)
}

// versionOf returns the key of one version, from the store if it must.
func (k *Keyring) versionOf(ctx context.Context, s *Scope, keys *scopeKeys, version uint32) (*key, error) {
	if key := keys.version(version); key != nil {
		return key, nil
	}
	if version < keys.versions[0].version {
		return nil, ErrRetired
	}
	if !k.maySeek(keys, version) {
		return nil, errNoVersion
	}
	keys, err := k.fetch(ctx, *s, false)
	if err != nil {
		return nil, err
	}
	if err := keys.usable(s); err != nil {
		return nil, err
	}
	if key := keys.version(version); key != nil {
		return key, nil
	}
	keys.sought.Store(k.now())
	return nil, errNoVersion
}

// errNoVersion is what a value of a newer version than the store has looks like, be it that
// the store was put back from a backup or that somebody wrote another version into the value.
var errNoVersion = fmt.Errorf("%w: no such version of it", ErrNoKey)

// maySeek says whether another node may have made a version since keys were read. As
// anybody can write any version into a row, one is looked for once in a while only.
func (k *Keyring) maySeek(keys *scopeKeys, version uint32) bool {
	sought := keys.sought.Load()
	return version > keys.newest().version && (sought == 0 || k.now()-sought >= int64(Lease/2))
}

// seal appends the sealed plaintext to dst. Nothing but the scope of the key itself says for which
// tenant and client: that of the place is not looked at again. The memory of ad was begun.
func (key *key) seal(dst []byte, at *crmguard.Place, plaintext []byte, pad int, ad *[]byte) []byte {
	algorithm := byte(algorithmGCM)
	if pad > 0 {
		algorithm = algorithmPadded
		plaintext = padded(plaintext, pad)
	}
	return key.aead.Seal(header{algorithm, key.version}.append(dst), nil, plaintext, fieldAD(ad, algorithm, at)) //nolint:gosec // nil: the AEAD draws the nonce itself
}

// open takes bytes whose header was parsed, and appends to dst. The memory of ad was begun.
func (key *key) open(dst []byte, at *crmguard.Place, sealed []byte, ad *[]byte) ([]byte, error) {
	algorithm := sealed[algorithmAt]
	plaintext, err := key.aead.Open(dst, nil, sealed[headerSize:], fieldAD(ad, algorithm, at))
	if err != nil {
		return nil, ErrForeign
	}
	if algorithm == algorithmPadded {
		return unpadded(plaintext)
	}
	return plaintext, nil
}

// fieldAD is appendPlaceAD for the scope of the key, in memory that was begun, or in more of
// it if that is too small. It measures first, which is faster than appending.
func fieldAD(memory *[]byte, algorithm byte, at *crmguard.Place) []byte {
	n := len(*memory)
	size := n + 3*4 + len(at.Kind) + len(at.Field) + len(at.Record)
	if cap(*memory) < size { // else nothing is kept: a pointer that is stored costs while garbage is collected
		*memory = append(make([]byte, 0, size), *memory...)
	}
	b := (*memory)[:size]
	b[len(domainField)+1] = algorithm // it was begun with that of values that are not padded
	n += putString(b[n:], at.Kind)
	n += putString(b[n:], at.Field)
	putString(b[n:], at.Record)
	return b
}

func putString(b []byte, s string) int {
	binary.BigEndian.PutUint32(b, uint32(len(s))) //nolint:gosec // at most maxPart
	return 4 + copy(b[4:], s)
}
