package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
)

// sqlitePragmas hold per connection, so every connection of the pool gets them.
// auto_vacuum must come before the first table. secure_delete overwrites what is
// deleted; without it old keys stay readable in the file. SQLite lets those who wait in by
// chance, not in turn, so on a slow disk some wait long.
var sqlitePragmas = []string{
	`PRAGMA busy_timeout = 10000`,
	autoVacuum,
	`PRAGMA journal_mode = WAL`,
	`PRAGMA synchronous = FULL`,
	`PRAGMA foreign_keys = ON`,
	`PRAGMA secure_delete = ON`,
}

const autoVacuum = `PRAGMA auto_vacuum = FULL`

// vacuums says whether a file has the setting, as all but new ones do: to set it again a connection
// would wait for whoever writes, and connections are opened all the time, also to read.
func vacuums(ctx context.Context, conn driver.Conn) bool {
	queryer, ok := conn.(driver.QueryerContext)
	if !ok {
		return false
	}
	rows, err := queryer.QueryContext(ctx, `PRAGMA auto_vacuum`, nil)
	if err != nil {
		return false
	}
	defer rows.Close() //nolint:errcheck // nothing was written
	value := make([]driver.Value, 1)
	return rows.Next(value) == nil && value[0] == int64(1)
}

// OpenSQLite opens a file with the settings that key tables need, on every
// connection. The host registers the driver, as "sqlite" (modernc.org/sqlite) or
// "sqlite3" (github.com/mattn/go-sqlite3), by importing it.
func OpenSQLite(ctx context.Context, path string) (*sql.DB, error) {
	name := "sqlite"
	if !slices.Contains(sql.Drivers(), name) {
		name = "sqlite3"
	}
	probe, err := sql.Open(name, path)
	if err != nil {
		return nil, fmt.Errorf(`sqldb: no driver for SQLite: import _ "modernc.org/sqlite" in package main: %w`, err)
	}
	d := probe.Driver()
	_ = probe.Close() // never connected
	db := sql.OpenDB(sqliteConnector{d, path})
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close() // the first error counts
		return nil, fmt.Errorf("sqldb: open %s: %w", path, err)
	}
	return db, nil
}

type sqliteConnector struct {
	driver driver.Driver
	path   string
}

func (c sqliteConnector) Driver() driver.Driver { return c.driver }

func (c sqliteConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.path)
	if err != nil {
		return nil, err
	}
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		_ = conn.Close() // the missing method counts
		return nil, errors.New("sqldb: the driver cannot execute statements")
	}
	for _, pragma := range sqlitePragmas {
		if pragma == autoVacuum && vacuums(ctx, conn) {
			continue
		}
		if _, err := execer.ExecContext(ctx, pragma, nil); err != nil {
			_ = conn.Close() // the first error counts
			return nil, fmt.Errorf("%s: %w", pragma, err)
		}
	}
	return conn, nil
}
