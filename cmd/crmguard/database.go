package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // driver "sqlite"
)

// databaseHelp is what commands say about the names of databases.
const databaseHelp = `A database is the path of a SQLite file or a URL of PostgreSQL. Others can see a password
that stands in a URL on the command line: use PGPASSWORD or a .pgpass file.
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
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func openPostgres(name string) (*sql.DB, error) {
	config, err := pgx.ParseConfig(name)
	if err != nil {
		return nil, errors.New("that is not a URL of PostgreSQL; want postgres://USER@HOST/DATABASE") // the cause might quote a password
	}
	config.RuntimeParams["default_transaction_read_only"] = "on"
	return stdlib.OpenDB(*config), nil
}

func openSQLite(name string) (*sql.DB, error) {
	path, err := filepath.Abs(strings.TrimPrefix(name, "sqlite:"))
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", plain(path))
	}
	// rw: SQLite makes no file; mode=ro would leave two files behind that it may not remove.
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "mode=rw&_pragma=busy_timeout(5000)&_pragma=query_only(1)"}
	return sql.Open("sqlite", dsn.String())
}
