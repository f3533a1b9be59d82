package encryptsql

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// Advance implements encrypt.Store.
func (s *Store) Advance(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error) {
	var record encrypt.Record
	var err error
	switch to {
	case encrypt.Closing:
		record, err = s.closeScope(ctx, scope, at)
	case encrypt.Destroyed:
		record, err = s.destroy(ctx, scope, at)
	default:
		return record, errAdvance
	}
	if err != nil {
		return encrypt.Record{}, fmt.Errorf("encryptsql: %v: %w", to, err)
	}
	return record, nil
}

func (s *Store) closeScope(ctx context.Context, scope encrypt.Scope, at time.Time) (record encrypt.Record, err error) {
	err = s.db.Tx(ctx, func(tx *sql.Tx) error {
		tombstone := encrypt.Record{Scope: scope, Version: 1, State: encrypt.Active, CreatedAt: at}
		if err := s.insert(ctx, tx, tombstone); err != nil {
			return err
		}
		if err := s.lock(ctx, tx, scope); err != nil {
			return err
		}
		if err := s.move(ctx, tx, scope, encrypt.Active, encrypt.Closing, `closed_at`, at); err != nil {
			return err
		}
		record, err = s.newest(ctx, tx, scope)
		return err
	})
	return record, err
}

// destroy overwrites the keys, makes sure that the old pages are gone, and only
// then says so.
func (s *Store) destroy(ctx context.Context, scope encrypt.Scope, at time.Time) (record encrypt.Record, err error) {
	err = s.db.Tx(ctx, func(tx *sql.Tx) error {
		const wipe = `UPDATE crmguard_keys SET wrapped = NULL WHERE tenant = $1 AND name = $2 AND state = $3`
		if s.db.Dialect == sqldb.SQLite {
			// A value of the same length is written over the old one in its place.
			overwrite := strings.Replace(wipe, `NULL`, `zeroblob(length(wrapped))`, 1)
			if _, err := s.exec(ctx, tx, overwrite, scope.Tenant, name(scope), encrypt.Closing); err != nil {
				return err
			}
		}
		_, err := s.exec(ctx, tx, wipe, scope.Tenant, name(scope), encrypt.Closing)
		return err
	})
	if err != nil {
		return record, err
	}
	if s.db.Dialect == sqldb.SQLite {
		if err := truncateWAL(ctx, s.db.DB); err != nil {
			return record, err
		}
	}
	err = s.db.Tx(ctx, func(tx *sql.Tx) error {
		if err := s.move(ctx, tx, scope, encrypt.Closing, encrypt.Destroyed, `destroyed_at`, at); err != nil {
			return err
		}
		if record, err = s.newest(ctx, tx, scope); err == nil && record.State != encrypt.Destroyed {
			err = errAdvance
		}
		return err
	})
	return record, err
}

// move changes the state of all versions of a scope, and the revision with it. A
// scope in another state stays as it is.
func (s *Store) move(ctx context.Context, tx *sql.Tx, scope encrypt.Scope, from, to encrypt.State, column string, at time.Time) error {
	n, err := s.exec(ctx, tx, `UPDATE crmguard_keys SET state = $1, `+column+` = $2 WHERE tenant = $3 AND name = $4 AND state = $5`,
		to, sqldb.Micros(at), scope.Tenant, name(scope), from)
	if err != nil || n == 0 {
		return err
	}
	return s.revise(ctx, tx)
}

func (s *Store) newest(ctx context.Context, tx *sql.Tx, scope encrypt.Scope) (encrypt.Record, error) {
	records, err := s.load(ctx, tx, []encrypt.Scope{scope})
	if err != nil {
		return encrypt.Record{}, err
	}
	if len(records) == 0 {
		return encrypt.Record{}, errAdvance
	}
	return records[len(records)-1], nil
}
