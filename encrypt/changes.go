package encrypt

import (
	"sync"
	"sync/atomic"
)

// changes are the scopes that this process has changed of late: keys that were read
// before are not used, though nothing else has changed for which all other keys would
// have to be read again.
type changes struct {
	count  atomic.Int64 // of scopes, about
	last   atomic.Int64 // number of the newest
	scopes sync.Map     // of Scope to change
}

type change struct{ number, at int64 }

// changesFor is more than a lease: a poll that began after a change knows of it by the revision.
const changesFor = int64(2 * Lease)

// add comes after the store has the change, and returns its number.
func (c *changes) add(scope Scope, now int64) int64 {
	number := c.last.Add(1)
	if _, known := c.scopes.Swap(scope.clone(), change{number, now}); !known && c.count.Add(1)%1024 == 0 {
		c.forget(now)
	}
	return number
}

// forget drops what polls know by now.
func (c *changes) forget(now int64) {
	if c.count.Load() == 0 {
		return
	}
	c.scopes.Range(func(scope, old any) bool {
		if now-old.(change).at > changesFor && c.scopes.CompareAndDelete(scope, old) {
			c.count.Add(-1)
		}
		return true
	})
}

// after says whether a scope was changed after the change with this number.
func (c *changes) after(scope *Scope, number int64) bool {
	return c.count.Load() > 0 && c.has(scope, number) // as hardly ever
}

func (c *changes) has(scope *Scope, after int64) bool {
	found, ok := c.scopes.Load(*scope)
	return ok && found.(change).number > after
}
