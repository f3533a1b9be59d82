package sqldbtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// Before opens a database that is another one, for tests of what happens in between: do
// is called before each statement, with its text, and may use the other one.
func Before(t testing.TB, db *sql.DB, do func(query string)) *sql.DB {
	t.Helper()
	watched := sql.OpenDB(&connector{db, do})
	t.Cleanup(func() { require.NoError(t, watched.Close()) })
	return watched
}

type connector struct {
	db *sql.DB
	do func(query string)
}

func (c *connector) Driver() driver.Driver { return c.db.Driver() }

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.db.Conn(ctx)
	return &conn{inner, c.do}, err
}

// conn is a connection of the other pool, kept for as long as this pool keeps it.
type conn struct {
	inner *sql.Conn
	do    func(query string)
}

func (c *conn) Close() error              { return c.inner.Close() }
func (c *conn) Begin() (driver.Tx, error) { return c.BeginTx(context.Background(), driver.TxOptions{}) }

func (c *conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	return c.inner.BeginTx(ctx, &sql.TxOptions{Isolation: sql.IsolationLevel(o.Isolation), ReadOnly: o.ReadOnly})
}

// CheckNamedValue leaves values to the driver.
func (c *conn) CheckNamedValue(*driver.NamedValue) error { return nil }

func (c *conn) Prepare(query string) (driver.Stmt, error) { return &stmt{c, query}, nil }

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.do(query)
	return c.inner.ExecContext(ctx, query, values(args)...)
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.do(query)
	rows, err := c.inner.QueryContext(ctx, query, values(args)...) //nolint:sqlclosecheck // with the rows that are returned
	if err != nil {
		return nil, err
	}
	return &result{rows}, nil
}

func values(args []driver.NamedValue) []any {
	list := make([]any, len(args))
	for i, arg := range args {
		list[i] = arg.Value
	}
	return list
}

type stmt struct {
	conn  *conn
	query string
}

func (s *stmt) Close() error  { return nil }
func (s *stmt) NumInput() int { return -1 }

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.query, args)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, args)
}

func (s *stmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }
func (s *stmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

type result struct{ rows *sql.Rows }

func (r *result) Columns() []string {
	names, _ := r.rows.Columns() // fails for closed rows only
	return names
}

func (r *result) Close() error { return r.rows.Close() }

func (r *result) Next(into []driver.Value) error {
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	found, targets := make([]any, len(into)), make([]any, len(into))
	for i := range found {
		targets[i] = &found[i]
	}
	err := r.rows.Scan(targets...)
	for i := range found {
		into[i] = found[i]
	}
	return err
}
