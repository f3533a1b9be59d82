// Package quotasql counts toward norms in SQLite or PostgreSQL, in the tables
// crmguard_quota_days, crmguard_quota_counts and crmguard_quota_items, which [New]
// makes.
//
//	store, err := quotasql.New(ctx, db, nil)
//	...
//	norms, err := quota.New(store, zone, []quota.Norm{…}, nil)
//
// Each taking is one transaction, in which the person's row of attempts is locked:
// any number of processes let through exactly as many as the norm says. One that
// asks for nothing new is a single query that writes nothing.
//
// # Security notes
//
// Whoever can write these tables can empty a norm: see package quota. SQLite writes
// one transaction at a time; open it with a busy timeout.
package quotasql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/quota"
)

// Migrations are the tables, in goose's format. [New] applies them. A host whose
// application may not create tables runs them before, as another role and with a
// table of goose's versions for these files alone; the application's role needs
// SELECT on crmguard_migrations, too.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Options change where the tables are.
type Options struct {
	TablePrefix string // empty: "crmguard_"
}

// Store is a [quota.Store] on a database that the host opened and closes.
type Store struct {
	db *sqldb.DB
}

var _ quota.Store = (*Store)(nil)

// New returns the store in db and brings its tables up to date.
func New(ctx context.Context, db *sql.DB, o *Options) (*Store, error) {
	if o == nil {
		o = &Options{}
	}
	d, err := sqldb.New(ctx, db, o.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("quotasql: %w", err)
	}
	if err := d.Migrate(ctx, "quota", Migrations); err != nil {
		return nil, fmt.Errorf("quotasql: %w", err)
	}
	return &Store{d}, nil
}

// settleTimeout bounds a transaction, which goes on when the request ends: a
// refusal is counted though the client has hung up.
const settleTimeout = 10 * time.Second

func (s *Store) tx(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	return s.db.Tx(ctx, func(tx *sql.Tx) error { return fn(ctx, tx) })
}

// Take implements [quota.Store].
func (s *Store) Take(ctx context.Context, t quota.Taking) (quota.Taken, error) {
	taken, ok, err := s.seen(ctx, &t)
	if err == nil && !ok {
		err = s.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			p := person{db: s.db, tx: tx, tenant: t.Tenant, person: t.Person}
			taken, err = p.take(ctx, &t)
			return err
		})
	}
	if err != nil {
		return quota.Taken{}, fmt.Errorf("quotasql: take: %w", err)
	}
	return taken, nil
}

// seen answers, without writing, when all items are there already and no holder
// could give one back.
func (s *Store) seen(ctx context.Context, t *quota.Taking) (quota.Taken, bool, error) {
	if len(t.Items) == 0 || len(t.Items) > chunk {
		return quota.Taken{}, false, nil
	}
	args := append([]any{t.Tenant, int64(t.Day), t.Person}, counters(t.Limits)...)
	args = append(args, anys(t.Items)...)
	row := s.db.QueryRowContext(ctx, s.db.Q(`SELECT d.day, COUNT(*)
		FROM crmguard_quota_days d JOIN crmguard_quota_items i ON i.tenant = d.tenant AND i.day = d.day
		WHERE d.tenant = $1 AND d.day >= $2 AND i.person = $3
			AND i.counter IN (`+sqldb.Params(4, len(t.Limits))+`)
			AND i.item IN (`+sqldb.Params(4+len(t.Limits), len(t.Items))+`) AND i.holder = 0
		GROUP BY d.day`), args...)
	var day int32
	var n int
	err := row.Scan(&day, &n)
	if errors.Is(err, sql.ErrNoRows) {
		return quota.Taken{}, false, nil
	}
	return quota.Taken{Day: quota.Day(day)}, n == len(t.Limits)*len(t.Items), err
}

// Return implements [quota.Store].
func (s *Store) Return(ctx context.Context, t quota.Taking, fired []quota.Fired) error {
	err := s.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		p := person{db: s.db, tx: tx, tenant: t.Tenant, person: t.Person, day: t.Day}
		return p.giveBack(ctx, &t, fired)
	})
	if err != nil {
		return fmt.Errorf("quotasql: return: %w", err)
	}
	return nil
}

// Read implements [quota.Store].
func (s *Store) Read(ctx context.Context, tenant, person string, day quota.Day) (quota.Reading, error) {
	r := quota.Reading{Day: day, Counters: map[string]quota.Count{}}
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT d.day, c.counter, c.n, c.fired
		FROM crmguard_quota_days d
		LEFT JOIN crmguard_quota_counts c ON c.tenant = d.tenant AND c.day = d.day AND c.person = $1 AND (c.n <> 0 OR c.fired <> 0)
		WHERE d.tenant = $2 AND d.day >= $3`), person, tenant, int64(day))
	if err != nil {
		return quota.Reading{}, fmt.Errorf("quotasql: read: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var d int32
		var counter sql.NullString
		var n, fired sql.NullInt64
		if err := rows.Scan(&d, &counter, &n, &fired); err != nil {
			return quota.Reading{}, fmt.Errorf("quotasql: read: %w", err)
		}
		r.Day = quota.Day(d)
		if counter.Valid {
			r.Counters[counter.String] = quota.Count{N: int(n.Int64), Fired: quota.Level(fired.Int64)} //nolint:gosec // two bits
		}
	}
	if err := rows.Err(); err != nil {
		return quota.Reading{}, fmt.Errorf("quotasql: read: %w", err)
	}
	return r, nil
}
