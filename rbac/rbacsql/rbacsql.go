// Package rbacsql keeps a Casbin policy in SQLite or PostgreSQL, in the table
// that Casbin's other adapters use too: casbin_rule (id, ptype, v0 … v5). Beside it,
// in casbin_version, stands what was changed in each version, when, by whom and why.
//
//	adapter, err := rbacsql.New(ctx, db, keys, &rbacsql.Options{Marks: marks, Journal: journal})
//	...
//	rights, err := rbac.New(ctx, adapter, nil)
//	go rights.Watch(ctx, nil)             // takes over what other processes change
//	http.Handle("/health", ...)           // shows rights.Status()
//
//	v, err := rights.Replace(ctx, tenant, rights.Status().Stored.Number, rules, "sellers may export")
//	page, err := rights.History(ctx, tenant, 0, 50)
//
// The adapter serves any Casbin enforcer; package rbac checks what it reads.
//
// Departments may stand beside it, for hosts that have no tables of their own for them:
//
//	rights, err := rbac.New(ctx, adapter, &rbac.Options{Org: adapter.Org()})
//	...
//	version, err := adapter.Org().Version(ctx, tenant)
//	units, err := adapter.Org().Load(ctx, tenant)
//	...
//	v, err := adapter.Org().Replace(ctx, tenant, version, changed, "anna heads north")
//	rights.Invalidate(tenant)
//
// # Security notes
//
// Whoever can write the database does not become owner by it. Each version carries a
// MAC under a key that is not in the database, over its number and the digest of all
// rows, and the rows are compared with it whenever they are read or changed. So rows that
// were changed past the adapter are refused, with [ErrTampered] naming them, and so are
// made-up and changed versions. An older state of both tables is refused, with
// [ErrOlder], by who has seen a newer one: a running process, and with
// [Options.Marks] every process. What is refused is not changed either: nobody's
// grant makes another one's forgery genuine. Who writes the database can still keep
// everybody out.
//
// Departments decide what rights reach, so they are kept in the same way: one document of
// each tenant, whose rows stand in the versions alone.
//
// [Adapter.Adopt] and [Org.Adopt] are the way back after somebody changed the tables on purpose, and the way in
// for a table that another adapter made.
//
// The key may rotate, but its old versions vouch for old versions of the policy: retired,
// they take the history with them, and the newest version too unless it was made since.
//
// [NewWithoutKeys] is for a host without keys: versions, history and comparison are
// the same, but whoever can write both tables can forge all of them.
//
// # Several processes
//
// A change is a compare-and-swap on the number of the version, in one transaction with the rows:
// of two at once one is told [rbac.ErrChanged], and what the engine can decide anew it
// tries again by itself. On PostgreSQL each change is notified on [Adapter.Channel]. Here is an rbac.WatchOptions.Listen
// that hears it, by pgx, on a connection of its own:
//
//	func(ctx context.Context, changed func()) error {
//		conn, err := pgx.Connect(ctx, url)
//		if err != nil {
//			return err
//		}
//		defer conn.Close(context.WithoutCancel(ctx))
//		if _, err := conn.Exec(ctx, "LISTEN "+adapter.Channel()); err != nil {
//			return err
//		}
//		for {
//			if _, err := conn.WaitForNotification(ctx); err != nil {
//				return err
//			}
//			changed()
//		}
//	}
//
// # Format and compatibility
//
// docs/formats/rbac.md specifies both tables and the bytes of the MAC.
package rbacsql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/casbin/casbin/v2/persist"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/rbac"
)

// Migrations are the tables in goose's format, below sqlite/ and postgres/. [New]
// applies them. A host whose application may not create tables runs them before,
// as another role, with a table of goose's versions for these files alone and
// casbin_ (or its prefix) in place of crmguard_; the application's role needs
// SELECT on casbin_migrations, too.
//
//go:embed sqlite postgres
var Migrations embed.FS

// Marks remembers the highest version of the policy that was ever in force, and of departments, outside
// the database that keeps it, such as beside the keys: whoever puts an old backup of
// that database back does not bring old rights back. Whoever does so on purpose adopts
// what is there ([Adapter.Adopt]).
type Marks interface {
	// Raise makes the mark of a document version, unless it is higher already, and
	// returns what it is then. It is atomic and durable. The first mark is 0. Documents are
	// "policy/TENANT", and departments of tenants.
	Raise(ctx context.Context, document string, version int64) (int64, error)
}

// Options are what an [Adapter] can do without.
type Options struct {
	TablePrefix string // of the tables PREFIXrule, PREFIXversion and PREFIXmigrations; empty: "casbin_"

	// Tenant is whose keys make the MACs and whose mark is raised, which must differ
	// for policies that share keys; empty: crmguard.SingleTenant.
	Tenant string

	// Marks are asked with each look; nil: versions are compared with those that this
	// process has seen.
	Marks Marks

	// Journal is told of each change before and after it. What cannot be recorded is not
	// done, unless it gives nobody anything: that is logged. nil: nobody is told.
	Journal crmguard.Recorder

	Logger *slog.Logger     // nil: slog.Default()
	Clock  func() time.Time // nil: time.Now
}

// Adapter reads and writes the tables. It is safe for concurrent use.
type Adapter struct {
	versions
	turn chan struct{} // full while a change by Casbin's methods is tried
	org  Org
}

var (
	_ rbac.Store                  = (*Adapter)(nil)
	_ persist.BatchAdapter        = (*Adapter)(nil)
	_ persist.ContextBatchAdapter = (*Adapter)(nil)
)

// New brings the tables up to date, or creates them. A table that another of
// Casbin's adapters made is taken over, rows that are there twice are left once, and
// then waits for [Adapter.Adopt].
func New(ctx context.Context, db *sql.DB, keys crmguard.Authenticator, o *Options) (*Adapter, error) {
	if keys == nil {
		return nil, errors.New("rbacsql: keys are needed; NewWithoutKeys goes without")
	}
	return open(ctx, db, keys, o)
}

// NewWithoutKeys is New for a host that has no keys: whoever can write the database can
// give rights. Keep the database role of the application, and nobody else's, on the tables.
func NewWithoutKeys(ctx context.Context, db *sql.DB, o *Options) (*Adapter, error) {
	return open(ctx, db, nil, o)
}

func open(ctx context.Context, db *sql.DB, keys crmguard.Authenticator, o *Options) (*Adapter, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.TablePrefix == "" {
		opts.TablePrefix = "casbin_"
	}
	if opts.Tenant == "" {
		opts.Tenant = crmguard.SingleTenant
	}
	a := &Adapter{versions: versions{
		tables:   tables{keys: keys, tenant: opts.Tenant, marks: opts.Marks, journal: opts.Journal, log: opts.Logger, now: opts.Clock},
		document: policyDocument,
	}, turn: make(chan struct{}, 1)}
	if a.log == nil {
		a.log = slog.Default()
	}
	if a.now == nil {
		a.now = time.Now
	}
	if err := a.migrate(ctx, db, opts.TablePrefix); err != nil {
		return nil, fmt.Errorf("rbacsql: %w", err)
	}
	a.org.tables = a.tables
	return a, nil
}

func (a *Adapter) migrate(ctx context.Context, db *sql.DB, prefix string) (err error) {
	if a.db, err = sqldb.New(ctx, db, prefix); err != nil {
		return err
	}
	if err := checkTakeover(ctx, a.db); err != nil {
		return err
	}
	files, err := fs.Sub(Migrations, a.db.Dialect.String())
	if err != nil {
		return err
	}
	return a.db.Migrate(ctx, "rbac", files)
}

// Channel is what changes are notified on in PostgreSQL, of the policy with the number of the version and of departments
// with "departments/" and the tenant.
func (a *Adapter) Channel() string { return a.channel() }
