package app

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
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

// setting returns a value of the settings, nil if it was never set.
func (s *store) setting(ctx context.Context, name string) ([]byte, error) {
	var value []byte
	err := s.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return value, err
}

func (s *store) set(ctx context.Context, name string, value []byte) error {
	_, err := s.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}

// setProven stores a value with its MAC: in one statement, so that a crash leaves
// both or none.
func (s *store) setProven(ctx context.Context, name string, value, mac []byte) error {
	_, err := s.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2), ($3, $4)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value, name+"-mac", mac)
	return err
}
