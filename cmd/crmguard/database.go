package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"modernc.org/sqlite" // driver "sqlite", too
)

// databaseHelp is what commands say about the names of databases.
const databaseHelp = `A database is the path of a SQLite file or a URL of PostgreSQL. Others can see a password
that stands in a URL on the command line: use PGPASSWORD or a .pgpass file. A SQLite
file is copied together with the one beside it that ends in -wal, if there is one, while
the CRM is stopped. Both stay as they are; SQLite adds one that ends in -shm.
`

func isPostgres(name string) bool {
	return strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://")
}

// openDatabase connects to a database that exists, to read; it makes none.
func openDatabase(ctx context.Context, name string) (*sql.DB, error) {
	open := openSQLite
	if isPostgres(name) {
		open = openPostgres
	}
	db, err := open(name)
	if err != nil {
		return nil, err
	}
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(cutOff(err), db.Close())
	}
	return db, nil
}

func openPostgres(name string) (*sql.DB, error) { return connectPostgres(name, true) }

func connectPostgres(name string, readOnly bool) (*sql.DB, error) {
	config, err := pgx.ParseConfig(name)
	if err != nil {
		return nil, errors.New("that is not a URL of PostgreSQL; want postgres://USER@HOST/DATABASE") // the cause might quote a password
	}
	if readOnly {
		config.RuntimeParams["default_transaction_read_only"] = "on"
	}
	return stdlib.OpenDB(*config), nil
}

func openSQLite(name string) (*sql.DB, error) {
	path, err := filepath.Abs(strings.TrimPrefix(name, "sqlite:"))
	if err != nil {
		return nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil { // the files beside it are beside what a link names
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", plain(path))
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "mode=" + sqliteMode(path) + "&_pragma=busy_timeout(5000)&_pragma=query_only(1)"}
	return sql.Open("sqlite", dsn.String())
}

// sqliteMode is how to open a file that is to stay as it is. Beside one with a log of
// transactions rw would move the log into it when it is closed, or roll it back,
// whatever query_only says. Without one ro would leave two files behind that it may
// not remove; rw removes them. Neither makes a database.
func sqliteMode(path string) string {
	for _, log := range []string{"-wal", "-journal"} {
		if _, err := os.Stat(path + log); !errors.Is(err, fs.ErrNotExist) {
			return "ro"
		}
	}
	return "rw"
}

// readonlyRollback is SQLITE_READONLY_ROLLBACK of https://sqlite.org/rescode.html.
const readonlyRollback = 776

// cutOff says what to do about a transaction without an end.
func cutOff(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code() == readonlyRollback {
		return advised{err, "A transaction was cut off in it. Let the CRM or sqlite3 open a copy of it and of the file -journal beside it, which rolls it back, and verify that copy"}
	}
	return err
}
