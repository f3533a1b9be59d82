// Package sqldb is what the SQL stores of this module share: which dialect a
// *sql.DB speaks, versioned migrations, a prefix for table names, transactions
// that are tried again when the database asks for it, and SQLite files opened
// with the same settings on every connection.
//
// Stores write one SQL text for both dialects, but where one of them has a much faster
// way ([Array]): parameters are $1, $2, …, in the order in which the arguments are given;
// bytes are BYTEA, times are BIGINT microseconds since 1970 (see [Micros]), flags are
// SMALLINT. Table names start with "crmguard_", which [DB.Q] replaces by the prefix that
// the host chose.
//
// # Migrations
//
// A store's New makes and changes its tables itself. A host that gives the
// application no right to do so runs the exported files of each store with goose
// or a tool like it, as another role, before each start of a new version: per
// store with a table of versions of its own, because each store counts from 1,
// and with "crmguard_" in the files replaced by its prefix, if it has one. The
// files insert their version into crmguard_migrations, which New reads. So the
// application needs SELECT on that table, and SELECT, INSERT, UPDATE and DELETE
// on the others.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Dialect is the SQL that a database speaks.
type Dialect uint8

// The dialects that stores speak.
const (
	SQLite Dialect = iota + 1
	Postgres
)

// String returns "sqlite" or "postgres".
func (d Dialect) String() string {
	switch d {
	case SQLite:
		return "sqlite"
	case Postgres:
		return "postgres"
	}
	return fmt.Sprintf("Dialect(%d)", uint8(d))
}

const defaultPrefix = "crmguard_"

var validPrefix = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,30}$`)

// DB is a database with what a store needs to know about it.
type DB struct {
	*sql.DB
	Dialect Dialect
	prefix  string
}

// New finds out which dialect db speaks. An empty prefix means "crmguard_".
func New(ctx context.Context, db *sql.DB, prefix string) (*DB, error) {
	if db == nil {
		return nil, errors.New("sqldb: no database")
	}
	if prefix == "" {
		prefix = defaultPrefix
	}
	if !validPrefix.MatchString(prefix) {
		return nil, fmt.Errorf("sqldb: table prefix %q: want lower-case letters, digits and _, at most 31", prefix)
	}
	// Only one of the two databases knows each function. The error of the first
	// says nothing when the second succeeds.
	var version string
	sqliteErr := db.QueryRowContext(ctx, `SELECT sqlite_version()`).Scan(&version)
	if sqliteErr == nil {
		return &DB{DB: db, Dialect: SQLite, prefix: prefix}, nil
	}
	if err := db.QueryRowContext(ctx, `SHOW server_version`).Scan(&version); err != nil {
		return nil, fmt.Errorf("sqldb: the database answers neither as SQLite (%w) nor as PostgreSQL (%w)", sqliteErr, err)
	}
	return &DB{DB: db, Dialect: Postgres, prefix: prefix}, nil
}

// Q puts the prefix into a query's table names.
func (db *DB) Q(query string) string {
	if db.prefix != defaultPrefix {
		query = strings.ReplaceAll(query, defaultPrefix, db.prefix)
	}
	if db.Dialect == SQLite {
		query = withoutNames(query)
	}
	return query
}

// withoutNames writes ? for $1, $2, … where each comes once, in this order. To SQLite
// they are names, each of which it compares with all before it: statements with thousands
// of values would take seconds. Stores have no $ in texts of SQL.
func withoutNames(query string) string {
	if !strings.Contains(query, "$1") {
		return query
	}
	var b strings.Builder
	b.Grow(len(query))
	n := 0
	for rest := query; ; {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n++
		rest, found = strings.CutPrefix(after, strconv.Itoa(n))
		if !found || rest != "" && '0' <= rest[0] && rest[0] <= '9' {
			return query
		}
		b.WriteByte('?')
	}
}

// retries and the pauses between them: the longest wait is about two seconds,
// after which a busy database is the caller's problem.
const (
	retries    = 12
	firstPause = 2 * time.Millisecond
	maxPause   = 300 * time.Millisecond
)

// Tx runs fn in a transaction and commits. When the database refuses because of
// concurrent transactions, all of it runs again, so fn must have no other effect.
func (db *DB) Tx(ctx context.Context, fn func(tx *sql.Tx) error) error {
	return db.Retry(ctx, func() error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // after Commit it does nothing; before, the first error counts
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// Retry runs fn, again when the database asked for that.
func (db *DB) Retry(ctx context.Context, fn func() error) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := fn()
		if err == nil || attempt == retries || !db.Retryable(err) {
			return err
		}
		jitter := time.Duration(rand.Int64N(int64(pause))) //nolint:gosec // spreads retries, decides nothing
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause/2 + jitter):
		}
		pause = min(2*pause, maxPause)
	}
}

// Retryable reports whether err says that the same transaction may succeed if it
// is run again: serialization failures and deadlocks of PostgreSQL (pgx, lib/pq),
// a busy or locked SQLite. There the text decides, which is SQLite's own with
// every driver; errors of quite other libraries have codes like its 5 and 6.
func (db *DB) Retryable(err error) bool {
	if db.Dialect == Postgres {
		e, ok := errors.AsType[interface {
			error
			SQLState() string
		}](err)
		return ok && (e.SQLState() == "40001" || e.SQLState() == "40P01")
	}
	return err != nil && (strings.Contains(err.Error(), "database is locked") || strings.Contains(err.Error(), "database table is locked"))
}

// DataException reports whether err says that PostgreSQL cannot read or hold a value in the type
// that it is to have.
func DataException(err error) bool {
	e, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	return ok && strings.HasPrefix(e.SQLState(), "22")
}

// UniqueViolation reports whether err says that a row with the same key exists.
func UniqueViolation(err error) bool {
	if e, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return e.SQLState() == "23505"
	}
	if e, ok := errors.AsType[interface {
		error
		Code() int
	}](err); ok {
		return e.Code() == 1555 || e.Code() == 2067 // CONSTRAINT_PRIMARYKEY, CONSTRAINT_UNIQUE
	}
	return err != nil && strings.Contains(err.Error(), "UNIQUE constraint failed")
}

// Micros is how stores keep a time: microseconds since 1970, 0 for the zero time.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the inverse of [Micros], in UTC.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// Params returns "$from, $from+1, …" for n parameters.
func Params(from, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", from+i)
	}
	return b.String()
}
