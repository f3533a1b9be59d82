// Package calltokensql keeps the calls of package calltoken in SQLite or
// PostgreSQL, in the table crmguard_calls, which [New] makes.
//
//	calls, err := calltokensql.New(ctx, db, nil)
//	...
//	resolver, err := calltoken.NewResolver(keys, calls, g.Checker(), journal, host, exchange, nil) // g: *guard.Guard
//
// One INSERT begins a call, so that of any number of processes that resolve its
// token one makes it. Calls of a day ago are removed as new ones begin.
//
// # Security notes
//
// The table says which person called when, not whom. Whoever can write it can
// keep calls from being made, and by deleting a row within a token's two minutes
// have one made again, to the same client from the same telephone. SQLite writes
// one transaction at a time; open it with a busy timeout.
package calltokensql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/masking/calltoken"
)

// Migrations are the tables, in goose's format. [New] applies them. A host whose
// application may not create tables runs them before, as another role and with a
// table of goose's versions for these files alone; the application's role needs
// SELECT on crmguard_migrations, too.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Options change where the table is.
type Options struct {
	TablePrefix string // empty: "crmguard_"
}

// Store is a [calltoken.Store] on a database that the host opened and closes.
type Store struct {
	db *sqldb.DB
}

var _ calltoken.Store = (*Store)(nil)

// New returns the store in db and brings its table up to date.
func New(ctx context.Context, db *sql.DB, o *Options) (*Store, error) {
	if o == nil {
		o = &Options{}
	}
	d, err := sqldb.New(ctx, db, o.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("calltokensql: %w", err)
	}
	if err := d.Migrate(ctx, "calltoken", Migrations); err != nil {
		return nil, fmt.Errorf("calltokensql: %w", err)
	}
	return &Store{d}, nil
}

// Begin implements [calltoken.Store].
func (s *Store) Begin(ctx context.Context, c calltoken.Call, before time.Time) (calltoken.Call, bool, error) {
	n, err := s.exec(ctx, `INSERT INTO crmguard_calls (tenant, id, person, state, begun_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, id) DO NOTHING`, c.Tenant, c.ID, c.Person, int64(c.State), sqldb.Micros(c.Begun))
	if err != nil {
		return calltoken.Call{}, false, fmt.Errorf("calltokensql: begin: %w", err)
	}
	if n == 0 {
		stored, err := s.Find(ctx, c.Tenant, c.ID)
		return stored, false, err
	}
	// The call has begun, and no failure may say otherwise. The next one removes
	// what stays.
	_, _ = s.exec(ctx, `DELETE FROM crmguard_calls WHERE tenant = $1 AND begun_at < $2`, c.Tenant, sqldb.Micros(before))
	return c, true, nil
}

// Settle implements [calltoken.Store].
func (s *Store) Settle(ctx context.Context, tenant, id string, state calltoken.State) (bool, error) {
	n, err := s.exec(ctx, `UPDATE crmguard_calls SET state = $1 WHERE tenant = $2 AND id = $3 AND state = $4`,
		int64(state), tenant, id, int64(calltoken.Ringing))
	if err != nil {
		return false, fmt.Errorf("calltokensql: settle: %w", err)
	}
	return n == 1, nil
}

// Find implements [calltoken.Store].
func (s *Store) Find(ctx context.Context, tenant, id string) (calltoken.Call, error) {
	c := calltoken.Call{Tenant: tenant, ID: id}
	var begun int64
	err := s.db.QueryRowContext(ctx, s.db.Q(`SELECT person, state, begun_at FROM crmguard_calls WHERE tenant = $1 AND id = $2`),
		tenant, id).Scan(&c.Person, &c.State, &begun)
	if errors.Is(err, sql.ErrNoRows) {
		return calltoken.Call{}, calltoken.ErrNotFound
	}
	if err != nil {
		return calltoken.Call{}, fmt.Errorf("calltokensql: find: %w", err)
	}
	c.Begun = sqldb.Time(begun)
	return c, nil
}

// exec runs one statement, again when the database asks for that, and returns
// how many rows it changed.
func (s *Store) exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = s.db.Retry(ctx, func() error {
		result, err := s.db.ExecContext(ctx, s.db.Q(query), args...)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	return n, err
}
