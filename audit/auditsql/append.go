package auditsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// Append implements [audit.Store] in one transaction. The row before the batch
// must be the one that the batch continues, and two batches for the same numbers
// meet in the primary key.
func (s *Store) Append(ctx context.Context, b audit.Batch) error {
	if len(b.Rows) > 0 && (b.After.Log != s.id || b.Rows[0].Seq != b.After.Size) {
		return audit.ErrMoved
	}
	err := s.try(ctx, &b)
	if _, broken := errors.AsType[*audit.BrokenError](err); broken {
		err = s.try(ctx, &b) // what was in the way may have been pruned before it was looked at
	}
	return err
}

func (s *Store) try(ctx context.Context, b *audit.Batch) error {
	err := s.write(ctx, b)
	if sqldb.UniqueViolation(err) {
		return s.lost(ctx, b)
	}
	if err != nil && !errors.Is(err, audit.ErrMoved) {
		return fmt.Errorf("auditsql: append: %w", err)
	}
	return err
}

// write commits as durably as the host does, also what comes out of the inbox. If a crash
// undid that, the inbox would hold it again, and nothing were lost; but who chained it goes
// on from there, readers were shown numbers, and anchors may have a checkpoint: all of them
// would find a log that was cut.
func (s *Store) write(ctx context.Context, b *audit.Batch) error {
	if s.db.Dialect == sqldb.Postgres && onlyRows(b) { // one statement: a transaction of its own
		return s.db.Retry(ctx, func() error { return s.insertAtOnce(ctx, s.db, b) })
	}
	return s.db.Tx(ctx, func(tx *sql.Tx) error {
		// The writes come first: on SQLite a transaction that began by reading
		// cannot wait for its turn to write. Of them the one that tells soonest
		// that another process was first.
		if err := s.take(ctx, tx, b.Taken); err != nil {
			return err
		}
		if b.Account != nil {
			if err := s.setAccount(ctx, tx, b.Account); err != nil {
				return err
			}
		}
		if err := s.hear(ctx, tx, b.Beats); err != nil {
			return err
		}
		if err := s.PutPseudonyms(ctx, tx, b.Pseudonyms); err != nil {
			return err
		}
		if b.Checkpoint != nil {
			if _, err := tx.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_audit_checkpoints (log, size, note) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`),
				s.log, b.Checkpoint.Size, b.Checkpoint.Note); err != nil {
				return err
			}
		}
		if s.db.Dialect == sqldb.Postgres {
			return s.insertAtOnce(ctx, tx, b)
		}
		return s.insertInSteps(ctx, tx, b)
	})
}

func onlyRows(b *audit.Batch) bool {
	return len(b.Taken) == 0 && b.Account == nil && len(b.Beats) == 0 && len(b.Pseudonyms) == 0 && b.Checkpoint == nil
}

// take deletes entries from the inbox by their keys, never up to some id: a
// transaction that commits late would be skipped. Fewer rows than expected mean
// that another process took them.
func (s *Store) take(ctx context.Context, tx *sql.Tx, taken []audit.Waiting) error {
	if s.db.Dialect == sqldb.Postgres {
		return s.takeAtOnce(ctx, tx, taken)
	}
	return s.takeInSteps(ctx, tx, taken)
}

// whole returns [audit.ErrMoved] unless a statement changed n rows.
func whole(result sql.Result, err error, n int) error {
	if err != nil {
		return err
	}
	if changed, err := result.RowsAffected(); err != nil || changed != int64(n) {
		return errors.Join(audit.ErrMoved, err)
	}
	return nil
}

// lost finds out why a key was taken: the numbers, or the events. What is found of the
// events counts only if the log stands where the batch begins after that, and so did all
// the time: another process may have chained them meanwhile.
func (s *Store) lost(ctx context.Context, b *audit.Batch) error {
	found := s.duplicates(ctx, b)
	switch head, err := s.top(ctx); {
	case err != nil:
		return err
	case head != b.After:
		return audit.ErrMoved
	}
	return found
}

// duplicates says which events are there. One is only if the log holds it where everybody
// reads it, and its record says so: a row that somebody hid must not stand for an entry
// that was never written.
func (s *Store) duplicates(ctx context.Context, b *audit.Batch) error {
	var dup audit.DuplicateError
	for i := range b.Rows {
		k := &b.Rows[i].Keys
		there, err := s.entries(ctx, selectEntries+` AND tenant = $2 AND event = $3 AND outcome = $4 LIMIT 1`, s.log, k.Tenant, k.Event, int64(k.Outcome))
		if err != nil {
			return fmt.Errorf("auditsql: append: %w", err)
		}
		if len(there) == 0 {
			continue
		}
		e := &there[0]
		if err := e.damage(b.After.Size); err != nil {
			return err
		}
		if e.row.Seq >= b.After.Size {
			return &audit.BrokenError{Seq: e.row.Seq, Detail: "there are fewer entries"}
		}
		if err := s.clients(ctx, there[:1]); err != nil {
			return fmt.Errorf("auditsql: append: %w", err)
		}
		if err := e.row.Check(); err != nil {
			return err
		}
		dup.Index = append(dup.Index, i)
	}
	if dup.Index == nil {
		return &audit.BrokenError{Seq: b.After.Size, Detail: "the database refuses it as a duplicate, and holds none"}
	}
	return &dup
}

// Put implements [audit.Inbox].
func (s *Store) Put(ctx context.Context, tx audit.Tx, w audit.Waiting) error {
	_, err := tx.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_audit_inbox (log, since, tenant, event, outcome, body) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`),
		s.log, w.Since, w.Tenant, w.Event, int64(w.Outcome), w.Body)
	if err != nil {
		return fmt.Errorf("auditsql: inbox: %w", err)
	}
	return nil
}
