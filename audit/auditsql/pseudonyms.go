package auditsql

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

var _ audit.Finder = (*Store)(nil)

// PutPseudonyms adds pseudonyms inside tx; see [audit.Finder].
func (s *Store) PutPseudonyms(ctx context.Context, tx audit.Tx, list []audit.Pseudonym) error {
	const columns = 7
	for len(list) > 0 {
		part := list[:min(chunk, len(list))]
		list = list[len(part):]
		var query strings.Builder
		var args []any
		for i, p := range part {
			if i > 0 {
				query.WriteString(", ")
			}
			query.WriteString("(" + sqldb.Params(1+len(args), columns) + ")")
			args = append(args, s.log, p.Tenant, p.Name, p.Value, p.Event, int64(p.Outcome), p.Client)
		}
		if _, err := tx.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_audit_pseudonyms (log, tenant, name, pseudonym, event, outcome, client) VALUES `+query.String()+` ON CONFLICT DO NOTHING`), args...); err != nil {
			return fmt.Errorf("auditsql: pseudonyms: %w", err)
		}
	}
	return nil
}

// SetPseudonyms implements [audit.Finder].
func (s *Store) SetPseudonyms(ctx context.Context, tenant, event string, outcome crmguard.Outcome, list []audit.Pseudonym) error {
	return s.db.Tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_audit_pseudonyms WHERE log = $1 AND tenant = $2 AND event = $3 AND outcome = $4`),
			s.log, tenant, event, int64(outcome)); err != nil {
			return fmt.Errorf("auditsql: pseudonyms: %w", err)
		}
		return s.PutPseudonyms(ctx, tx, list)
	})
}

// DropPseudonyms implements [audit.Finder].
func (s *Store) DropPseudonyms(ctx context.Context, tenant, client string) (n int64, err error) {
	err = s.db.Retry(ctx, func() error {
		result, err := s.db.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_audit_pseudonyms WHERE log = $1 AND tenant = $2 AND client = $3`), s.log, tenant, client)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("auditsql: pseudonyms: %w", err)
	}
	return n, nil
}
