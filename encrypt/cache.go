package encrypt

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// cacheShards is a power of two. More shards mean less waiting for locks.
const cacheShards = 16

// cache remembers keys of scopes, never more than its limit. When a shard is full, the
// clock algorithm makes room: a hand goes round and takes the first entry that
// was not used since the hand last passed.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]shard
}

type shard struct {
	mu      sync.RWMutex
	limit   int
	entries map[Scope]*slot
	ring    []*slot
	hand    int
}

type slot struct {
	scope Scope
	keys  *scopeKeys
	used  atomic.Bool
}

func newCache(limit int) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].limit = max(1, limit/cacheShards)
		c.shards[i].entries = make(map[Scope]*slot)
	}
	return c
}

func (c *cache) shard(s Scope) *shard {
	// The tenant is left out: clients of all tenants spread well by their own ids.
	return &c.shards[maphash.String(c.seed, s.Name)&(cacheShards-1)]
}

func (c *cache) get(s Scope) *scopeKeys {
	shard := c.shard(s)
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	slot := shard.entries[s]
	if slot == nil {
		return nil
	}
	if !slot.used.Load() { // a store on every read would bounce the cache line
		slot.used.Store(true)
	}
	return slot.keys
}

// put remembers keys and returns what get returns from now on. A scope that is
// known to be closed stays so, because a slow reader may have seen it active.
func (c *cache) put(s Scope, keys *scopeKeys) *scopeKeys {
	shard := c.shard(s)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if known := shard.entries[s]; known != nil {
		if known.keys.state == Active || keys.state != Active {
			known.keys = keys
		}
		return known.keys
	}
	added := &slot{scope: s, keys: keys}
	shard.entries[s] = added
	if len(shard.ring) < shard.limit {
		shard.ring = append(shard.ring, added)
		return keys
	}
	for shard.ring[shard.hand].used.Swap(false) {
		shard.hand = (shard.hand + 1) % len(shard.ring)
	}
	delete(shard.entries, shard.ring[shard.hand].scope)
	shard.ring[shard.hand] = added
	shard.hand = (shard.hand + 1) % len(shard.ring)
	return keys
}

// clear forgets everything.
func (c *cache) clear() {
	for i := range c.shards {
		shard := &c.shards[i]
		shard.mu.Lock()
		clear(shard.entries)
		shard.ring, shard.hand = nil, 0
		shard.mu.Unlock()
	}
}

// len counts entries.
func (c *cache) len() int {
	n := 0
	for i := range c.shards {
		c.shards[i].mu.RLock()
		n += len(c.shards[i].entries)
		c.shards[i].mu.RUnlock()
	}
	return n
}
