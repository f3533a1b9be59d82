package auditsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// Begin makes the first statement of a transaction a write that changes nothing.
// On SQLite a transaction that began by reading fails at its first write if
// another one wrote meanwhile; one that begins by writing waits for its turn.
func (s *Store) Begin(ctx context.Context, tx audit.Tx) error {
	if s.db.Dialect == sqldb.Postgres {
		return nil
	}
	if _, err := tx.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_audit_inbox WHERE 1 = 0`)); err != nil {
		return fmt.Errorf("auditsql: begin: %w", err)
	}
	return nil
}

// Held returns the body that is in the inbox with the keys of w, nil if none is.
func (s *Store) Held(ctx context.Context, tx audit.Tx, w audit.Waiting) ([]byte, error) {
	reader, ok := tx.(interface {
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	})
	if !ok {
		return nil, errors.New("auditsql: inbox: the transaction cannot read")
	}
	var body []byte
	err := reader.QueryRowContext(ctx, s.db.Q(fmt.Sprintf(`SELECT CASE WHEN length(body) <= %d THEN body END FROM crmguard_audit_inbox WHERE log = $1 AND tenant = $2 AND event = $3 AND outcome = $4`, maxWaiting)),
		s.log, w.Tenant, w.Event, int64(w.Outcome)).Scan(&body)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("auditsql: inbox: %w", err)
	}
	return body, nil
}
