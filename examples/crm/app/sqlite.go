package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // driver "sqlite"
)

// pragmas hold per connection. secure_delete overwrites what is deleted, so that
// sealed values and index entries of a forgotten client do not linger in free pages.
var pragmas = []string{
	"busy_timeout(10000)", "auto_vacuum(FULL)", "journal_mode(WAL)",
	"synchronous(FULL)", "foreign_keys(ON)", "secure_delete(ON)",
}

// openSQLite locks the data folder, opens the database and checks that it is whole.
func openSQLite(ctx context.Context, dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := lockFolder(dir, "data")
	if err != nil {
		return nil, err
	}
	s := &store{name: dir, flag: "-data", dir: dir, release: lock.Close}
	if err := s.openFile(ctx, filepath.Join(dir, "crm.db")); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *store) openFile(ctx context.Context, path string) error {
	// A transaction takes the write lock when it begins: one that reads first and
	// then wants to write would be refused without waiting. "?" and "#" in a
	// folder's name are escaped; the driver would take them for options.
	query := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+query.Encode())
	if err != nil {
		return err
	}
	s.DB = db
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
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
