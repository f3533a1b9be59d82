package auditsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// chunk is how many rows one statement of SQLite's holds: it takes 32,766 parameters,
// and few different statements keep the caches of prepared ones small.
const chunk = 64

const columns = 13

// insertInSteps adds the rows of a batch with all that belongs to them.
func (s *Store) insertInSteps(ctx context.Context, tx *sql.Tx, b *audit.Batch) error {
	for rows := range slices.Chunk(b.Rows, chunk) {
		if err := s.insertRows(ctx, tx, rows); err != nil {
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
	if len(b.Rows) == 0 {
		return nil
	}
	return s.continues(ctx, tx, b.After)
}

func (s *Store) insertRows(ctx context.Context, tx *sql.Tx, rows []audit.Row) error {
	var query strings.Builder
	query.WriteString(`INSERT INTO crmguard_audit_entries (log, seq, tenant, event, outcome, subject, kind, object, action, addr, occurred, hashes, record) VALUES `)
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
		args = append(args, s.log, r.Seq, k.Tenant, k.Event, int64(k.Outcome), k.Subject, k.Kind, k.Record, string(k.Action), k.Addr, k.Time, hashes, r.Record)
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

func (s *Store) takeInSteps(ctx context.Context, tx *sql.Tx, taken []audit.Waiting) error {
	for part := range slices.Chunk(taken, chunk) {
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
		if err := whole(result, err, len(part)); err != nil {
			return err
		}
	}
	return nil
}

// continues checks that the log stands where the batch begins.
func (s *Store) continues(ctx context.Context, tx *sql.Tx, after audit.Head) error {
	var leaf []byte
	err := tx.QueryRowContext(ctx, s.db.Q(`SELECT substr(hashes, 1, 32) FROM crmguard_audit_entries WHERE log = $1 AND seq = $2`), s.log, after.Size-1).Scan(&leaf)
	if errors.Is(err, sql.ErrNoRows) && after.Size == 0 {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) || err == nil && string(leaf) != string(after.Last[:]) {
		return audit.ErrMoved
	}
	return err
}
