package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Anchor keeps checkpoints where whoever rewrites the journal has no say: on another
// host, in somebody else's database, with a witness. What an anchor kept cannot be
// changed in the journal any more without [Log.Verify] noticing.
//
// [FileAnchor], auditsql.Anchor, [Webhook] and [Witness] are anchors. An anchor may
// also have a method All(context.Context) iter.Seq2[[]byte, error] over all
// checkpoints that it kept. It should: whoever has the signing key can rewrite the
// journal and have the anchor keep the result, and then only what it kept before
// tells.
//
// One that was lost would vouch, from its next checkpoint on, for what is left of the log. So a
// host that opens a log with entries asks Newest first, and where there is nothing goes on
// only if somebody says that the anchor is new. An empty log, of which the anchor holds a checkpoint
// of entries ([OpenCheckpoint]), it does not open: who removed them would have another begun.
type Anchor interface {
	// Keep keeps a checkpoint, a signed note, before it returns. The same one may
	// come again, and one of fewer entries after one of more: several processes
	// share a log.
	Keep(ctx context.Context, note []byte) error

	// Newest returns the checkpoint of the most entries that was kept, and when
	// that was; nil if there is none. An anchor that can only be written returns
	// an error that wraps [errors.ErrUnsupported].
	Newest(ctx context.Context) (note []byte, at time.Time, err error)
}

// history is the optional part of an anchor.
type history interface {
	All(ctx context.Context) iter.Seq2[[]byte, error]
}

// ErrContradicted says that an anchor knows something of the log that the log
// contradicts: other entries, or more of them. Whatever the reason is, what the log
// says now is not what it said before.
var ErrContradicted = errors.New("audit: the anchor contradicts the log")

// AnchorStatus is how an anchor does, for pages of health. It tells what happened
// since the [Log] was opened.
type AnchorStatus struct {
	Name         string    // what the anchor's String method returns, or its type
	Size         int64     // entries in the newest checkpoint that it kept
	Kept         time.Time // when that was; zero: none yet
	FailingSince time.Time // zero: it does not fail
	Err          error     // of the last attempt; nil: it succeeded
}

const (
	anchorTimeout = 30 * time.Second // one attempt
	anchorGrace   = 5 * time.Second  // what Close waits for all anchors together
)

// anchoring hands checkpoints to one anchor, by a goroutine of its own: an anchor
// that hangs holds up nobody, and what it missed meanwhile is covered by the newest.
type anchoring struct {
	anchor Anchor
	log    *Log
	news   chan *Checkpoint // the newest that was not handed over yet

	mu       sync.Mutex
	status   AnchorStatus
	attempts int // that have ended
}

// anchors are those of a log.
type anchors struct {
	all    []*anchoring
	quit   chan struct{}
	ended  chan struct{} // all goroutines have
	cancel context.CancelFunc
}

func (l *Log) startAnchors(ctx context.Context, list []Anchor) {
	l.anchors = anchors{quit: make(chan struct{}), ended: make(chan struct{})}
	ctx, l.anchors.cancel = context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	for _, a := range list {
		w := &anchoring{anchor: a, log: l, news: make(chan *Checkpoint, 1), status: AnchorStatus{Name: anchorName(a)}}
		l.anchors.all = append(l.anchors.all, w)
		running.Go(func() { w.run(ctx) })
	}
	go func() {
		running.Wait()
		close(l.anchors.ended)
	}()
}

// anchorName is how an anchor is told from others.
func anchorName(a Anchor) string {
	if s, ok := a.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", a)
}

// offer hands a checkpoint to all anchors. Only the committer calls it.
func (a *anchors) offer(c *Checkpoint) {
	for _, w := range a.all {
		for sent := false; !sent; {
			select {
			case w.news <- c:
				sent = true
			default:
				select { // an older one that nobody took
				case <-w.news:
				default:
				}
			}
		}
	}
}

func (a *anchors) list() []Anchor {
	var list []Anchor
	for _, w := range a.all {
		list = append(list, w.anchor)
	}
	return list
}

// close gives the anchors a moment for the last checkpoint. What an anchor misses
// it gets from the next Log.
func (a *anchors) close() {
	close(a.quit)
	late := time.NewTimer(anchorGrace)
	defer late.Stop()
	select {
	case <-a.ended:
	case <-late.C:
	}
	a.cancel()
}

func (w *anchoring) run(ctx context.Context) {
	for {
		select {
		case c := <-w.news:
			w.deliver(ctx, c)
		case <-w.log.anchors.quit:
			select {
			case c := <-w.news:
				w.keep(ctx, c)
			default:
			}
			return
		}
	}
}

// deliver tries until the anchor took this checkpoint or a newer one.
func (w *anchoring) deliver(ctx context.Context, c *Checkpoint) {
	for failed := 0; !w.keep(ctx, c); failed++ {
		wait := time.NewTimer(min(time.Second<<min(failed, 6), maxBackoff))
		select {
		case <-wait.C:
		case <-w.log.anchors.quit: // run makes one last attempt
			w.requeue(c)
			wait.Stop()
			return
		}
		wait.Stop()
		select {
		case c = <-w.news:
		default:
		}
	}
}

// requeue puts a checkpoint back, unless a newer one waits.
func (w *anchoring) requeue(c *Checkpoint) {
	select {
	case w.news <- c:
	default:
	}
}

// keep hands over a checkpoint. An anchor that is deaf to its deadline fails, too.
func (w *anchoring) keep(ctx context.Context, c *Checkpoint) bool {
	attempt, cancel := context.WithTimeout(ctx, anchorTimeout)
	defer cancel()
	n := w.attempts // nobody else counts them
	late := time.AfterFunc(anchorTimeout, func() { w.settle(ctx, n, false, c, errHangs) })
	defer late.Stop()
	err := w.anchor.Keep(attempt, bytes.Clone(c.Note))
	w.settle(ctx, n, true, c, err)
	return err == nil
}

// settle remembers how attempt n goes, or ended, and says once that the anchor fails
// and once that it works again.
func (w *anchoring) settle(ctx context.Context, n int, ended bool, c *Checkpoint, err error) {
	now := w.log.clock()
	w.mu.Lock()
	if w.attempts != n {
		w.mu.Unlock()
		return
	}
	if ended {
		w.attempts++
	}
	before := w.status.Err
	w.status.Err = err
	name := w.status.Name
	switch {
	case err == nil:
		w.status.Size, w.status.Kept, w.status.FailingSince = c.Size, now, time.Time{}
	case before == nil:
		w.status.FailingSince = now
	}
	w.mu.Unlock()

	switch {
	case err != nil && (before == nil || errors.Is(err, ErrContradicted) && !errors.Is(before, ErrContradicted)):
		w.log.logger.LogAttrs(ctx, slog.LevelError, "audit: a checkpoint was not kept outside", slog.String("anchor", name), slog.Any("error", err))
	case err == nil && before != nil:
		w.log.logger.LogAttrs(ctx, slog.LevelInfo, "audit: checkpoints are kept outside again", slog.String("anchor", name))
	}
}

// Anchors tells how the anchors of Options.Anchors do, in their order.
func (l *Log) Anchors() []AnchorStatus {
	list := make([]AnchorStatus, len(l.anchors.all))
	for i, w := range l.anchors.all {
		w.mu.Lock()
		list[i] = w.status
		w.mu.Unlock()
	}
	return list
}

// sizeOf is how many entries a checkpoint says that there were, signed or not.
func sizeOf(note []byte) (int64, error) {
	_, rest, _ := bytes.Cut(note, []byte("\n"))
	number, _, ok := bytes.Cut(rest, []byte("\n"))
	size, err := strconv.ParseInt(string(number), 10, 64)
	if !ok || err != nil || size < 0 || strconv.FormatInt(size, 10) != string(number) {
		return 0, errCheckpoint
	}
	return size, nil
}

// newestKept returns the checkpoint of the most entries that opens, the zero value if none
// does. Of one size it is the last: its time tells that the log still stood there.
func newestKept(list []Kept, open func(*Kept) error) Kept {
	type sized struct {
		Kept
		size int64
	}
	var all []sized
	for _, k := range list {
		if size, err := sizeOf(k.Note); err == nil {
			all = append(all, sized{k, size})
		}
	}
	slices.SortStableFunc(all, func(a, b sized) int { return cmp.Compare(a.size, b.size) })
	for _, k := range slices.Backward(all) {
		if open(&k.Kept) == nil {
			return k.Kept
		}
	}
	return Kept{}
}
