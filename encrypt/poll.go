package encrypt

import (
	"context"
	"time"
)

// pollTimeout is less than the time from the start of a poll to the lease's end.
const pollTimeout = 4 * time.Second

// pollSoon looks for changes of the store in the background, so that no call
// waits for it. When that does not succeed before the lease ends, calls read the
// keys that they need anew.
func (k *Keyring) pollSoon(now int64) {
	due := k.pollDue.Load()
	if now <= due || !k.pollDue.CompareAndSwap(due, now+int64(Lease/2)) {
		return
	}
	k.closeMu.Lock()
	defer k.closeMu.Unlock()
	if k.closed.Load() {
		return
	}
	k.background.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), pollTimeout)
		defer cancel()
		if err := k.poll(ctx); err != nil {
			k.opts.Logger.WarnContext(ctx, "encrypt: the key store does not answer", "error", err)
		}
	})
}

// poll extends the lease of all cached keys, or drops them when a state has
// changed.
func (k *Keyring) poll(ctx context.Context) error {
	k.pollMu.Lock()
	defer k.pollMu.Unlock()
	started := k.now()
	revision, _, err := k.closing(ctx)
	if err != nil {
		return err
	}
	if k.polled.Load() && revision != k.revision {
		k.generation.Add(1)
	}
	k.revision = revision
	k.leaseEnd.Store(started + int64(Lease-slack))
	k.pollDue.Store(started + int64(Lease/2))
	k.polled.Store(true)
	k.changed.forget(started)
	return nil
}

// firstPoll learns the revision before any key is read, so that the polls after it
// notice whatever changes then, and the next one drops nothing for no reason.
func (k *Keyring) firstPoll(ctx context.Context) error {
	if k.polled.Load() {
		return nil
	}
	_, err := share(ctx, k, "first poll", func(ctx context.Context) (struct{}, error) {
		if k.polled.Load() {
			return struct{}{}, nil
		}
		return struct{}{}, k.poll(ctx)
	})
	return err
}
