package rbac

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard/internal/uptime"
)

// The bounds of [Engine.Watch] that hold unless others are given.
const (
	DefaultEvery  = 2 * time.Second
	DefaultMaxAge = 10 * time.Second
)

// WatchOptions of [Engine.Watch].
type WatchOptions struct {
	Every  time.Duration // between two looks at the store; 0: DefaultEvery
	MaxAge time.Duration // since the last look that succeeded; beyond it nothing is decided, so it is longer than to read the whole policy takes; 0: DefaultMaxAge

	// Listen waits for signs that the policy, or departments, have changed and calls changed at each,
	// until ctx ends; whatever it misses, the next look finds. When it fails it is
	// called again after Every. nil: nobody gives signs. See package rbacsql for
	// PostgreSQL's.
	Listen func(ctx context.Context, changed func()) error
}

// StaleError says that nothing is decided because nobody could look at the policy's store, or
// at the host's departments, for too long: meanwhile somebody may have lost their rights.
type StaleError struct {
	What        string // "the policy" or "the departments"
	Age, MaxAge time.Duration
	Err         error // of the last look, if it is known
}

// Error says for how long.
func (e *StaleError) Error() string {
	text := fmt.Sprintf("rbac: nobody could look at %s for %s, longer than %s", e.What, e.Age.Round(time.Millisecond), e.MaxAge)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns Err.
func (e *StaleError) Unwrap() error { return e.Err }

// Status is how an engine stands to its store, for pages about health.
type Status struct {
	InForce string    // version of the policy in force, as of [Engine.Version]
	Stored  Version   // newest version that was seen in the store, without its rows; zero if the adapter is no [Store]
	Looked  time.Time // when the last look at the store began that succeeded
	Stale   bool      // nothing is decided until a look succeeds
	Err     error     // why what is stored is not what is in force; nil: it is
}

// watched is what looks at the store have found.
type watched struct {
	mu     sync.Mutex
	stored Version
	looked time.Time
	age    time.Duration // uptime of looked
	maxAge time.Duration // 0: nobody has watched yet
	err    error
	busy   bool // somebody watches
}

// Status tells how the policy in force stands to the store.
func (e *Engine) Status() Status {
	_, stale := e.inForce()
	w := &e.watched
	w.mu.Lock()
	defer w.mu.Unlock()
	return Status{e.Version(), w.stored, w.looked, stale != nil, w.err}
}

// inForce is the policy to decide by.
func (e *Engine) inForce() (*snapshot, error) {
	if until := e.freshUntil.Load(); until != 0 {
		if now := e.uptime.now(); now > time.Duration(until) {
			return nil, e.stale(now)
		}
	}
	return e.current.Load(), nil
}

// quickClock is uptime.Now at a tenth of its price, for decisions. That the machine was
// suspended it learns from notice.
type quickClock struct {
	began time.Time
	ahead atomic.Int64 // of the time since began
}

// noticeEvery bounds for how long after a suspension decisions may be by an old policy.
const noticeEvery = 100 * time.Millisecond

func (c *quickClock) now() time.Duration {
	if uptime.Moved() != nil {
		return uptime.Now()
	}
	return time.Since(c.began) + time.Duration(c.ahead.Load())
}

func (c *quickClock) notice() {
	since := time.Since(c.began) // first: whatever delays the next line makes the clock fast, which is safe
	c.ahead.Store(int64(uptime.Now() - since))
}

func (e *Engine) stale(now time.Duration) error {
	w := &e.watched
	w.mu.Lock()
	defer w.mu.Unlock()
	return &StaleError{"the policy", now - w.age, w.maxAge, w.err}
}

// look is one look at the store. It counts from when it began.
type look struct {
	at  time.Time
	age time.Duration
}

func beginLook() look { return look{time.Now(), uptime.Now()} }

// saw ends a look that succeeded: what is in force is what was stored then, or what is
// left of that if err says why it was refused.
func (e *Engine) saw(l look, stored Version, err error) {
	w := &e.watched
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stored, w.err = stored, err
	e.looked(l)
}

// sawAgain ends a look that found what the one before it found.
func (e *Engine) sawAgain(l look) {
	e.watched.mu.Lock()
	defer e.watched.mu.Unlock()
	e.looked(l)
}

// looked is called with watched.mu held.
func (e *Engine) looked(l look) {
	if w := &e.watched; l.age >= w.age {
		w.looked, w.age = l.at, l.age
	}
	e.extend()
}

// missed ends a look that failed.
func (e *Engine) missed(err error) {
	e.watched.mu.Lock()
	defer e.watched.mu.Unlock()
	e.watched.err = err
}

// extend is called with watched.mu held.
func (e *Engine) extend() {
	if w := &e.watched; w.maxAge != 0 {
		e.freshUntil.Store(int64(w.age + w.maxAge))
	}
}

// stored notes a version that this process has made out of the one it saw.
func (e *Engine) stored(v Version) {
	v.Added, v.Removed = nil, nil
	e.watched.mu.Lock()
	defer e.watched.mu.Unlock()
	e.watched.stored = v
}

// seen is the version of the last look that succeeded.
func (e *Engine) seen() (stored Version, err error) {
	e.watched.mu.Lock()
	defer e.watched.mu.Unlock()
	return e.watched.stored, e.watched.err
}

// Watch keeps the policy in force no older than the one that is stored, until ctx
// ends: it looks for a new version, and takes it over as Reload does, every now and
// then and at each sign. From now on nothing is decided, with a [*StaleError], once no look
// has succeeded for MaxAge, also after Watch has ended: so each answer is by a policy
// that was the stored one at most MaxAge ago, and normally Every; where the machine was
// suspended, from a tenth of a second after it goes on. An adapter that is
// no [Store] is read whole each time.
//
// A policy that is refused for what it says leaves in force what is still stored of
// the old one, and counts as looked at; one that the store refuses, because it is
// not genuine or older, does not. [Engine.Status] tells of both, and so does the logger.
func (e *Engine) Watch(ctx context.Context, o *WatchOptions) error {
	var opts WatchOptions
	if o != nil {
		opts = *o
	}
	if opts.Every == 0 {
		opts.Every = DefaultEvery
	}
	if opts.MaxAge == 0 {
		opts.MaxAge = DefaultMaxAge
	}
	if opts.Every < 0 || opts.MaxAge <= opts.Every {
		return errors.New("rbac: watch: MaxAge must be longer than Every, which must not be negative")
	}
	if err := e.beginWatch(opts.MaxAge); err != nil {
		return err
	}
	defer e.endWatch()
	signs := make(chan struct{}, 1)
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { every(ctx, noticeEvery, e.uptime.notice) })
	if opts.Listen != nil {
		beside.Go(func() { e.listen(ctx, &opts, signs) })
	}
	ticker := time.NewTicker(opts.Every)
	defer ticker.Stop()
	told := ""
	for {
		told = e.tell(ctx, told, e.lookOnce(ctx, opts.MaxAge))
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-signs:
			e.org.signal()
		}
	}
}

// every calls do now and then, until ctx ends.
func every(ctx context.Context, period time.Duration, do func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

func (e *Engine) beginWatch(maxAge time.Duration) error {
	w := &e.watched
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy {
		return errors.New("rbac: watch: somebody watches already")
	}
	w.busy, w.maxAge = true, maxAge
	e.uptime.notice() // before anybody asks it
	e.extend()
	return nil
}

func (e *Engine) endWatch() {
	e.watched.mu.Lock()
	defer e.watched.mu.Unlock()
	e.watched.busy = false
}

// listen turns signs into looks, until ctx ends.
func (e *Engine) listen(ctx context.Context, o *WatchOptions, signs chan<- struct{}) {
	changed := func() {
		select {
		case signs <- struct{}{}:
		default: // there is one already
		}
	}
	for ctx.Err() == nil {
		err := o.Listen(ctx, changed)
		if ctx.Err() != nil {
			return
		}
		e.log.WarnContext(ctx, "rbac: signs of changes are not heard; the policy is looked at every now and then", "every", o.Every, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(o.Every):
		}
	}
}

// tell tells the logger of a look's error, once.
func (e *Engine) tell(ctx context.Context, told string, err error) string {
	switch {
	case err == nil && told != "":
		e.log.InfoContext(ctx, "rbac: the policy is that of the store again", "version", e.Version())
		return ""
	case err == nil || ctx.Err() != nil || err.Error() == told:
		return told
	}
	if _, refused := errors.AsType[*PolicyError](err); !refused { // of those Reload has told
		e.log.ErrorContext(ctx, "rbac: the stored policy cannot be used; the one in force stays for a while", "version", e.Version(), "error", err)
	}
	return err.Error()
}

// longestLoad is when a store that hangs is asked again. It is far beyond what a policy
// takes that is read late: the next look makes up for that.
const longestLoad = 2 * time.Minute

// lookOnce takes over what is stored, if it is another version than before.
func (e *Engine) lookOnce(ctx context.Context, maxAge time.Duration) error {
	loading, cancel := context.WithTimeout(ctx, max(maxAge, longestLoad))
	defer cancel()
	store, ok := e.adapter.(Store)
	if !ok {
		return e.reload(loading)
	}
	was, refused := e.seen()
	l := beginLook()
	asking, cancelAsking := context.WithTimeout(ctx, maxAge/2)
	defer cancelAsking()
	head, err := store.Head(asking)
	if err != nil {
		e.missed(err)
		return err
	}
	if _, unsound := errors.AsType[*PolicyError](refused); (refused == nil || unsound) && head.Number == was.Number && head.Digest == was.Digest {
		e.sawAgain(l)
		return refused
	}
	return e.reload(loading)
}

// reload is Reload that leaves it to its caller to tell the logger of errors that are
// no [*PolicyError].
func (e *Engine) reload(ctx context.Context) error {
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	_, err := e.take(ctx)
	return err
}
