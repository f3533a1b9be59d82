package encrypt

import (
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard/internal/uptime"
)

// coarse is how far the coarse clock may lag, besides what a busy machine delays
// timers by. Leases end earlier by as much again and more: see slack.
const (
	coarse = 100 * time.Millisecond
	slack  = 500 * time.Millisecond
)

// coarseClock tells the process's uptime. Asking the operating system costs
// as much as a quarter of sealing a field, so a timer asks for all: it runs only
// while the clock is in use, and ends by itself.
type coarseClock struct {
	time atomic.Int64 // 0 while the timer does not run
	used atomic.Bool
}

func (c *coarseClock) now() int64 {
	if uptime.Moved() != nil {
		return c.exact()
	}
	if now := c.time.Load(); now != 0 {
		if !c.used.Load() {
			c.used.Store(true)
		}
		return now
	}
	now := c.exact()
	if c.time.CompareAndSwap(0, now) {
		c.used.Store(true)
		time.AfterFunc(coarse, c.tick)
	}
	return now
}

// exact is never 0.
func (c *coarseClock) exact() int64 { return int64(uptime.Now()) + 1 }

func (c *coarseClock) tick() {
	if !c.used.Swap(false) {
		c.time.Store(0)
		return
	}
	c.time.Store(c.exact())
	time.AfterFunc(coarse, c.tick)
}
