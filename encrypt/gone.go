package encrypt

import (
	"context"
	"errors"
	"sync"
	"time"
)

// How often, for how long and of how many clients index rows are deleted again after the
// destruction of the key.
const (
	goneEvery  = time.Hour
	goneFor    = 24 * time.Hour
	goneAtMost = 100_000
)

// gone remembers what this process has destroyed of late.
type gone struct {
	mu      sync.Mutex
	clients []goneClient // by their time
}

// goneClient is looked after at a time on the exact clock.
type goneClient struct {
	record Record
	next   int64
	end    int64
}

func (g *gone) add(record Record, now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.clients) < goneAtMost {
		g.clients = append(g.clients, goneClient{record, now + int64(goneEvery), now + int64(goneFor)})
	}
}

// due takes out those whose time has come.
func (g *gone) due(now int64) []goneClient {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for n < len(g.clients) && g.clients[n].next <= now {
		n++
	}
	due := g.clients[:n:n]
	g.clients = g.clients[n:]
	return due
}

// again puts one back that has not been looked after for the last time.
func (g *gone) again(c goneClient, now int64) {
	if c.next >= c.end {
		return
	}
	c.next = now + int64(goneEvery)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clients = append(g.clients, c)
}

// dropAgain deletes what has been put into the index since the key was destroyed: by a
// process that stood still, or a transaction longer than [LongestTransaction].
func (k *Keyring) dropAgain(ctx context.Context) error {
	if k.opts.Index == nil {
		return nil
	}
	var failed []error
	now := k.clock.exact()
	for _, c := range k.gone.due(now) {
		record, err := k.dropIndex(ctx, c.record, func(*receiptNote) {})
		if err != nil {
			failed = append(failed, err)
			c.end = max(c.end, now+int64(goneEvery))
		}
		c.record = record
		k.gone.again(c, now)
	}
	return errors.Join(failed...)
}
