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
// sets, but one set at least), because that is all the room it has: a scope's hash chooses a set of eight slots, and when they are
// full the clock algorithm chooses which one gives way, a hand going round and
// taking the first that was not used since it last passed. Reading takes no lock.
type cache struct {
	seed  maphash.Seed
	sets  []cacheSet
	locks [cacheLocks]sync.Mutex

	tenant atomic.Pointer[hashedName]
}

type hashedName struct {
	name string
	hash uint64
}

type cacheSet struct {
	slots [cacheWays]atomic.Pointer[slot]
	hand  int // guarded by the set's lock
}

// slot does not change but for used.
type slot struct {
	hash  uint64 // of the scope: most others need no closer look
	scope Scope
	keys  *scopeKeys
	used  atomic.Bool
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

func (c *cache) get(s *Scope) *scopeKeys {
	hash := c.hash(s)
	set := &c.sets[c.set(hash)]
	for i := range set.slots {
		if slot := set.slots[i].Load(); slot != nil && slot.hash == hash && slot.scope == *s {
			if !slot.used.Load() { // storing it on every read would bounce the cache line
				slot.used.Store(true)
			}
			return slot.keys
		}
	}
	return nil
}

// put remembers keys and returns what get returns from now on. A scope that is
// known to be closed stays so, because a slow reader may have seen it active. The
// strings of the scope are kept: see [Scope.clone].
func (c *cache) put(keys *scopeKeys) *scopeKeys {
	s := &keys.scope
	hash := c.hash(s)
	n := c.set(hash)
	set, lock := &c.sets[n], &c.locks[n%cacheLocks]
	lock.Lock()
	defer lock.Unlock()
	added := &slot{hash: hash, scope: *s, keys: keys}
	free := -1
	for i := range set.slots {
		switch known := set.slots[i].Load(); {
		case known == nil && free < 0: // the first one: get looks there first
			free = i
		case known == nil:
		case known.hash == hash && known.scope == *s:
			if known.keys.state != Active && keys.state == Active {
				return known.keys
			}
			added.used.Store(true)
			set.slots[i].Store(added)
			return keys
		}
	}
	if free < 0 {
		for set.slots[set.hand].Load().used.Swap(false) {
			set.hand = (set.hand + 1) % cacheWays
		}
		free = set.hand
		set.hand = (set.hand + 1) % cacheWays
	}
	set.slots[free].Store(added)
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
