package audit

import (
	"context"
	"fmt"
	"sync"
)

// passes tells who waits for it that the inbox was read to its end: what was in it
// before is chained then, by this process or another one.
type passes struct {
	mu     sync.Mutex
	n      int64 // how many have begun
	inside bool
	ended  int64 // the last that has ended
	end    bell
}

func (p *passes) begins() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.inside {
		p.inside = true
		p.n++
	}
}

func (p *passes) ends() {
	p.mu.Lock()
	p.inside, p.ended = false, p.n
	p.mu.Unlock()
	p.end.ring()
}

// next is the pass that has not begun yet.
func (p *passes) next() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n + 1
}

// over returns nil if pass n has ended, or what is closed when one ends.
func (p *passes) over(n int64) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended >= n {
		return nil
	}
	return p.end.wait()
}

// sequenced returns when all that is in the inbox now was chained, as far as it is
// this log's.
func (l *Log) sequenced(ctx context.Context) error {
	if l.inbox == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	n := l.passes.next()
	for {
		ended := l.passes.over(n)
		if ended == nil {
			return nil
		}
		l.wake()
		select {
		case <-ended:
		case <-l.quit:
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("audit: wait until the inbox is chained: %w", ctx.Err())
		}
	}
}
