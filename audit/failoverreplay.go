package audit

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
)

const (
	maxWave   = 64 // entries replayed beside each other, of as many actors
	retryMin  = 50 * time.Millisecond
	retryMax  = 5 * time.Second
	gapsMin   = time.Second // how long counts are held in memory only
	gapsMax   = time.Minute
	idleCheck = time.Second // while something is being counted
)

// run is the life of the goroutine that records what was kept back.
func (f *Failover) run(ctx context.Context) {
	defer close(f.ended)
	retry := retryMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	armed := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.nudge:
			if armed && f.breaker.isDown() { // the timer says when to try again
				continue
			}
		}
		armed = true
		switch err := f.turn(ctx); {
		case err != nil:
			timer.Reset(retry)
			retry = min(2*retry, retryMax)
		case f.busy():
			retry = retryMin
			timer.Reset(idleCheck)
		default:
			retry = retryMin
			armed = false
		}
	}
}

func (f *Failover) busy() bool {
	_, counting := f.refused.waiting()
	waiting, _ := f.spool.waiting("")
	return counting || waiting > 0 || f.gaps.total() > 0
}

// turn tries to bring everything into the journal. An error means that the log, or
// the keys, do not work yet.
func (f *Failover) turn(ctx context.Context) error {
	err := f.replay(ctx)
	return errors.Join(err, f.tellRefused(ctx, false), f.tellGaps(ctx, false))
}

// replay records what is spooled: beside each other only entries of different
// actors, the next of each when the one before it is acknowledged.
func (f *Failover) replay(ctx context.Context) error {
	held := make(map[string]bool) // tenants whose keys cannot be had
	var why error
	for ctx.Err() == nil {
		wave, err := f.wave(ctx, held)
		why = errors.Join(why, err)
		if len(wave) == 0 {
			break
		}
		if err := f.replayWave(ctx, wave); err != nil {
			return err
		}
	}
	if err := f.spool.trim(); err != nil {
		f.logger.LogAttrs(ctx, slog.LevelError, "audit: the spool", slog.Any("error", err))
	}
	return errors.Join(why, ctx.Err())
}

type replayed struct {
	spooled
	entry
	err error
}

// wave opens the entries that come next: one while the log is down, otherwise up to
// the second of some actor.
func (f *Failover) wave(ctx context.Context, held map[string]bool) ([]*replayed, error) {
	n := maxWave
	if f.breaker.isDown() {
		n = 1
	}
	var wave []*replayed
	var why error
	actors := make(map[[2]string]bool)
	for len(wave) == 0 {
		waiting := f.spool.peek(n, held)
		if len(waiting) == 0 {
			return nil, why
		}
		for _, w := range waiting {
			if held[w.tenant] {
				continue
			}
			e, err := f.openSpooled(ctx, &w)
			if err != nil {
				held[w.tenant] = true // its later entries must not come before this one
				why = err
				continue
			}
			if e.content == nil {
				f.logger.LogAttrs(ctx, slog.LevelError, "audit: an entry of the spool is set aside: it is not this journal's", slog.String("tenant", w.tenant))
				f.spool.done(w, false)
				continue
			}
			actor := [2]string{w.tenant, e.content.event.Subject.ID}
			if actors[actor] {
				return wave, why
			}
			actors[actor] = true
			wave = append(wave, &replayed{spooled: w, entry: e})
		}
	}
	return wave, why
}

// openSpooled returns an empty entry for what is nobody's, and an error if the keys
// cannot be had.
func (f *Failover) openSpooled(ctx context.Context, w *spooled) (entry, error) {
	if w.sealed == nil {
		if w.unread < maxUnread {
			return entry{}, errUnread
		}
		return entry{}, nil
	}
	var e entry
	err := f.sealing.do(ctx, func(ctx context.Context) error {
		c, body, err := f.log.openSpooled(ctx, w.tenant, w.sealed)
		if err == nil {
			e = entry{c, body}
			return nil
		}
		if errors.Is(err, errNotOurs) || errors.Is(err, crmguard.ErrErased) {
			return nil
		}
		if errKeys := f.log.keysWork(ctx, spoolPlace(w.tenant), err); errKeys != nil {
			return errKeys
		}
		c, body, err = f.log.openSpooled(ctx, w.tenant, w.sealed)
		switch {
		case err == nil: // they work again since
			e = entry{c, body}
		case ctx.Err() != nil || errors.Is(err, crmguard.ErrUnavailable):
			return err
		}
		return nil
	})
	if err != nil {
		return entry{}, err
	}
	return e, nil
}

func (f *Failover) replayWave(ctx context.Context, wave []*replayed) error {
	ok, try := f.breaker.admit()
	if !ok {
		return f.downError()
	}
	if try {
		defer f.breaker.tried()
		wave = wave[:1]
	}
	var wg sync.WaitGroup
	for _, r := range wave {
		wg.Go(func() {
			r.err = f.calls.do(ctx, func(ctx context.Context) error { return f.log.put(ctx, r.content, r.body) })
		})
	}
	wg.Wait()
	var down error
	for _, r := range wave {
		f.settle(ctx, r.err)
		if isOutage(r.err) {
			down = r.err
			continue
		}
		if r.err != nil { // another event has its ID: it will never be recorded
			f.logger.LogAttrs(ctx, slog.LevelError, "audit: an entry of the spool is set aside", slog.Any("error", r.err))
		}
		f.spool.done(r.spooled, r.err == nil)
	}
	return down
}

// tellRefused records refusals that were added up.
func (f *Failover) tellRefused(ctx context.Context, all bool) error {
	for _, e := range f.refused.take(f.clock(), all) {
		checked := e
		tenant, err := examine(&checked)
		if err == nil {
			err = f.record(ctx, tenant, e, e.Count, f.policyFor(e))
		}
		if isOutage(err) {
			return err
		}
		f.refused.settle(1)
	}
	return nil
}

// tellGaps records what was dropped, which also tries whether the log works, or has
// the spool keep it if that takes long.
func (f *Failover) tellGaps(ctx context.Context, all bool) error {
	if f.gaps.total() == 0 {
		return nil
	}
	now := f.clock()
	works := !f.breaker.isDown()
	if works {
		f.slowed = 0
	}
	due := all || f.gaps.age(now) >= min(gapsMin<<min(f.slowed, 6), gapsMax)
	if waiting, _ := f.spool.waiting(""); waiting > 0 && !works && !due {
		return nil // what is spooled tries
	}
	if due && !works {
		f.slowed++
	}
	for _, e := range f.gaps.take(now, works || all) {
		var made entry
		err := f.direct(ctx, e, Block, &made)
		if isOutage(err) && due {
			err = f.around(ctx, e.Resource.Tenant, e, &made, false)
		}
		if isOutage(err) {
			return err
		}
		f.gaps.settle(1)
	}
	return nil
}

// FailoverStatus says how a [Failover] stands, for pages of health.
type FailoverStatus struct {
	Down  bool      // the log does not take entries
	Since time.Time // since when it is down, or works again; zero: it always did
	Err   error     // why it is down

	Spooled    int   // entries that wait on the disk
	SpoolBytes int64 // of its files
	SpoolLimit int64
	SpoolErr   error // the spool takes no more until the program is started again

	Dropped  int // events that were counted, of which neither journal nor spool know
	Repeated int // refusals of strangers that are added up
	Left     int // pieces of the spool, or files of them, that are no entries of this journal
}

// OK reports whether all is in the journal, and more would be.
func (s FailoverStatus) OK() bool {
	return !s.Down && s.Spooled == 0 && s.SpoolErr == nil && s.Dropped == 0 && s.Left == 0
}

// Status says how things stand. It asks neither log nor disk.
func (f *Failover) Status() FailoverStatus {
	var s FailoverStatus
	s.Down, s.Since, s.Err = f.breaker.state()
	s.Spooled, s.SpoolBytes = f.spool.waiting("")
	s.SpoolLimit = f.spool.limit
	s.Left, s.SpoolErr = f.spool.health()
	s.Dropped = f.gaps.total()
	s.Repeated, _ = f.refused.waiting()
	return s
}

// Close records what was added up and counted, in the log or the spool, and closes
// the spool. What cannot be kept is said in the error. It takes a few deadlines at
// most; nobody records meanwhile or afterwards.
func (f *Failover) Close() error {
	f.once.Do(func() {
		f.closed.Store(true)
		f.cancel()
		<-f.ended
		f.inside.Lock()   // who records has ended
		f.inside.Unlock() //nolint:staticcheck // nobody begins any more
		ctx, cancel := context.WithTimeout(context.Background(), 4*f.limit)
		defer cancel()
		_ = f.replay(ctx) // what it leaves stays in the spool
		err := errors.Join(f.tellRefused(ctx, true), f.tellGaps(ctx, true))
		f.endErr = errors.Join(err, f.spool.close(ctx))
	})
	return f.endErr
}
