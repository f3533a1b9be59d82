package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// maxCalls is how many calls of the log may be under way, and how many of the keys.
// Those that hang for ever hold their places; no more are begun than these.
const maxCalls = 1024

var errLate = errors.New("audit: no answer within the deadline")

// calls bounds what hangs.
type calls struct {
	places chan struct{}
	within func(context.Context) (context.Context, context.CancelFunc)
}

func newCalls(deadline time.Duration) calls {
	return calls{
		places: make(chan struct{}, maxCalls),
		within: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, deadline)
		},
	}
}

// do runs fn, but waits no longer than the deadline. What fn sets may be read unless
// the error is errLate or of ctx.
func (c *calls) do(ctx context.Context, fn func(ctx context.Context) error) error {
	limited, cancel := c.within(ctx)
	defer cancel()
	select {
	case c.places <- struct{}{}:
	case <-limited.Done():
		return late(ctx)
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-c.places }()
		done <- fn(limited)
	}()
	select {
	case err := <-done:
		if err != nil && limited.Err() != nil && errors.Is(err, limited.Err()) {
			return late(ctx)
		}
		return err
	case <-limited.Done():
		return late(ctx)
	}
}

func late(ctx context.Context) error {
	if err := ctx.Err(); err != nil { // the caller's own
		return fmt.Errorf("audit: waiting for the journal: %w", err)
	}
	return errLate
}

// breaker remembers whether the log works. While it does not, one call at a time
// tries it.
type breaker struct {
	mu     sync.Mutex
	down   bool
	since  time.Time
	err    error
	trying bool
}

func (b *breaker) isDown() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down
}

// admit reports whether the log may be called, and whether that is a try, which ends
// with tried.
func (b *breaker) admit() (ok, try bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.down {
		return true, false
	}
	if b.trying {
		return false, false
	}
	b.trying = true
	return true, true
}

func (b *breaker) tried() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
}

// settle is told how a call ended, and reports whether that is news.
func (b *breaker) settle(err error, now time.Time) (news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	news = b.down != (err != nil)
	b.down, b.err = err != nil, err
	if news {
		b.since = now
	}
	return news
}

func (b *breaker) state() (down bool, since time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down, b.since, b.err
}
