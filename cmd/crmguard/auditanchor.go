package main

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// sqliteMagic begins each database of SQLite: https://sqlite.org/fileformat.html
const sqliteMagic = "SQLite format 3\x00"

// openAnchor opens an anchor that exists, to read: a database, or a file with checkpoints.
func (c *call) openAnchor(name string, v note.Verifier, prefix string) (anchor audit.Anchor, done func() error, err error) {
	database := isPostgres(name)
	if !database {
		begins := make([]byte, len(sqliteMagic))
		file, err := os.Open(name) //nolint:gosec // the caller's own path
		if err != nil {
			return nil, nil, err
		}
		n, _ := file.Read(begins) // a file of fewer bytes is none of SQLite
		if err := file.Close(); err != nil {
			return nil, nil, err
		}
		database = string(begins[:n]) == sqliteMagic
	}
	if !database {
		anchor, err = audit.NewFileAnchor(name, v)
		return anchor, func() error { return nil }, err
	}
	db, err := openDatabase(c, name)
	if err != nil {
		return nil, nil, err
	}
	if err := c.anchored(db, prefix); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	if anchor, err = auditsql.NewAnchor(c, db, v, &auditsql.Options{TablePrefix: prefix}); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return anchor, db.Close, nil
}

// anchored refuses a database without the table of an anchor: none is made there.
func (c *call) anchored(db *sql.DB, prefix string) error {
	d, err := sqldb.New(c, db, prefix)
	if err != nil {
		return err
	}
	files, err := fs.Glob(auditsql.AnchorMigrations, "anchor/migrations/*.sql")
	if err != nil {
		return err
	}
	var version int
	err = d.QueryRowContext(c, d.Q(`SELECT COALESCE(MAX(version), 0) FROM crmguard_migrations WHERE store = 'audit-anchor'`)).Scan(&version)
	switch {
	case err != nil || version == 0:
		return errors.Join(errors.New("no checkpoints are kept in it: is it the database of auditsql.NewAnchor, and is -prefix that of its tables?"), err)
	case version != len(files):
		return fmt.Errorf("its table has version %d, this program reads version %d: use the release of crmguard that the CRM is built with", version, len(files))
	}
	return nil
}
