package auditsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// chunk is how many rows one INSERT holds: SQLite takes 32,766 parameters, and few
// different statements keep the caches of prepared ones small.
const chunk = 64

const columns = 14

// Append implements [audit.Store] in one transaction. The row before the batch
// must be the one that the batch continues, and two batches for the same numbers
// meet in the primary key.
func (s *Store) Append(ctx context.Context, b audit.Batch) error {
	if len(b.Rows) > 0 && (b.After.Log != s.id || b.Rows[0].Seq != b.After.Size) {
		return audit.ErrMoved
	}
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
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
		for from := 0; from < len(b.Rows); from += chunk {
			if err := s.insert(ctx, tx, b.Rows[from:min(from+chunk, len(b.Rows))]); err != nil {
				return err
			}
		}
		if err := s.insertClients(ctx, tx, b.Rows); err != nil {
			return err
		}
		if b.Tail != nil {
			if _, err := tx.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_audit_tail (log, body) VALUES ($1, $2) ON CONFLICT (log) DO UPDATE SET body = excluded.body`),
				s.log, b.Tail); err != nil {
				return err
			}
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
		if len(b.Rows) == 0 {
			return nil
		}
		return s.continues(ctx, tx, b.After)
	})
	if sqldb.UniqueViolation(err) {
		return s.lost(ctx, b)
	}
	if err != nil && !errors.Is(err, audit.ErrMoved) {
		return fmt.Errorf("auditsql: append: %w", err)
	}
	return err
}

func (s *Store) insert(ctx context.Context, tx *sql.Tx, rows []audit.Row) error {
	var query strings.Builder
	query.WriteString(`INSERT INTO crmguard_audit_entries (log, seq, tenant, event, outcome, subject, kind, object, action, addr, occurred, chain, hashes, record) VALUES `)
	args := make([]any, 0, columns*len(rows))
	for i := range rows {
		if i > 0 {
			query.WriteString(", ")
		}
		query.WriteString("(" + sqldb.Params(1+len(args), columns) + ")")
		r, k := &rows[i], &rows[i].Keys
		hashes := make([]byte, 0, 32*len(r.Hashes))
		for _, h := range r.Hashes {
			hashes = append(hashes, h[:]...)
		}
		args = append(args, s.log, r.Seq, k.Tenant, k.Event, int64(k.Outcome), k.Subject, k.Kind, k.Record, string(k.Action), k.Addr, k.Time, r.Chain[:], hashes, r.Record)
	}
	_, err := tx.ExecContext(ctx, s.db.Q(query.String()), args...)
	return err
}

// insertClients leaves a row that is there as it is: whoever planted it said what
// the record says, too.
func (s *Store) insertClients(ctx context.Context, tx *sql.Tx, rows []audit.Row) error {
	var query strings.Builder
	var args []any
	flush := func() error {
		if len(args) == 0 {
			return nil
		}
		_, err := tx.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_audit_clients (log, tenant, client, seq) VALUES `+query.String()+` ON CONFLICT DO NOTHING`), args...)
		query.Reset()
		args = args[:0]
		return err
	}
	for i := range rows {
		for _, client := range rows[i].Keys.Clients {
			if len(args) > 0 {
				query.WriteString(", ")
			}
			query.WriteString("(" + sqldb.Params(1+len(args), 4) + ")")
			args = append(args, s.log, rows[i].Keys.Tenant, client, rows[i].Seq)
			if len(args) == 4*chunk {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// take deletes entries from the inbox by their keys, never up to some id: a
// transaction that commits late would be skipped. Fewer rows than expected mean
// that another process took them.
func (s *Store) take(ctx context.Context, tx *sql.Tx, taken []audit.Waiting) error {
	for len(taken) > 0 {
		part := taken[:min(chunk, len(taken))]
		taken = taken[len(part):]
		var query strings.Builder
		args := []any{s.log}
		for i, w := range part {
			if i > 0 {
				query.WriteString(" OR ")
			}
			n := len(args)
			fmt.Fprintf(&query, "tenant = $%d AND event = $%d AND outcome = $%d", n+1, n+2, n+3)
			args = append(args, w.Tenant, w.Event, int64(w.Outcome))
		}
		result, err := tx.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_audit_inbox WHERE log = $1 AND (`+query.String()+`)`), args...)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != int64(len(part)) {
			return errors.Join(audit.ErrMoved, err)
		}
	}
	return nil
}

// continues checks that the log stands where the batch begins.
func (s *Store) continues(ctx context.Context, tx *sql.Tx, after audit.Head) error {
	var chain []byte
	err := tx.QueryRowContext(ctx, s.db.Q(`SELECT chain FROM crmguard_audit_entries WHERE log = $1 AND seq = $2`), s.log, after.Size-1).Scan(&chain)
	if errors.Is(err, sql.ErrNoRows) && after.Size == 0 {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) || err == nil && string(chain) != string(after.Chain[:]) {
		return audit.ErrMoved
	}
	return err
}

// lost finds out why a key was taken: the numbers, or the events. An event is
// there only if the log holds it where everybody reads it, and its record says so:
// a row that somebody hid must not stand for an entry that was never written.
func (s *Store) lost(ctx context.Context, b audit.Batch) error {
	switch head, err := s.top(ctx); {
	case err != nil:
		return err
	case head != b.After:
		return audit.ErrMoved
	}
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
