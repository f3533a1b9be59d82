package auditsql

import (
	"context"
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
