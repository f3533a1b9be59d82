package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
)

type txKey struct{}

// beginner is an [Inbox] of a database that refuses to write in a transaction that
// began by reading: Begin makes its first statement a write that changes nothing.
type beginner interface {
	Begin(ctx context.Context, tx Tx) error
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
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing; before, the first error counts
	if b, ok := l.inbox.(beginner); ok {
		if err := b.Begin(ctx, tx); err != nil {
			return fmt.Errorf("audit: begin: %w", err)
		}
	}
	var failed error
	recorded := false
	record := func(e crmguard.Event) error {
		_, err := l.RecordTx(ctx, tx, e)
		failed = errors.Join(failed, err)
		recorded = true
		return err
	}
	if err := fn(WithTx(ctx), tx, record); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("audit: commit: %w", err)
	}
	if recorded {
		l.wake()
	}
	return nil
}

// RecordTx writes an entry inside a transaction of the host's: it exists if and
// only if that commits. Call settle when it has ended, so that the entry is
// chained at once; without settle it is chained within about a second.
func (l *Log) RecordTx(ctx context.Context, tx Tx, e crmguard.Event) (settle func(committed bool), err error) {
	if l.inbox == nil {
		return nil, ErrNoInbox
	}
	l.mu.RLock()
	closed := l.closed
	l.mu.RUnlock()
	if closed {
		return nil, ErrClosed
	}
	c, body, err := l.prepare(ctx, e)
	if err != nil {
		return nil, err
	}
	keys := c.keys()
	w := Waiting{Tenant: keys.Tenant, Event: keys.Event, Outcome: keys.Outcome, Since: micros(l.clock()), Body: body}
	if err := l.inbox.Put(ctx, tx, w); err != nil {
		return nil, fmt.Errorf("audit: put into the inbox: %w", err)
	}
	return func(committed bool) {
		if committed {
			l.wake()
		}
	}, nil
}

func (l *Log) wake() {
	select {
	case l.nudge <- struct{}{}:
	default: // one is enough
	}
}
