// Package mfasql keeps second factors in SQLite or PostgreSQL, in the tables
// crmguard_mfa_persons and crmguard_mfa_factors, which [New] makes.
//
//	store, err := mfasql.New(ctx, db, nil)
//	...
//	factors, err := mfa.New(store, keys, "Acme CRM", nil)
//
// One UPDATE uses up a code, so that of any number of processes that accept it
// one wins.
//
// # Security notes
//
// What the tables hold is safe against readers and writers of the database as
// far as package mfa says. SQLite writes one transaction at a time; open it with
// a busy timeout.
package mfasql

import (
	"context"
	"database/sql"
	"embed"
	"fmt"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/mfa"
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

// Store is an [mfa.Store] on a database that the host opened and closes.
type Store struct {
	db *sqldb.DB
}

var _ mfa.Store = (*Store)(nil)

// New returns the store in db and brings its tables up to date.
func New(ctx context.Context, db *sql.DB, o *Options) (*Store, error) {
	if o == nil {
		o = &Options{}
	}
	d, err := sqldb.New(ctx, db, o.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("mfasql: %w", err)
	}
	if err := d.Migrate(ctx, "mfa", Migrations); err != nil {
		return nil, fmt.Errorf("mfasql: %w", err)
	}
	return &Store{d}, nil
}

// Load implements [mfa.Store].
func (s *Store) Load(ctx context.Context, tenant, person string) (mfa.Person, []mfa.Row, error) {
	p := mfa.Person{Tenant: tenant, ID: person}
	// One statement sees one moment; it returns a row even for nobody.
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT p.tenant, p.version, p.mac, p.empty_at, p.last_at,
			f.id, f.kind, f.active, f.last_step, f.created_at, f.sealed
		FROM (SELECT CAST($1 AS TEXT) AS tenant, CAST($2 AS TEXT) AS person) k
		LEFT JOIN crmguard_mfa_persons p ON p.tenant = k.tenant AND p.person = k.person
		LEFT JOIN crmguard_mfa_factors f ON f.tenant = k.tenant AND f.person = k.person`), tenant, person)
	if err != nil {
		return p, nil, fmt.Errorf("mfasql: load: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var list []mfa.Row
	for rows.Next() {
		var scanned scanPerson
		var row scanRow
		if err := rows.Scan(append(scanned.targets(), row.targets()...)...); err != nil {
			return p, nil, fmt.Errorf("mfasql: load: %w", err)
		}
		scanned.into(&p)
		if row.id.Valid {
			list = append(list, row.value())
		}
	}
	if err := rows.Err(); err != nil {
		return p, nil, fmt.Errorf("mfasql: load: %w", err)
	}
	sortByID(list)
	return p, list, nil
}

// Attempt implements [mfa.Store].
func (s *Store) Attempt(ctx context.Context, tenant, person string, old, next mfa.Budget) (bool, error) {
	n, err := s.exec(ctx, `UPDATE crmguard_mfa_persons SET empty_at = $1, last_at = $2
		WHERE tenant = $3 AND person = $4 AND empty_at = $5 AND last_at = $6`,
		sqldb.Micros(next.Empty), sqldb.Micros(next.Last), tenant, person, sqldb.Micros(old.Empty), sqldb.Micros(old.Last))
	if err != nil {
		return false, fmt.Errorf("mfasql: count an attempt: %w", err)
	}
	return n == 1, nil
}

// Advance implements [mfa.Store].
func (s *Store) Advance(ctx context.Context, tenant, person, id string, step int64) (bool, error) {
	n, err := s.exec(ctx, `UPDATE crmguard_mfa_factors SET last_step = $1
		WHERE tenant = $2 AND person = $3 AND id = $4 AND active = 1 AND last_step < $1`, step, tenant, person, id)
	if err != nil {
		return false, fmt.Errorf("mfasql: use a step: %w", err)
	}
	return n == 1, nil
}

// exec runs one statement and returns how many rows it changed.
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

// Change implements [mfa.Store].
func (s *Store) Change(ctx context.Context, old, next mfa.Person, put []mfa.Row, remove []string) (bool, error) {
	query := `UPDATE crmguard_mfa_persons SET version = $1, mac = $2
		WHERE tenant = $3 AND person = $4 AND version = $5 AND mac = $6`
	args := []any{next.Version, []byte(next.MAC), old.Tenant, old.ID, old.Version, []byte(old.MAC)}
	if old.Version == 0 {
		query = `INSERT INTO crmguard_mfa_persons (version, mac, tenant, person, empty_at, last_at) VALUES ($1, $2, $3, $4, 0, 0)
			ON CONFLICT (tenant, person) DO NOTHING`
		args = args[:4]
	}
	changed := false
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		// The person's row stays locked until the commit, so that of two changes one
		// sees the other.
		result, err := tx.ExecContext(ctx, s.db.Q(query), args...)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if changed = n == 1; err != nil || !changed {
			return err
		}
		for _, id := range remove {
			if _, err := tx.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_mfa_factors
				WHERE tenant = $1 AND person = $2 AND id = $3`), old.Tenant, old.ID, id); err != nil {
				return err
			}
		}
		for _, r := range put {
			if _, err := tx.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_mfa_factors
				(tenant, person, id, kind, active, last_step, created_at, sealed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
				ON CONFLICT (tenant, person, id) DO UPDATE SET kind = excluded.kind, active = excluded.active,
					last_step = excluded.last_step, created_at = excluded.created_at, sealed = excluded.sealed`),
				old.Tenant, old.ID, r.ID, string(r.Kind), flag(r.Active), r.Step, sqldb.Micros(r.Created), []byte(r.Sealed)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("mfasql: change: %w", err)
	}
	return changed, nil
}

// Clear implements [mfa.Store].
func (s *Store) Clear(ctx context.Context, next mfa.Person) (int, error) {
	var removed int64
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_mfa_persons (tenant, person, version, mac, empty_at, last_at)
			VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (tenant, person) DO UPDATE SET version = excluded.version, mac = excluded.mac,
				empty_at = excluded.empty_at, last_at = excluded.last_at`),
			next.Tenant, next.ID, next.Version, []byte(next.MAC), sqldb.Micros(next.Budget.Empty), sqldb.Micros(next.Budget.Last)); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_mfa_factors WHERE tenant = $1 AND person = $2`), next.Tenant, next.ID)
		if err != nil {
			return err
		}
		removed, err = result.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("mfasql: clear: %w", err)
	}
	return int(removed), nil
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
