package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard"
)

const (
	defaultDeadline   = 2 * time.Second
	defaultSpoolLimit = 64 << 20
)

// FailoverOptions of a [Failover]. Nil means all defaults.
type FailoverOptions struct {
	// Policy says what becomes of an event while the log does not take it. Nil:
	// [PolicyOf]. Events that revoke are spooled whatever it says.
	Policy func(crmguard.Event) Policy

	Deadline   time.Duration // for the log, and again for the spool; 0: two seconds
	SpoolLimit int64         // bytes on disk; 0: 64 MiB. A full spool blocks what it cannot take; of its last eighth see Failover

	Logger *slog.Logger // nil: none
	Clock  func() time.Time
}

// Failover stands before a [Log], so that a journal that fails or hangs stops only
// what must not happen without it. It is a [crmguard.Recorder]; [PolicyOf] says
// which events block, which wait on this machine's disk, and which are counted.
//
//	journal, err := audit.New(...)
//	recorder, err := audit.NewFailover(journal, "crm-spool", nil)
//	defer recorder.Close() // before journal.Close()
//	g, err := guard.New(sessions, rights, directory, recorder, nil)
//
// When Record returns nil the event is chained and durable, except that while the
// log is down
//
//   - events of [Spool] are on the disk, flushed and sealed, and are recorded when the
//     log works again, those of one actor in their order. Entries of events that block
//     may come before them; the times of events tell.
//   - events of [DropCounted] are counted by tenant, actor, action and outcome, and an
//     entry of [GapKind] says later how many there were. Counts that are older than a
//     second, in a long outage than a minute, wait in the spool; a crash loses the
//     younger ones.
//
// Whenever the log works or not, refusals of subjects without an ID are added up:
// of those of one kind from one address, the first in a minute is recorded, and the
// others as one entry with their number, times and no more. A crash loses what was
// added up in that minute. Of more than 12,288 kinds in a minute, as when somebody tries
// tenants without end, the others are an error.
//
// What cannot be decided is refused: when the keys fail, nothing can be sealed, so
// events of Spool return the error, as those of Block do; and so they do when the
// spool is full or its disk fails. The last eighth of the spool takes only what ends
// access and the ends of acts that have begun, so that nobody who signs in again and
// again keeps a dismissal out of the journal. An event that is wrong in itself is refused under
// each policy. While entries of a tenant wait in the spool, others of that tenant go
// behind them.
//
// The order and the presence of spooled entries are proved from the moment when they
// are chained, not before: who can write the disk can remove them, but not read,
// change or plant any without the keys.
type Failover struct {
	log     *Log
	policy  func(crmguard.Event) Policy
	logger  *slog.Logger
	clock   func() time.Time
	calls   calls // of the log
	sealing calls // of the keys
	limit   time.Duration
	breaker breaker
	spool   *spool
	begun   begun
	gaps    gaps
	refused strangers

	nudge  chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}
	once   sync.Once
	endErr error
	closed atomic.Bool
	inside sync.RWMutex // read by who records; Close waits for them, or what they counted would be lost
	slowed int          // how often counts went to the spool in this outage
}

var _ crmguard.Recorder = (*Failover)(nil)

// NewFailover opens the spool in dir, or makes one, and begins to record what waits
// there. A spool belongs to one process; what another log left in it is set aside.
// Close it before the log.
func NewFailover(log *Log, dir string, o *FailoverOptions) (*Failover, error) {
	if log == nil || dir == "" {
		return nil, errors.New("audit: a log and a folder for the spool are needed")
	}
	return newFailover(log, dir, o, realOps)
}

func newFailover(log *Log, dir string, o *FailoverOptions, files ops, changes ...func(*Failover)) (*Failover, error) {
	var opts FailoverOptions
	if o != nil {
		opts = *o
	}
	if opts.Policy == nil {
		opts.Policy = PolicyOf
	}
	if opts.Deadline <= 0 {
		opts.Deadline = defaultDeadline
	}
	if opts.SpoolLimit <= 0 {
		opts.SpoolLimit = defaultSpoolLimit
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	s, err := openSpool(dir, opts.SpoolLimit, files)
	if err != nil {
		return nil, fmt.Errorf("audit: open the spool %s: %w", dir, err)
	}
	if left, _ := s.health(); left > 0 {
		opts.Logger.LogAttrs(context.Background(), slog.LevelError, "audit: files of the spool are damaged, or hold what is not this journal's: look at them and remove those named .left",
			slog.String("dir", s.dir), slog.Int("pieces", left))
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &Failover{
		log: log, policy: opts.Policy, logger: opts.Logger, clock: opts.Clock,
		calls: newCalls(opts.Deadline), sealing: newCalls(opts.Deadline), limit: opts.Deadline,
		spool: s, nudge: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{}),
	}
	for _, change := range changes {
		change(f)
	}
	go f.run(ctx)
	return f, nil
}

// Record implements [crmguard.Recorder]; see [Failover] for what nil means. It
// returns within the deadline, or two of them for events of [Spool].
func (f *Failover) Record(ctx context.Context, e crmguard.Event) error {
	if ctx.Value(txKey{}) != nil {
		return ErrOpenTx
	}
	if f.closed.Load() {
		return ErrClosed
	}
	f.inside.RLock()
	defer f.inside.RUnlock()
	if f.closed.Load() {
		return ErrClosed
	}
	checked := e
	tenant, err := examine(&checked)
	if err != nil {
		return err
	}
	if !stranger(&checked) {
		return f.record(ctx, tenant, e, 1, f.policyFor(e))
	}
	counted, undo, err := f.refused.add(tenant, &checked, f.clock())
	if err != nil {
		return err
	}
	f.wake()
	if counted {
		return nil
	}
	// Who hangs up at once is added up all the same.
	if err := f.record(context.WithoutCancel(ctx), tenant, e, 1, f.policyFor(e)); err != nil {
		undo()
		return err
	}
	return nil
}

// examine refuses what the log would refuse whatever its state.
func examine(e *crmguard.Event) (tenant string, err error) {
	if err := checkNames(e); err != nil {
		return "", err
	}
	normalise(e)
	return check(e)
}

// entry is an event that is prepared once, so that log and spool get the same ID.
type entry struct {
	content *content
	body    []byte
}

// record records an entry that stands for n events.
func (f *Failover) record(ctx context.Context, tenant string, e crmguard.Event, n int, p Policy) error {
	if p != Block { // what has begun is not lost because somebody goes away
		ctx = context.WithoutCancel(ctx)
	}
	var made entry
	waiting, _ := f.spool.waiting(tenant)
	behind := p == Spool && waiting > 0
	if !behind {
		err := f.direct(ctx, e, p, &made)
		if err == nil || !isOutage(err) {
			return err
		}
		switch {
		case p == DropCounted:
			return f.drop(tenant, e, n, err)
		case p == Block || errors.Is(err, errSealing):
			return err
		}
	}
	return f.around(ctx, tenant, e, &made, behind)
}

// direct records in the log, if that works or this is the one to try.
func (f *Failover) direct(ctx context.Context, e crmguard.Event, p Policy, made *entry) error {
	if p != Block && f.breaker.isDown() {
		return f.downError()
	}
	ok, try := f.breaker.admit()
	if !ok {
		return f.downError()
	}
	if try {
		defer f.breaker.tried()
	}
	if err := f.prepare(ctx, e, made); err != nil {
		return err
	}
	m := *made
	err := f.calls.do(ctx, func(ctx context.Context) error { return f.log.put(ctx, m.content, m.body) })
	f.settle(ctx, err)
	if err == nil {
		f.begun.note(&m.content.event)
	}
	return err
}

// prepare makes the entry, which may need keys.
func (f *Failover) prepare(ctx context.Context, e crmguard.Event, made *entry) error {
	if made.content != nil {
		return nil
	}
	if len(e.Private) == 0 {
		c, body, err := f.log.prepare(ctx, e)
		if err == nil {
			*made = entry{c, body}
		}
		return err
	}
	var m entry
	err := f.sealing.do(ctx, func(ctx context.Context) (err error) {
		m.content, m.body, err = f.log.prepare(ctx, e)
		return err
	})
	if err == nil {
		*made = m
	}
	if errors.Is(err, errLate) {
		return fmt.Errorf("%w: %w", errSealing, err)
	}
	return err
}

// settle remembers how the log answered, unless the caller went away before.
func (f *Failover) settle(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return
	}
	cause := err
	if !isOutage(err) {
		cause = nil
	}
	if !f.breaker.settle(cause, f.clock()) {
		return
	}
	if cause != nil {
		f.logger.LogAttrs(ctx, slog.LevelError, "audit: the journal is down", slog.Any("error", cause))
	} else {
		f.logger.LogAttrs(ctx, slog.LevelInfo, "audit: the journal works again")
	}
	f.wake()
}

// isOutage tells a journal that fails from an event that is wrong in itself.
func isOutage(err error) bool {
	if err == nil || errors.Is(err, errEvent) || errors.Is(err, errTenant) || errors.Is(err, errSubject) || errors.Is(err, errName) || errors.Is(err, errTime) {
		return false
	}
	_, conflict := errors.AsType[*ConflictError](err)
	return !conflict
}

// DownError is what events of [Block] get at once while the log is down.
type DownError struct {
	Since time.Time
	Cause error // of the last try
}

// Error says so.
func (e *DownError) Error() string { return fmt.Sprintf("audit: the journal is down: %v", e.Cause) }

// Unwrap returns the cause.
func (e *DownError) Unwrap() error { return e.Cause }

func (f *Failover) downError() error {
	_, since, cause := f.breaker.state()
	return &DownError{Since: since, Cause: cause}
}

// drop counts n events.
func (f *Failover) drop(tenant string, e crmguard.Event, n int, why error) error {
	normalise(&e)
	if !f.gaps.add(tenant, &e, n, f.clock()) {
		return why // not even counted
	}
	f.wake()
	return nil
}

// around spools an event. What goes there only to keep an order is rather recorded
// out of order than not at all.
func (f *Failover) around(ctx context.Context, tenant string, e crmguard.Event, made *entry, behind bool) error {
	err := f.prepare(ctx, e, made)
	if err == nil {
		err = f.keep(ctx, tenant, made)
	}
	if err != nil && behind && isOutage(err) {
		if errDirect := f.direct(ctx, e, Spool, made); errDirect == nil || !isOutage(errDirect) {
			return errDirect
		}
	}
	if err == nil {
		f.begun.note(&made.content.event)
		f.wake()
	}
	return err
}

// keep seals an entry and has it written to the spool.
func (f *Failover) keep(ctx context.Context, tenant string, made *entry) error {
	var sealed []byte
	m := *made
	err := f.sealing.do(ctx, func(ctx context.Context) (err error) {
		sealed, err = f.log.sealSpooled(ctx, tenant, m.body)
		return err
	})
	if err != nil {
		return fmt.Errorf("audit: not spooled: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, f.limit)
	defer cancel()
	if err := f.spool.append(ctx, tenant, sealed, f.must(&m.content.event)); err != nil {
		return fmt.Errorf("audit: not spooled: %w", err)
	}
	return nil
}

// InTx is [Log.InTx]: what is part of the host's transaction fails with it.
func (f *Failover) InTx(ctx context.Context, db *sql.DB, fn func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error) error {
	return f.log.InTx(ctx, db, fn)
}

// RecordTx is [Log.RecordTx].
func (f *Failover) RecordTx(ctx context.Context, tx Tx, e crmguard.Event) (settle func(committed bool), err error) {
	return f.log.RecordTx(ctx, tx, e)
}

func (f *Failover) wake() {
	select {
	case f.nudge <- struct{}{}:
	default:
	}
}
