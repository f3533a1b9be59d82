// Package sessionsql keeps sessions in SQLite or PostgreSQL, in the tables
// crmguard_sessions and crmguard_session_persons, which [New] makes.
//
//	store, err := sessionsql.New(ctx, db, nil)
//	...
//	sessions, err := session.New(store, keys, nil)
//
// One query reads a session together with the state of its person, so that a
// closed person is seen with the next request, on every node.
//
// # Security notes
//
// What the tables hold is safe against readers and writers of the database as
// far as package session says. SQLite writes one transaction at a time; open it
// with a busy timeout.
package sessionsql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/session"
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

// Store is a [session.Store] on a database that the host opened and closes.
type Store struct {
	db *sqldb.DB
}

var _ session.Store = (*Store)(nil)

// New returns the store in db and brings its tables up to date.
func New(ctx context.Context, db *sql.DB, o *Options) (*Store, error) {
	if o == nil {
		o = &Options{}
	}
	d, err := sqldb.New(ctx, db, o.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("sessionsql: %w", err)
	}
	if err := d.Migrate(ctx, "session", Migrations); err != nil {
		return nil, fmt.Errorf("sessionsql: %w", err)
	}
	return &Store{d}, nil
}

const (
	sessionColumns = `s.id, s.tenant, s.person, s.on_behalf_of, s.kind, s.assurance, s.authenticated_at,
		s.device, s.addr, s.scopes, s.started_at, s.used_at, s.end_at, s.epoch, s.verifier`
	personColumns = `p.tenant, p.closed, p.epoch, p.mac`
)

// Session implements [session.Store].
func (s *Store) Session(ctx context.Context, id string) (session.Row, session.Person, error) {
	var row scanRow
	var person scanPerson
	err := s.db.QueryRowContext(ctx, s.db.Q(`SELECT `+sessionColumns+`, `+personColumns+`
		FROM crmguard_sessions s
		LEFT JOIN crmguard_session_persons p ON p.tenant = s.tenant AND p.person = s.person
		WHERE s.id = $1`), id).Scan(append(row.targets(), person.targets()...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return session.Row{}, session.Person{}, session.ErrNotFound
	}
	if err != nil {
		return session.Row{}, session.Person{}, fmt.Errorf("sessionsql: read a session: %w", err)
	}
	r := row.value()
	return r, person.value(r.Tenant, r.Person), nil
}

// Person implements [session.Store].
func (s *Store) Person(ctx context.Context, tenant, id string) (session.Person, []session.Row, error) {
	// One statement sees one moment; it returns a row even for nobody.
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT `+sessionColumns+`, `+personColumns+`
		FROM (SELECT CAST($1 AS TEXT) AS tenant, CAST($2 AS TEXT) AS person) k
		LEFT JOIN crmguard_session_persons p ON p.tenant = k.tenant AND p.person = k.person
		LEFT JOIN crmguard_sessions s ON s.tenant = k.tenant AND s.person = k.person
		ORDER BY s.started_at, s.id`), tenant, id)
	if err != nil {
		return session.Person{}, nil, fmt.Errorf("sessionsql: read a person: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var p session.Person
	var list []session.Row
	for rows.Next() {
		var row scanRow
		var person scanPerson
		if err := rows.Scan(append(row.targets(), person.targets()...)...); err != nil {
			return session.Person{}, nil, fmt.Errorf("sessionsql: read a person: %w", err)
		}
		p = person.value(tenant, id)
		if row.id.Valid {
			list = append(list, row.value())
		}
	}
	if err := rows.Err(); err != nil {
		return session.Person{}, nil, fmt.Errorf("sessionsql: read a person: %w", err)
	}
	return p, list, nil
}

// Start implements [session.Store].
func (s *Store) Start(ctx context.Context, p session.Person, r session.Row, keep int) (bool, error) {
	if p.Closed || p.Epoch == 0 {
		return false, nil
	}
	scopes, err := encodeScopes(r.Scopes)
	if err != nil {
		return false, fmt.Errorf("sessionsql: encode scopes: %w", err)
	}
	addr, err := r.Addr.MarshalText() // empty if invalid
	if err != nil {
		return false, fmt.Errorf("sessionsql: encode an address: %w", err)
	}
	started := false
	err = s.db.Tx(ctx, func(tx *sql.Tx) error {
		// The person's row stays locked until the commit, so that Change comes
		// before or after all of this. SQLite has no other writer anyway.
		result, err := tx.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_sessions
			(id, tenant, person, on_behalf_of, kind, assurance, authenticated_at, device, addr, scopes,
				started_at, used_at, end_at, epoch, verifier)
			SELECT `+castInsert+`
			FROM crmguard_session_persons p
			WHERE p.tenant = $16 AND p.person = $17 AND p.closed = 0 AND p.epoch = $18 AND p.mac = $19`+s.lock("")),
			r.ID, r.Tenant, r.Person, r.OnBehalfOf, int64(r.Kind), int64(r.Assurance), sqldb.Micros(r.AuthenticatedAt),
			r.Device, string(addr), scopes, sqldb.Micros(r.Started), sqldb.Micros(r.Used), sqldb.Micros(r.End),
			r.Epoch, []byte(r.Verifier), p.Tenant, p.ID, p.Epoch, []byte(p.MAC))
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if started = n == 1; err != nil || !started {
			return err
		}
		if _, err := tx.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_sessions WHERE id IN (
			SELECT id FROM crmguard_sessions WHERE tenant = $1 AND person = $2 AND id <> $3
			ORDER BY started_at DESC, id DESC LIMIT 1000 OFFSET $4)`), r.Tenant, r.Person, r.ID, max(keep, 1)-1); err != nil {
			return err
		}
		// Rows that another Start removes at this moment are skipped, or the two
		// could wait for each other.
		_, err = tx.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_sessions WHERE id IN (
			SELECT id FROM crmguard_sessions WHERE end_at < $1 AND id <> $2
			ORDER BY end_at LIMIT $3`+s.lock(" SKIP LOCKED")+`)`), sqldb.Micros(r.Started), r.ID, session.SweepRows)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("sessionsql: start a session: %w", err)
	}
	return started, nil
}

// castInsert gives the parameters of an INSERT … SELECT their types, which
// PostgreSQL does not derive from the columns there. SQLite has no type BYTEA to
// cast to; COALESCE says the same.
const castInsert = `CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS SMALLINT), CAST($6 AS SMALLINT),
	CAST($7 AS BIGINT), CAST($8 AS TEXT), CAST($9 AS TEXT), CAST($10 AS TEXT), CAST($11 AS BIGINT), CAST($12 AS BIGINT), CAST($13 AS BIGINT),
	CAST($14 AS BIGINT), COALESCE($15, p.mac)`

func (s *Store) lock(how string) string {
	if s.db.Dialect == sqldb.Postgres {
		return " FOR UPDATE" + how
	}
	return ""
}

// Swap implements [session.Store].
func (s *Store) Swap(ctx context.Context, id string, verifier session.MAC, next *session.Row) (bool, error) {
	query, args := `DELETE FROM crmguard_sessions WHERE id = $1`, []any{id}
	if next != nil {
		query = `UPDATE crmguard_sessions SET used_at = $1, assurance = $2, authenticated_at = $3, verifier = $4
			WHERE id = $5 AND verifier = $6`
		args = []any{
			sqldb.Micros(next.Used), int64(next.Assurance), sqldb.Micros(next.AuthenticatedAt), []byte(next.Verifier),
			id, []byte(verifier),
		}
	}
	var n int64
	err := s.db.Retry(ctx, func() error {
		result, err := s.db.ExecContext(ctx, s.db.Q(query), args...)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	if err != nil {
		return false, fmt.Errorf("sessionsql: change a session: %w", err)
	}
	return n == 1, nil
}

// Change implements [session.Store].
func (s *Store) Change(ctx context.Context, old, next session.Person) (int, bool, error) {
	var ended int64
	var changed bool
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		var err error
		if changed, err = s.replace(ctx, tx, old, next); err != nil || !changed {
			return err
		}
		result, err := tx.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_sessions WHERE tenant = $1 AND person = $2`), old.Tenant, old.ID)
		if err != nil {
			return err
		}
		ended, err = result.RowsAffected()
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("sessionsql: change a person: %w", err)
	}
	return int(ended), changed, nil
}

// replace writes next if the person is old. It compares in Go, because no SQL
// finds a row by values of a wrong type, which somebody may have planted.
func (s *Store) replace(ctx context.Context, tx *sql.Tx, old, next session.Person) (bool, error) {
	// To write first takes the lock that keeps the row as it was read: on the row
	// in PostgreSQL, on the database in SQLite.
	var stored scanPerson
	err := tx.QueryRowContext(ctx, s.db.Q(`UPDATE crmguard_session_persons SET closed = closed WHERE tenant = $1 AND person = $2
		RETURNING tenant, closed, epoch, mac`), old.Tenant, old.ID).Scan(stored.targets()...)
	none := errors.Is(err, sql.ErrNoRows)
	if err != nil && !none {
		return false, err
	}
	if !stored.value(old.Tenant, old.ID).Equal(old) {
		return false, nil
	}
	query := `UPDATE crmguard_session_persons SET closed = $1, epoch = $2, mac = $3 WHERE tenant = $4 AND person = $5`
	if none {
		// Nothing was there to lock. Whoever inserts first wins.
		query = `INSERT INTO crmguard_session_persons (closed, epoch, mac, tenant, person) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (tenant, person) DO NOTHING`
	}
	result, err := tx.ExecContext(ctx, s.db.Q(query), flag(next.Closed), next.Epoch, []byte(next.MAC), old.Tenant, old.ID)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}
