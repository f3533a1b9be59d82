package auditout

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit"
)

const (
	maxBatch    = 128
	ahead       = 64 // records that are read while a batch is sent
	sendTimeout = 30 * time.Second
	maxBackoff  = time.Minute

	noteRefused = "the receiver refused the whole entry"
)

// Options of a [Pump]. Nil means all defaults.
type Options struct {
	Logger *slog.Logger // nil: none
	Clock  func() time.Time
}

// Pump runs feeds.
type Pump struct {
	source Source
	feeds  []*feed
}

// New checks the feeds; [Pump.Run] starts them.
func New(source Source, feeds []Feed, o *Options) (*Pump, error) {
	if source == nil || len(feeds) == 0 {
		return nil, errors.New("auditout: a journal and feeds are needed")
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	p := &Pump{source: source}
	names := make(map[string]bool)
	for _, f := range feeds {
		if f.Name == "" || names[f.Name] || f.Sink == nil || f.Cursor == nil {
			return nil, errors.New("auditout: a feed has a name of its own, a sink and a cursor")
		}
		names[f.Name] = true
		p.feeds = append(p.feeds, &feed{
			Feed: f, source: source, logger: opts.Logger.With(slog.String("feed", f.Name)), clock: opts.Clock, pause: pause,
			status: Status{Name: f.Name, Sent: -1},
		})
	}
	return p, nil
}

// Run runs all feeds until ctx ends, or until the journal was closed and they have
// all of it. It is called once.
func (p *Pump) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, f := range p.feeds {
		running.Go(func() { f.run(ctx) })
	}
	running.Wait()
}

// Status tells how the feeds do, in their order.
func (p *Pump) Status(ctx context.Context) []Status {
	head, err := p.source.Head(ctx)
	list := make([]Status, len(p.feeds))
	for i, f := range p.feeds {
		list[i] = f.state(head, err)
	}
	return list
}

// feed is a Feed at work.
type feed struct {
	Feed
	source Source
	logger *slog.Logger
	clock  func() time.Time
	pause  func(ctx context.Context, failed int)
	log    [16]byte

	mu     sync.Mutex
	status Status
	oldest time.Time // when the first record in hand was recorded; zero: there is none
}

func (f *feed) state(head audit.Head, err error) Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	if err == nil {
		s.Behind = max(head.Size-1-s.Sent, 0)
	}
	if !f.oldest.IsZero() {
		s.Lag = max(f.clock().Sub(f.oldest), 0)
	}
	return s
}

func (f *feed) run(ctx context.Context) {
	after := f.start(ctx)
	if ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	records := make(chan Record, ahead)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(records)
		f.read(ctx, f.source.FollowAll(ctx, after), records)
	})
	for batch := range batches(records) {
		if !f.deliver(ctx, batch) {
			break
		}
	}
	cancel()
	reading.Wait()
}

// start finds out where the feed stands.
func (f *feed) start(ctx context.Context) (after int64) {
	for failed := 0; ctx.Err() == nil; failed++ {
		after, err := f.resume(ctx)
		if err == nil {
			f.mu.Lock()
			f.status.Sent = after
			f.mu.Unlock()
			f.settle(ctx, nil)
			return after
		}
		f.settle(ctx, err)
		f.pause(ctx, failed)
	}
	return -1
}

// resume returns the number of the last entry that was delivered. A cursor that is
// ahead of its log says that the log was cut off: whoever did it may have put other
// entries there, so nothing is sent before somebody has looked.
func (f *feed) resume(ctx context.Context) (after int64, err error) {
	log, seq, err := f.Cursor.Load(ctx)
	if err != nil {
		return -1, fmt.Errorf("auditout: read the cursor: %w", err)
	}
	head, err := f.source.Head(ctx) // after the cursor, which another process may move while the journal grows
	if _, broken := errors.AsType[*audit.BrokenError](err); err != nil && !broken {
		return -1, fmt.Errorf("auditout: read the head: %w", err)
	}
	f.log = head.Log
	switch {
	case log == [16]byte{}:
		return -1, nil
	case log != head.Log:
		f.logger.LogAttrs(ctx, slog.LevelError, "auditout: the cursor is one of another journal: this one is delivered from its first entry")
		return -1, nil
	case seq >= head.Size:
		return -1, fmt.Errorf("auditout: entry %d was delivered, and the journal ends before it: verify the journal", seq)
	}
	return seq, nil
}

// read hands on what the journal has.
func (f *feed) read(ctx context.Context, entries iter.Seq2[audit.Entry, error], records chan<- Record) {
	for e, err := range entries {
		r := Record{Entry: e}
		if broken, ok := errors.AsType[*audit.BrokenError](err); ok {
			r.Note, r.Recorded = broken.Error(), f.clock()
		} else if err != nil {
			f.settle(ctx, err)
			continue // it tries again
		}
		select {
		case records <- r:
		case <-ctx.Done():
			return
		}
	}
}

// batches puts together what is there, without waiting for more.
func batches(records <-chan Record) iter.Seq[[]Record] {
	return func(yield func([]Record) bool) {
		for first := range records {
			batch := append(make([]Record, 0, maxBatch), first)
		more:
			for len(batch) < maxBatch {
				select {
				case r, ok := <-records:
					if !ok {
						break more
					}
					batch = append(batch, r)
				default:
					break more
				}
			}
			if !yield(batch) {
				return
			}
		}
	}
}

// deliver sends a batch and moves the cursor. It reports whether that was done
// before ctx ended.
func (f *feed) deliver(ctx context.Context, batch []Record) bool {
	f.hold(batch[0].Recorded)
	refused, ok := f.send(ctx, batch)
	for i := 0; refused && ok && i < len(batch); i++ {
		ok = f.single(ctx, &batch[i])
	}
	if !ok {
		return false
	}
	for i := range batch {
		if !refused && batch[i].Note != "" {
			f.count(&f.status.Noted)
		}
	}
	last := batch[len(batch)-1].Seq
	for failed := 0; ; failed++ {
		err := f.Cursor.Save(ctx, f.log, last)
		if err == nil {
			break
		}
		f.settle(ctx, fmt.Errorf("auditout: keep the cursor: %w", err))
		if f.pause(ctx, failed); ctx.Err() != nil {
			return false
		}
	}
	f.mu.Lock()
	f.status.Sent, f.oldest = last, time.Time{}
	f.mu.Unlock()
	f.settle(ctx, nil)
	return true
}

// single sends one record of a batch that was refused: whole, or its head, or not.
func (f *feed) single(ctx context.Context, r *Record) bool {
	refused, ok := f.send(ctx, []Record{*r})
	if ok && !refused && r.Note != "" {
		f.count(&f.status.Noted)
	}
	if !ok || !refused {
		return ok
	}
	note := noteRefused
	if r.Note != "" {
		note = r.Note
	}
	refused, ok = f.send(ctx, []Record{r.head(note)})
	switch {
	case !ok:
		return false
	case refused:
		f.count(&f.status.Skipped)
		f.logger.LogAttrs(ctx, slog.LevelError, "auditout: the receiver takes nothing of an entry", slog.Int64("entry", r.Seq))
	default:
		f.count(&f.status.Noted)
	}
	return true
}

// send tries until the receiver has the records or refuses them; ok is false if ctx
// ended first.
func (f *feed) send(ctx context.Context, records []Record) (refused, ok bool) {
	for failed := 0; ctx.Err() == nil; failed++ {
		attempt, cancel := context.WithTimeout(ctx, sendTimeout)
		err := f.Sink.Send(attempt, records)
		cancel()
		if err == nil {
			return false, true
		}
		if errors.Is(err, ErrRefused) {
			return true, true
		}
		f.settle(ctx, err)
		f.pause(ctx, failed)
	}
	return false, false
}

func (f *feed) hold(since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.oldest = since
}

func (f *feed) count(n *int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*n++
}

// settle keeps how the last attempt ended, and says once that the feed fails and once
// that it works again.
func (f *feed) settle(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // that is no failure of the receiver
	}
	f.mu.Lock()
	before := f.status.Err
	f.status.Err = err
	switch {
	case err == nil:
		f.status.FailingSince = time.Time{}
	case before == nil:
		f.status.FailingSince = f.clock()
	}
	f.mu.Unlock()
	switch {
	case err != nil && before == nil:
		f.logger.LogAttrs(ctx, slog.LevelError, "auditout: entries are not delivered", slog.Any("error", err))
	case err == nil && before != nil:
		f.logger.LogAttrs(ctx, slog.LevelInfo, "auditout: entries are delivered again")
	}
}

// pause lets a receiver that fails alone for a while, at most a minute.
func pause(ctx context.Context, failed int) {
	wait := min(time.Second<<min(failed, 6), maxBackoff)
	timer := time.NewTimer(wait/2 + rand.N(wait/2)) //nolint:gosec // spreads retries, decides nothing
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
