package encryptsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/sqldb"
)

var _ encrypt.Pending = (*Store)(nil)

const ofField = ` WHERE tenant = $1 AND kind = $2 AND field = $3`

// lockPending makes the row of a field, if there is none, and other transactions that change the
// set wait for this one. It returns the state.
func (s *Store) lockPending(ctx context.Context, tx *sql.Tx, f encrypt.PendingField) (state encrypt.PendingState, err error) {
	if _, err := s.exec(ctx, tx, `INSERT INTO crmguard_keys_migrating (tenant, kind, field, state) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		f.Tenant, f.Kind, f.Field, encrypt.PendingCollecting); err != nil {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, s.db.Q(`UPDATE crmguard_keys_migrating SET state = state`+ofField+` RETURNING state`), f.Tenant, f.Kind, f.Field).Scan(&state)
	return state, err
}

// AddPending implements encrypt.Pending.
func (s *Store) AddPending(ctx context.Context, f encrypt.PendingField, records []encrypt.PendingRecord) error {
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		switch state, err := s.lockPending(ctx, tx, f); {
		case err != nil:
			return err
		case state > encrypt.PendingCollecting:
			return encrypt.ErrCutOff
		}
		const width, rows = 5, 50 // modernc.org/sqlite binds in time quadratic in the parameters
		for part := range slices.Chunk(records, rows) {
			values := make([]string, len(part))
			args := make([]any, 0, width*len(part))
			for i, r := range part {
				values[i] = `(` + sqldb.Params(1+width*i, width) + `)`
				args = append(args, f.Tenant, f.Kind, f.Field, r.Record, r.MAC)
			}
			if _, err := s.exec(ctx, tx, `INSERT INTO crmguard_keys_pending (tenant, kind, field, record, mac) VALUES `+
				strings.Join(values, `, `)+` ON CONFLICT (tenant, kind, field, record) DO UPDATE SET mac = excluded.mac`, args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("encryptsql: collect records: %w", err)
	}
	return nil
}

// HasPending implements encrypt.Pending.
func (s *Store) HasPending(ctx context.Context, f encrypt.PendingField, records []string) (encrypt.PendingState, []encrypt.PendingRecord, error) {
	var found []encrypt.PendingRecord
	for part := range slices.Chunk(records, chunk) {
		some, err := s.pendingRecords(ctx, f, ` AND record IN (`+sqldb.Params(4, len(part))+`)`, part...)
		if err != nil {
			return 0, nil, err
		}
		found = append(found, some...)
	}
	state, err := s.pendingState(ctx, f) // last: what it says holds for all that was read before, too
	if err != nil || state == encrypt.PendingStrict {
		return state, nil, err
	}
	return state, found, nil
}

// NextPending implements encrypt.Pending.
func (s *Store) NextPending(ctx context.Context, f encrypt.PendingField, after string, limit int) ([]encrypt.PendingRecord, error) {
	return s.pendingRecords(ctx, f, fmt.Sprintf(` AND record > $4 ORDER BY record LIMIT %d`, limit), after)
}

func (s *Store) pendingRecords(ctx context.Context, f encrypt.PendingField, which string, args ...string) (records []encrypt.PendingRecord, err error) {
	all := []any{f.Tenant, f.Kind, f.Field}
	for _, arg := range args {
		all = append(all, arg)
	}
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT record, mac FROM crmguard_keys_pending`+ofField+which), all...)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: pending records: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r encrypt.PendingRecord
		if err := rows.Scan(&r.Record, (*sqldb.Blob)(&r.MAC)); err != nil {
			return nil, fmt.Errorf("encryptsql: pending records: %w", err)
		}
		records = append(records, r)
	}
	return records, rows.Err()
}

// RemovePending implements encrypt.Pending.
func (s *Store) RemovePending(ctx context.Context, f encrypt.PendingField, records []string) (left int, err error) {
	err = s.db.Tx(ctx, func(tx *sql.Tx) error {
		state, err := s.lockPending(ctx, tx, f)
		if err != nil {
			return err
		}
		for part := range slices.Chunk(records, chunk) {
			args := []any{f.Tenant, f.Kind, f.Field}
			for _, record := range part {
				args = append(args, record)
			}
			if _, err := s.exec(ctx, tx, `DELETE FROM crmguard_keys_pending`+ofField+` AND record IN (`+sqldb.Params(4, len(part))+`)`, args...); err != nil {
				return err
			}
		}
		if err := tx.QueryRowContext(ctx, s.db.Q(`SELECT COUNT(*) FROM crmguard_keys_pending`+ofField), f.Tenant, f.Kind, f.Field).Scan(&left); err != nil {
			return err
		}
		next := encrypt.PendingShrinking
		if left == 0 || state == encrypt.PendingStrict {
			left, next = 0, encrypt.PendingStrict
		}
		_, err = s.exec(ctx, tx, `UPDATE crmguard_keys_migrating SET state = $4`+ofField, f.Tenant, f.Kind, f.Field, next)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("encryptsql: remove records: %w", err)
	}
	return left, nil
}

// CountPending implements encrypt.Pending.
func (s *Store) CountPending(ctx context.Context, f encrypt.PendingField) (state encrypt.PendingState, n int, err error) {
	if state, err = s.pendingState(ctx, f); err != nil || !(state == encrypt.PendingCollecting || state == encrypt.PendingShrinking) {
		return state, 0, err
	}
	if err := s.db.QueryRowContext(ctx, s.db.Q(`SELECT COUNT(*) FROM crmguard_keys_pending`+ofField), f.Tenant, f.Kind, f.Field).Scan(&n); err != nil {
		return 0, 0, fmt.Errorf("encryptsql: count pending records: %w", err)
	}
	return state, n, nil
}

func (s *Store) pendingState(ctx context.Context, f encrypt.PendingField) (state encrypt.PendingState, err error) {
	err = s.db.QueryRowContext(ctx, s.db.Q(`SELECT state FROM crmguard_keys_migrating`+ofField), f.Tenant, f.Kind, f.Field).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) {
		return encrypt.PendingNever, nil
	}
	if err != nil {
		return 0, fmt.Errorf("encryptsql: state of a field: %w", err)
	}
	return state, nil
}

// Migrating implements encrypt.Pending.
func (s *Store) Migrating(ctx context.Context, tenant string) (fields []encrypt.PendingField, err error) {
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT kind, field FROM crmguard_keys_migrating WHERE tenant = $1 AND state IN ($2, $3)`),
		tenant, encrypt.PendingCollecting, encrypt.PendingShrinking)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: fields that migrate: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		f := encrypt.PendingField{Tenant: tenant}
		if err := rows.Scan(&f.Kind, &f.Field); err != nil {
			return nil, fmt.Errorf("encryptsql: fields that migrate: %w", err)
		}
		fields = append(fields, f)
	}
	return fields, rows.Err()
}
