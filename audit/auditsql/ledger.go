package auditsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// Beat implements [audit.Ledger].
func (s *Store) Beat(ctx context.Context, b audit.Beat) error {
	_, err := s.db.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_audit_beats (log, node, beat, body) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`),
		s.log, b.Node, b.N, b.Body)
	if err != nil {
		return fmt.Errorf("auditsql: heartbeat: %w", err)
	}
	return nil
}

// Beats implements [audit.Ledger]. On SQLite a row that Beat cannot have written has
// any type; it is not returned, so that it keeps nobody from reading the others.
func (s *Store) Beats(ctx context.Context, n int) ([]audit.Beat, error) {
	query := fmt.Sprintf(`SELECT node, beat, CASE WHEN length(body) <= %d THEN body END FROM crmguard_audit_beats
		WHERE log = $1 AND node = CAST(node AS TEXT) AND beat = CAST(beat AS BIGINT) ORDER BY node, beat LIMIT $2`, maxWaiting)
	rows, err := s.db.QueryContext(ctx, s.db.Q(query), s.log, n)
	if err != nil {
		return nil, fmt.Errorf("auditsql: heartbeats: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var list []audit.Beat
	for rows.Next() {
		var b audit.Beat
		if err := rows.Scan(&b.Node, &b.N, &b.Body); err != nil {
			return nil, fmt.Errorf("auditsql: heartbeats: %w", err)
		}
		list = append(list, b)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("auditsql: heartbeats: %w", err)
	}
	return list, nil
}

// Account implements [audit.Ledger]. One that is not what Append wrote has a version
// below zero and no body.
func (s *Store) Account(ctx context.Context) (audit.Account, error) {
	var version number
	var body []byte
	err := s.db.QueryRowContext(ctx, s.db.Q(`SELECT version, body FROM crmguard_audit_account WHERE log = $1`), s.log).Scan(&version, &body)
	if errors.Is(err, sql.ErrNoRows) {
		return audit.Account{}, nil
	}
	if err != nil {
		return audit.Account{}, fmt.Errorf("auditsql: account: %w", err)
	}
	if !version.ok || version.n <= 0 {
		return audit.Account{Version: -1}, nil
	}
	return audit.Account{Version: version.n, Body: body}, nil
}

// setAccount is a compare-and-swap.
func (s *Store) setAccount(ctx context.Context, tx *sql.Tx, a *audit.AccountChange) error {
	query := `INSERT INTO crmguard_audit_account (log, version, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	args := []any{s.log, a.Version, a.Body}
	switch {
	case a.After > 0:
		query = `UPDATE crmguard_audit_account SET version = $2, body = $3 WHERE log = $1 AND version = $4`
		args = append(args, a.After)
	case a.After < 0: // somebody put there what is no account
		query = `UPDATE crmguard_audit_account SET version = $2, body = $3 WHERE log = $1 AND (version <= 0 OR version <> CAST(version AS BIGINT))`
	}
	result, err := tx.ExecContext(ctx, s.db.Q(query), args...)
	return whole(result, err, 1)
}

// hear takes heartbeats out. Some may be gone: who removed them is found by the
// numbers of the next.
func (s *Store) hear(ctx context.Context, tx *sql.Tx, beats []audit.Beat) error {
	for i := range beats {
		if _, err := tx.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_audit_beats WHERE log = $1 AND node = $2 AND beat = $3`), s.log, beats[i].Node, beats[i].N); err != nil {
			return err
		}
	}
	return nil
}

// Tail implements [audit.Tail].
func (s *Store) Tail(ctx context.Context) ([]byte, error) {
	var body sqldb.Blob
	query := fmt.Sprintf(`SELECT body FROM crmguard_audit_tail WHERE log = $1 AND length(body) <= %d`, maxWaiting)
	err := s.db.QueryRowContext(ctx, s.db.Q(query), s.log).Scan(&body)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("auditsql: tail: %w", err)
	}
	return body, nil
}

// Direct returns what runs each statement in a transaction of its own, again if the
// database asks for that: for [audit.OpenInbox].
func (s *Store) Direct() audit.Tx { return alone{s.db} }

type alone struct{ *sqldb.DB }

// ExecContext implements [audit.Tx].
func (a alone) ExecContext(ctx context.Context, query string, args ...any) (result sql.Result, err error) {
	err = a.Retry(ctx, func() error {
		result, err = a.DB.ExecContext(ctx, query, args...)
		return err
	})
	return result, err
}
