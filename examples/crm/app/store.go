package app

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"

	"github.com/crmguard/crmguard"
)

//go:embed schema.sql
var schema string

// maxConns is how many connections the CRM keeps.
const maxConns = 16

// store is the database: a SQLite file in the data folder, or a PostgreSQL
// database. Either is one process's alone for as long as it is open, which the
// CRM's own locks rely on. Queries are written once for both.
type store struct {
	*sql.DB
	name    string // in messages; it holds no password
	flag    string // that names it on the command line
	dir     string // of the SQLite file, "" with PostgreSQL
	release func() error
}

// openStore opens the database that cfg names, for this process alone.
func openStore(ctx context.Context, cfg Config) (*store, error) {
	if cfg.DB != "" {
		return openPostgres(ctx, cfg.DB)
	}
	return openSQLite(ctx, cfg.Data)
}

func (s *store) close() error {
	var errs []error
	if s.DB != nil {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, s.release())...)
}

// setting returns a value of the settings, nil if there is none: an empty one is not
// nil.
func (s *store) setting(ctx context.Context, name string) ([]byte, error) {
	var value []byte
	err := s.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err == nil && value == nil {
		value = []byte{}
	}
	return value, err
}

// execer is the database or a transaction.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// putSetting stores a setting, whatever was there.
func putSetting(ctx context.Context, db execer, name string, value []byte) error {
	_, err := db.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}

// errSettingChanged says that a setting is not what it was when it was read.
var errSettingChanged = errors.New("the setting was changed meanwhile")

// swapSetting replaces a setting that is still what it was; nil: there was none.
func swapSetting(ctx context.Context, tx *sql.Tx, name string, was, value []byte) error {
	query, args := `UPDATE settings SET value = $1 WHERE name = $2 AND value = $3`, []any{value, name, was}
	if was == nil {
		query, args = `INSERT INTO settings (value, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, args[:2]
	}
	result, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil {
		return err
	} else if n != 1 {
		return errSettingChanged
	}
	return nil
}

// recorded makes a change and its entry in the journal in one transaction. What is
// sealed is sealed before.
func (a *App) recorded(ctx context.Context, done crmguard.Event, change func(ctx context.Context, tx *sql.Tx) error) error {
	return a.journal.InTx(ctx, a.db.DB, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
		if err := change(ctx, tx); err != nil {
			return err
		}
		return record(done)
	})
}
