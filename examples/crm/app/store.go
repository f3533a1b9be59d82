package app

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // driver "sqlite"
)

//go:embed schema.sql
var schema string

// store is the data folder: one SQLite file and a lock.
type store struct {
	*sql.DB
	dir  string
	lock *os.File
}

// pragmas hold per connection. secure_delete overwrites what is deleted, so that
// sealed values and index entries of a forgotten client do not linger in free pages.
var pragmas = []string{
	"busy_timeout(10000)", "auto_vacuum(FULL)", "journal_mode(WAL)",
	"synchronous(FULL)", "foreign_keys(ON)", "secure_delete(ON)",
}

// openStore locks the data folder, opens the database and checks that it is whole.
func openStore(ctx context.Context, dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := lockFolder(dir, "data")
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, lock: lock}
	if err := s.open(ctx, filepath.Join(dir, "crm.db")); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *store) open(ctx context.Context, path string) error {
	// A transaction takes the write lock when it begins: one that reads first and
	// then wants to write would be refused without waiting. "?" and "#" in a
	// folder's name are escaped; the driver would take them for options.
	query := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+query.Encode())
	if err != nil {
		return err
	}
	s.DB = db
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	damaged := func(detail any) error {
		return fmt.Errorf("the database %s is damaged (%v): nothing was changed; put back a backup of the data folder", path, detail)
	}
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return damaged(err)
	}
	if verdict != "ok" {
		return damaged(verdict)
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return damaged(err)
	}
	return nil
}

func (s *store) close() error {
	var errs []error
	if s.DB != nil {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
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
