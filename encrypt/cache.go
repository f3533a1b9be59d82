package encrypt

import (
	"hash/maphash"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	cacheWays  = 8
	cacheLocks = 64 // for writers
)

// cache remembers keys of scopes, never more than its limit (rounded down to whole
// sets, but one set at least), because that is all the room it has: a scope's hash chooses
// a set of eight slots, and when they are full the clock algorithm chooses which one gives
// way, a hand going round and taking the first that was not used since it last passed. Reading
// takes no lock.
type cache struct {
	seed   maphash.Seed
	sets   []cacheSet
	tenant atomic.Pointer[hashedName]
	locks  [cacheLocks]sync.Mutex
}

type hashedName struct {
	name string
	hash uint64
}

// cacheSet holds what a search through it needs side by side: looking at the keys
// themselves, of which most are not in the processor's caches, would cost more than all the rest.
type cacheSet struct {
	tags  [cacheWays]atomic.Uint32 // of the hashes
	used  atomic.Uint32            // a bit for each slot that was used since the hand passed
	hand  int                      // guarded by the set's lock
	slots [cacheWays]atomic.Pointer[scopeKeys]
}

func newCache(limit int) *cache {
	return &cache{seed: maphash.MakeSeed(), sets: make([]cacheSet, max(1, limit/cacheWays))}
}

func (c *cache) hash(s *Scope) uint64 {
	hash := maphash.String(c.seed, s.Name) + uint64(s.Purpose)
	if first := c.tenant.Load(); first != nil && first.name == s.Tenant {
		return hash + first.hash
	}
	return hash + c.tenantHash(s.Tenant)
}

// set returns the number of the set that a scope belongs to.
func (c *cache) set(hash uint64) uint64 {
	i, _ := bits.Mul64(hash, uint64(len(c.sets)))
	return i
}

// tenantHash remembers the hash of the first tenant, because many hosts have one
// only. Others are hashed each time: remembering the last one would cost an
// allocation whenever two take turns.
func (c *cache) tenantHash(tenant string) uint64 {
	hash := bits.RotateLeft64(maphash.String(c.seed, tenant), 32)
	if c.tenant.Load() == nil {
		c.tenant.CompareAndSwap(nil, &hashedName{strings.Clone(tenant), hash})
	}
	return hash
}

// tag is what of a hash does not choose the set.
func tag(hash uint64) uint32 { return uint32(hash) } //nolint:gosec // its lower half

func (c *cache) get(s *Scope) *scopeKeys { return c.getAt(s, c.hash(s)) }

// getAt is get for those who have hashed the scope already.
func (c *cache) getAt(s *Scope, hash uint64) *scopeKeys {
	set := &c.sets[c.set(hash)]
	for i := range set.slots {
		if set.tags[i].Load() != tag(hash) {
			continue
		}
		if keys := set.slots[i].Load(); keys != nil && keys.scope.is(s) {
			if bit := uint32(1) << i; set.used.Load()&bit == 0 { // storing it on every read would bounce the cache line
				set.used.Or(bit)
			}
			return keys
		}
	}
	return nil
}

// is compares scopes by what differs most often first.
func (s *Scope) is(other *Scope) bool {
	return s.Name == other.Name && s.Purpose == other.Purpose && s.Tenant == other.Tenant
}

// put remembers keys and returns what get returns from now on. A scope that is
// known to be closed stays so, because a slow reader may have seen it active. Leases of the keys
// that were there are taken over. The strings of the scope are kept: see [Scope.clone].
func (c *cache) put(keys *scopeKeys) *scopeKeys { return c.putAt(keys, c.hash(&keys.scope)) }

// putAt is put for those who have hashed the scope already.
func (c *cache) putAt(keys *scopeKeys, hash uint64) *scopeKeys {
	if first := c.tenant.Load(); first != nil && first.name == keys.scope.Tenant {
		keys.tenant = first
	}
	n := c.set(hash)
	set, lock := &c.sets[n], &c.locks[n%cacheLocks]
	lock.Lock()
	defer lock.Unlock()
	free := -1
	for i := range set.slots {
		known := set.slots[i].Load()
		if known == nil {
			if free < 0 { // the first one: get looks there first
				free = i
			}
			continue
		}
		if set.tags[i].Load() == tag(hash) && known.scope == keys.scope {
			if known.state != Active && keys.state == Active {
				return known
			}
			keys.takeLeases(known)
			set.slots[i].Store(keys)
			set.used.Or(1 << i)
			return keys
		}
	}
	if free < 0 {
		for set.used.Load()&(1<<set.hand) != 0 {
			set.used.And(^uint32(1 << set.hand))
			set.hand = (set.hand + 1) % cacheWays
		}
		free = set.hand
		set.hand = (set.hand + 1) % cacheWays
	}
	set.used.And(^uint32(1 << free))
	set.slots[free].Store(keys)
	set.tags[free].Store(tag(hash))
	return keys
}

// clear forgets everything.
func (c *cache) clear() {
	for i := range c.sets {
		lock := &c.locks[i%cacheLocks]
		lock.Lock()
		for j := range c.sets[i].slots {
			c.sets[i].slots[j].Store(nil)
		}
		lock.Unlock()
	}
}

// len counts entries.
func (c *cache) len() int {
	n := 0
	for i := range c.sets {
		for j := range c.sets[i].slots {
			if c.sets[i].slots[j].Load() != nil {
				n++
			}
		}
	}
	return n
}
