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

var _ audit.Pruner = (*Store)(nil)

// Pruned implements [audit.Pruner].
func (s *Store) Pruned(ctx context.Context) (audit.Pruning, error) {
	var p audit.Pruning
	var size number
	err := s.db.QueryRowContext(ctx, s.db.Q(`SELECT size, note FROM crmguard_audit_pruned WHERE log = $1`), s.log).Scan(&size, &p.Note)
	if errors.Is(err, sql.ErrNoRows) {
		return audit.Pruning{}, nil
	}
	if err != nil {
		return p, fmt.Errorf("auditsql: pruned: %w", err)
	}
	if !size.ok {
		return p, &audit.BrokenError{Detail: "what was pruned has no number for its size"}
	}
	p.Size = size.n
	return p, nil
}

// Nodes implements [audit.Pruner].
func (s *Store) Nodes(ctx context.Context, seq int64, level, n int) ([]audit.Node, error) {
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT seq, level, hash FROM crmguard_audit_nodes WHERE log = $1 AND (seq = $2 AND level >= $3 OR seq > $2) ORDER BY seq, level LIMIT $4`), s.log, seq, level, n)
	if err != nil {
		return nil, fmt.Errorf("auditsql: nodes: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var list []audit.Node
	for rows.Next() {
		var at, height number
		var hash []byte
		if err := rows.Scan(&at, &height, &hash); err != nil {
			return nil, fmt.Errorf("auditsql: nodes: %w", err)
		}
		if !at.ok || !height.ok || height.n < 0 || height.n > 62 || len(hash) != 32 {
			return nil, &audit.BrokenError{Seq: max(at.n, 0), Detail: "a hash of the tree over entries that were pruned is damaged"}
		}
		list = append(list, audit.Node{Seq: at.n, Level: int(height.n), Hash: [32]byte(hash)})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("auditsql: nodes: %w", err)
	}
	return list, nil
}

// pruneStep is how many rows one DELETE removes.
const pruneStep = 4096

// Prune implements [audit.Pruner] in one transaction. Afterwards PostgreSQL gives the
// space to new rows when it vacuums, SQLite to whatever is written next; only VACUUM
// of the host's makes the file itself smaller.
func (s *Store) Prune(ctx context.Context, p audit.Pruning, nodes []audit.Node) error {
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		// Of several that prune at once, each waits here for the one before.
		result, err := tx.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_audit_pruned (log, size, note) VALUES ($1, $2, $3)
			ON CONFLICT (log) DO UPDATE SET size = excluded.size, note = excluded.note WHERE crmguard_audit_pruned.size < excluded.size`), s.log, p.Size, p.Note)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err
		}
		var last int64
		if err := tx.QueryRowContext(ctx, s.db.Q(`SELECT seq FROM crmguard_audit_entries WHERE log = $1 ORDER BY seq DESC LIMIT 1`), s.log).Scan(&last); err != nil {
			return err
		}
		if p.Size > last {
			return fmt.Errorf("%d entries cannot be pruned: there are %d", p.Size, last+1)
		}
		for from := 0; from < len(nodes); from += chunk {
			if err := s.insertNodes(ctx, tx, nodes[from:min(from+chunk, len(nodes))]); err != nil {
				return err
			}
		}
		return s.removeBefore(ctx, tx, p.Size)
	})
	if err != nil {
		return fmt.Errorf("auditsql: prune: %w", err)
	}
	return nil
}

func (s *Store) insertNodes(ctx context.Context, tx *sql.Tx, nodes []audit.Node) error {
	var query strings.Builder
	var args []any
	for i, n := range nodes {
		if i > 0 {
			query.WriteString(", ")
		}
		query.WriteString("(" + sqldb.Params(1+len(args), 4) + ")")
		args = append(args, s.log, n.Seq, n.Level, n.Hash[:])
	}
	_, err := tx.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_audit_nodes (log, seq, level, hash) VALUES `+query.String()+` ON CONFLICT DO NOTHING`), args...)
	return err
}

// removeBefore deletes tiles in steps, so that no statement runs for minutes.
func (s *Store) removeBefore(ctx context.Context, tx *sql.Tx, size int64) error {
	var first number
	err := tx.QueryRowContext(ctx, s.db.Q(`SELECT seq FROM crmguard_audit_entries WHERE log = $1 ORDER BY seq LIMIT 1`), s.log).Scan(&first)
	if err != nil {
		return err
	}
	if !first.ok || first.n < 0 {
		return &audit.BrokenError{Detail: "a row has what is no number of an entry"}
	}
	for from := first.n; from < size; from += pruneStep {
		to := min(from+pruneStep, size)
		for _, query := range []string{
			`DELETE FROM crmguard_audit_pseudonyms WHERE log = $1 AND EXISTS (SELECT 1 FROM crmguard_audit_entries e WHERE e.log = $1 AND e.seq < $2
				AND e.tenant = crmguard_audit_pseudonyms.tenant AND e.event = crmguard_audit_pseudonyms.event AND e.outcome = crmguard_audit_pseudonyms.outcome)`,
			`DELETE FROM crmguard_audit_clients WHERE log = $1 AND seq < $2`,
			`DELETE FROM crmguard_audit_entries WHERE log = $1 AND seq < $2`,
		} {
			if _, err := tx.ExecContext(ctx, s.db.Q(query), s.log, to); err != nil {
				return err
			}
		}
	}
	return nil
}
