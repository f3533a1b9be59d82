package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// openJournal opens a journal that exists; it makes none.
func openJournal(ctx context.Context, name, prefix string) (audit.Store, func() error, error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return openFolder(name, prefix)
	}
	db, err := openDatabase(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	d, err := sqldb.New(ctx, db, prefix)
	if err == nil {
		err = present(ctx, d)
	}
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	store, err := auditsql.New(ctx, db, &auditsql.Options{TablePrefix: prefix})
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return store, db.Close, nil
}

// present refuses a database in which auditsql.New would make or change something:
// evidence stays as it was found.
func present(ctx context.Context, db *sqldb.DB) error {
	files, err := fs.Glob(auditsql.Migrations, db.Dialect.String()+"/migrations/*.sql")
	if err != nil {
		return err
	}
	var version, logs int
	err = db.QueryRowContext(ctx, db.Q(`SELECT COALESCE(MAX(version), 0) FROM crmguard_migrations WHERE store = 'audit'`)).Scan(&version)
	if err == nil {
		err = db.QueryRowContext(ctx, db.Q(`SELECT COUNT(*) FROM crmguard_audit_logs WHERE log = 'main'`)).Scan(&logs)
	}
	switch {
	case err != nil:
		return advised{err, "Is it the database of the CRM, and is -prefix that of its tables?"}
	case version != len(files):
		return fmt.Errorf("its tables have version %d, this program reads version %d: use the release of crmguard that the CRM is built with", version, len(files))
	case logs == 0:
		return errors.New("there is no journal in it: none was begun, or it was removed")
	}
	return nil
}

func openFolder(name, prefix string) (audit.Store, func() error, error) {
	if prefix != "" {
		return nil, nil, errors.New("a folder has no tables: leave -prefix out")
	}
	found, err := fs.Glob(os.DirFS(name), "*.entries")
	if err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(filepath.Join(name, "checkpoints")); err != nil && len(found) == 0 {
		return nil, nil, fmt.Errorf("there is no journal in the folder %s: none was begun, or it was removed", plain(name))
	}
	store, err := audit.OpenFile(name)
	if err != nil {
		return nil, nil, err
	}
	return store, store.Close, nil
}

// isTerminal says so of what a command reads or writes.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

const (
	progressEvery = 200 * time.Millisecond
	clearLine     = "\x1b[K"
)

// writeFile replaces a file as a whole, so that a crash leaves the old or the new one.
func writeFile(path, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".crmguard-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error counts
		}
	}()
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
