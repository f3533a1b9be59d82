package encrypt

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
)

// scopeKeys are the keys of one scope as last read from the store.
type scopeKeys struct {
	scope      Scope
	state      State
	versions   []key // oldest first; the last one seals
	loaded     int64 // when the query began
	unwrapped  int64 // when the KEK was asked
	generation uint64
	change     int64        // the newest of this process when the query began
	sought     atomic.Int64 // when a version was looked for that the store did not have
	tenant     *hashedName  // the cache's of the first tenant, if the scope is that one's
	broken     error        // why the stored keys of this scope alone cannot be used; never cached
}

// key is one version, ready for use.
type key struct {
	version uint32
	adUsed  atomic.Bool // whether a goroutine has ad
	aead    cipher.AEAD // of a data key
	left    atomic.Int64
	ad      []byte        // memory for associated data, begun once it was used
	mac     *macKey       // of an index or MAC key
	keyset  *tenantKeyset // of a tenant
}

// errScope is never returned as long as the package has no bug.
var errScope = errors.New("encrypt: the keys of another scope came here")

// usable is nil for keys that may be used for a scope.
func (s *scopeKeys) usable(of *Scope) error {
	switch {
	case s == nil:
		return ErrNoKey
	case s.scope != *of:
		return errScope
	case s.broken != nil:
		return s.broken
	case s.state != Active || len(s.versions) == 0:
		return crmguard.ErrErased
	}
	return nil
}

func (s *scopeKeys) newest() *key { return &s.versions[len(s.versions)-1] }

// newestFirst is the order of searches: most values are of the newest version.
func (s *scopeKeys) newestFirst() iter.Seq[*key] {
	return func(yield func(*key) bool) {
		for i := len(s.versions) - 1; i >= 0 && yield(&s.versions[i]); i-- {
		}
	}
}

func (s *scopeKeys) version(v uint32) *key {
	for key := range s.newestFirst() {
		if key.version == v {
			return key
		}
	}
	return nil
}

// takeLeases takes over what keys that these replace have left of their messages.
func (s *scopeKeys) takeLeases(from *scopeKeys) {
	for key := range s.newestFirst() {
		if old := from.version(key.version); old != nil {
			key.left.Add(max(0, old.left.Swap(0)))
		}
	}
}

// valid says whether cached keys may be used now, without asking anybody.
func (k *Keyring) valid(s *scopeKeys, now int64) bool {
	return k.current(s, now) && now-s.unwrapped < int64(k.opts.CacheAge)
}

// current says whether keys may be used now as far as erasures go: no state has changed since they were
// read, as far as a look at the store within the last [Lease] tells.
func (k *Keyring) current(s *scopeKeys, now int64) bool {
	// The end of the lease is read before the generation: a poll sets them in the
	// other order, so keys of an old generation never profit from a new lease.
	leaseEnd := k.leaseEnd.Load()
	return s.generation == k.generation.Load() &&
		s.loaded <= now && // a clock that went back tells nothing
		(now < leaseEnd || now-s.loaded < int64(Lease-slack)) &&
		!k.changed.after(&s.scope, s.change)
}

// attempts to get keys that are current when they arrive: besides a stall, a poll that
// notices an erasure ends the use of whatever is being read.
const attempts = 4

// errStalled is returned after the last of them.
var errStalled = fmt.Errorf("%w: the key store or the KEK takes longer than a lease", crmguard.ErrUnavailable)

// settled says whether what was read needs no second look: it is current, or says
// something that stays.
func (k *Keyring) settled(s *scopeKeys) bool {
	return s == nil || s.state != Active || k.current(s, k.now())
}

// still returns keys that may be used at this moment: those given or, if they have
// run out while the caller waited for something, the same scope's as they are now.
func (k *Keyring) still(ctx context.Context, s *Scope, keys *scopeKeys) (*scopeKeys, error) {
	if k.current(keys, k.now()) {
		return keys, nil
	}
	keys, err := k.fetch(ctx, *s, false)
	if err != nil {
		return nil, err
	}
	return keys, keys.usable(s)
}

// cachedOne is cached with all steps in one function, and the tenant's name compared once: that
// is a tenth of what it takes to seal a phone number.
func (k *Keyring) cachedOne(s *Scope) *scopeKeys {
	c, now := k.cache, k.now()
	if now > k.pollDue.Load() && k.polled.Load() {
		k.pollSoon(now)
	}
	hash := maphash.String(c.seed, s.Name) + uint64(s.Purpose) // see cache.hash
	first := c.tenant.Load()
	if first != nil && first.name == s.Tenant {
		hash += first.hash
	} else {
		first = nil
		hash += c.tenantHash(s.Tenant)
	}
	set := &c.sets[c.set(hash)]
	for i := range set.slots { // see cache.getAt
		if set.tags[i].Load() != tag(hash) {
			continue
		}
		keys := set.slots[i].Load()
		if keys == nil || keys.scope.Name != s.Name || keys.scope.Purpose != s.Purpose ||
			(first == nil || keys.tenant != first) && keys.scope.Tenant != s.Tenant {
			continue
		}
		if bit := uint32(1) << i; set.used.Load()&bit == 0 {
			set.used.Or(bit)
		}
		leaseEnd := k.leaseEnd.Load() // see valid
		if keys.generation == k.generation.Load() && keys.loaded <= now && (now < leaseEnd || now-keys.loaded < int64(Lease-slack)) &&
			now-keys.unwrapped < int64(k.opts.CacheAge) && !k.changed.after(&keys.scope, keys.change) {
			return keys
		}
		return nil
	}
	return nil
}

// cached returns keys that may be used, nil when the store must be asked. The hash is the cache's
// of the scope.
func (k *Keyring) cached(s *Scope, hash uint64) *scopeKeys {
	now := k.now()
	if now > k.pollDue.Load() && k.polled.Load() {
		k.pollSoon(now)
	}
	if keys := k.cache.getAt(s, hash); keys != nil && k.valid(keys, now) {
		return keys
	}
	return nil
}

// keysOf returns the keys of a scope; with create it makes the first one.
func (k *Keyring) keysOf(ctx context.Context, s *Scope, create bool) (*scopeKeys, error) {
	keys := k.cachedOne(s)
	if keys != nil && keys.state == Active && keys.broken == nil && len(keys.versions) > 0 { // the cache compared the scope
		return keys, nil
	}
	if keys == nil {
		var err error
		if keys, err = k.fetch(ctx, *s, create); err != nil {
			return nil, err
		}
	}
	return keys, keys.usable(s)
}

func newGCM(secret []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// maxName keeps names in the limits of index entries of all databases.
const maxName = 512

func checkName(names ...string) error {
	for _, name := range names {
		if len(name) > maxName || !utf8.ValidString(name) || strings.IndexByte(name, 0) >= 0 {
			return errName
		}
	}
	return nil
}
