package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
)

// An entry that was committed waits in the inbox for others of this process, which are
// chained in one step with it: until none comes and none is in an open transaction, until
// they are a batch, or until they have waited long enough.
const (
	gatherEvery = 5 * time.Millisecond // it is looked whether that is so
	gatherLong  = 100 * time.Millisecond
)

type txKey struct{}

// txInbox is what an [Inbox] offers besides, inside the host's transaction.
type txInbox interface {
	// Begin is called before anything else is done in a transaction of InTx. A
	// database that refuses to write in one that began by reading writes here.
	Begin(ctx context.Context, tx Tx) error

	// Held returns the body that is there with the tenant, event and outcome of
	// w, seen from inside tx; nil if there is none.
	Held(ctx context.Context, tx Tx, w Waiting) (body []byte, err error)
}

// WithTx returns a context for what runs while a transaction of the host is open.
// Record refuses it at once ([ErrOpenTx]): it would wait for the transaction to end, which
// on SQLite waits for Record.
func WithTx(ctx context.Context) context.Context { return context.WithValue(ctx, txKey{}, true) }

// InTx runs fn in a transaction and commits. The entries that fn records are
// committed with it, or not at all: if fn or one of its record calls fails,
// everything is rolled back. The database must be the one in which the store keeps its tables.
//
// After InTx returns nil the entries are durable; they are chained, and found,
// moments later. Inside fn use record, and for everything else the context that fn
// is given: Record refuses it at once, instead of waiting for this transaction.
//
// Entries are sealed inside the transaction, when fn records them. A Sealer that
// keeps its keys in the same SQLite database must have those of the tenant and of
// the clients concerned at hand: it cannot write while fn does.
//
// A savepoint that fn rolls back takes entries that were recorded after it along, and
// the log says that they were removed ([ActMissing]): record after savepoints.
func (l *Log) InTx(ctx context.Context, db *sql.DB, fn func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error) error {
	if l.inbox == nil {
		return ErrNoInbox
	}
	if ctx.Value(txKey{}) != nil {
		return ErrOpenTx
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("audit: begin: %w", err)
	}
	in := &inTx{seen: make(map[[32]byte]*content)}
	ended := rolledBack
	defer func() { l.node.settle(ended, in.numbers...) }()
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing; before, the first error counts
	if b, ok := l.inbox.(txInbox); ok {
		if err := b.Begin(ctx, tx); err != nil {
			return fmt.Errorf("audit: begin: %w", err)
		}
	}
	var failed error
	record := func(e crmguard.Event) error {
		err := l.recordTx(ctx, tx, e, in)
		failed = errors.Join(failed, err)
		return err
	}
	if err := fn(WithTx(ctx), tx, record); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	err = tx.Commit()
	if ended = afterCommit(err); err != nil {
		return fmt.Errorf("audit: commit: %w", err)
	}
	if len(in.numbers) > 0 {
		l.soon()
	}
	return nil
}

// RecordTx writes an entry inside a transaction of the host's: it exists if and
// only if that commits. Call settle when it has ended, and was committed or rolled
// back for certain: then the entry is chained in a moment, and its removal before that is
// noticed. Without settle it is chained within about a second, and whether there was
// one is in doubt ([ActInDoubt]) if none comes within an hour. Another entry in its
// place is a *[ConflictError]: roll back.
func (l *Log) RecordTx(ctx context.Context, tx Tx, e crmguard.Event) (settle func(committed bool), err error) {
	in := &inTx{}
	if err := l.recordTx(ctx, tx, e, in); err != nil {
		return nil, err
	}
	return func(ok bool) {
		if !ok {
			l.node.settle(rolledBack, in.numbers...)
			return
		}
		l.node.settle(committed, in.numbers...)
		l.soon()
	}, nil
}

// inTx is what a transaction of the host's holds.
type inTx struct {
	seen    map[[32]byte]*content // nil: it is not known what else it holds
	numbers []int64               // of this node
}

// recordTx writes an entry and remembers it.
func (l *Log) recordTx(ctx context.Context, tx Tx, e crmguard.Event, in *inTx) error {
	if l.inbox == nil {
		return ErrNoInbox
	}
	if err := l.enter(); err != nil {
		return err
	}
	defer l.entering.Done()
	c, body, err := l.prepare(ctx, e)
	if err != nil {
		return err
	}
	return l.putTx(ctx, tx, c, body, in, rolledBack)
}

// putTx puts a prepared entry into the inbox. What becomes of its number if that fails
// is for the caller to know.
func (l *Log) putTx(ctx context.Context, tx Tx, c *content, body []byte, in *inTx, otherwise outcome) error {
	keys := c.keys()
	if before := in.seen[keys.id()]; before != nil {
		if !c.same(before, c.timed && before.timed) {
			return c.conflict()
		}
		return nil
	}
	if f, ok := l.inbox.(txFinder); ok && len(c.pseudonyms) > 0 { // first: those of no entry do no harm
		if err := f.PutPseudonyms(ctx, tx, c.pseudonyms); err != nil {
			return fmt.Errorf("audit: keep pseudonyms: %w", err)
		}
	}
	of := l.node.issue()
	w, err := l.sealWaiting(ctx, c, body, of)
	if err != nil {
		l.node.settle(rolledBack, of.n)
		return err
	}
	added, err := l.putWaiting(ctx, tx, w, c)
	switch {
	case added:
		in.numbers = append(in.numbers, of.n)
	case errors.Is(err, errPut):
		l.node.settle(otherwise, of.n)
	default: // another number is there
		l.node.settle(rolledBack, of.n)
	}
	if err != nil {
		return err
	}
	if in.seen != nil {
		in.seen[keys.id()] = c
	}
	return nil
}

// errPut says that it is not known whether an entry was put into the inbox.
var errPut = errors.New("audit: put into the inbox")

// putWaiting puts an entry into the inbox, or finds one there that says the same.
func (l *Log) putWaiting(ctx context.Context, tx Tx, w Waiting, c *content) (added bool, err error) {
	for again := 0; ; again++ {
		watched := &watchedTx{Tx: tx}
		if err := l.inbox.Put(ctx, watched, w); err != nil {
			return false, fmt.Errorf("%w: %w", errPut, err)
		}
		if !watched.used || watched.rows > 0 {
			return true, nil
		}
		if err := l.inPlaceOf(ctx, tx, w, c); !errors.Is(err, errVanished) || again == maxVanished {
			return false, err
		}
	}
}

// watchedTx counts the rows that were written: none means that an entry with the
// same keys is there.
type watchedTx struct {
	Tx
	used bool
	rows int64
}

func (t *watchedTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	result, err := t.Tx.ExecContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	n, err := result.RowsAffected()
	t.used = true
	t.rows += n
	return result, err
}

// errVanished says that what was in the place of an entry is there no more, as when it was
// chained, or has no body.
var errVanished = errors.New("audit: what was in the place of the entry is there no more, or cannot be read")

// maxVanished is how often an entry is put again into a place that is free again.
const maxVanished = 3

// inPlaceOf returns nil if what is there in place of w says the same as c, so that
// nothing is lost.
func (l *Log) inPlaceOf(ctx context.Context, tx Tx, w Waiting, c *content) error {
	inbox, ok := l.inbox.(txInbox)
	if !ok {
		return c.conflict()
	}
	body, err := inbox.Held(ctx, tx, w)
	if err != nil {
		return fmt.Errorf("audit: look for the entry in its place: %w", err)
	}
	if body == nil {
		return errVanished
	}
	w.Body = body
	there, err := l.openWaiting(ctx, &w)
	if err != nil {
		return fmt.Errorf("%w: what is there does not open: %w", c.conflict(), err)
	}
	if !there.content.same(c, false) {
		return c.conflict()
	}
	return nil
}

// soon has the committer look into the inbox, after those have come that are about to: a
// look takes nearly as long for one entry as for many.
func (l *Log) soon() {
	if l.waking.CompareAndSwap(false, true) {
		issued, _ := l.node.busy()
		l.gather(time.Now(), issued, issued)
	}
}

// gather wakes the committer when no more are to be waited for: since began, when first
// numbers were issued, and the last time issued.
func (l *Log) gather(began time.Time, first, last int64) {
	time.AfterFunc(gatherEvery, func() {
		issued, open := l.node.busy()
		if (open || issued > last) && issued-first < maxBatch && time.Since(began) < gatherLong {
			l.gather(began, first, issued)
			return
		}
		l.waking.Store(false)
		l.wake()
	})
}

func (l *Log) wake() {
	select {
	case l.nudge <- struct{}{}:
	default: // one is enough
	}
}
