// Package encryptsql keeps the wrapped keys of package encrypt, and its index, in
// SQLite or PostgreSQL.
//
// Keys belong in a store of their own, which no dump of the data contains:
//
//	store, err := encryptsql.OpenSQLite(ctx, "crm-keys/keys.db", false) // true: when it is installed, never later
//	index, err := encryptsql.NewIndex(ctx, db, nil)   // in the CRM's database
//	keys, err := encrypt.New(kek, store, &encrypt.Options{Index: index})
//
// # Security notes
//
// On SQLite a destroyed key is gone from the file and its write-ahead log when
// Advance returns: it is overwritten, and the log is checkpointed and truncated.
// While a reader holds the log back, Advance fails and the scope stays closing.
// secure_delete must be on in every connection; [OpenSQLite] sees to that and
// [New] refuses a pool where it is not.
//
// PostgreSQL keeps old row versions in its heap until VACUUM and in its WAL until
// that is recycled. encrypt.Options.BackupRetention must cover both.
//
// # Migrations
//
// [New], [OpenSQLite] and [NewIndex] bring the tables up to date themselves. For
// tools that do it elsewhere, [Migrations] and [IndexMigrations] are in goose's
// format; table names begin with "crmguard_", unless Options say otherwise.
package encryptsql

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// Migrations are the tables of keys, in goose's format. [New] applies them. A host whose
// application may not create tables runs them before, as another role and with a
// table of goose's versions for these files alone; the application's role needs
// SELECT on crmguard_migrations, too.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Options of a [Store] or [Index]. Nil means the defaults.
type Options struct {
	TablePrefix string // "": crmguard_
}

// Store is an encrypt.Store in a database.
type Store struct {
	db     *sqldb.DB
	opened *sql.DB // by OpenSQLite, so Close closes it
}

var (
	_ encrypt.Store     = (*Store)(nil)
	_ encrypt.Inventory = (*Store)(nil)
)

// New keeps keys in a PostgreSQL database, or in a SQLite file all of whose
// connections have secure_delete on, journal_mode WAL and synchronous FULL; others
// are refused.
func New(ctx context.Context, db *sql.DB, o *Options) (*Store, error) {
	if o == nil {
		o = &Options{}
	}
	wrapped, err := sqldb.New(ctx, db, o.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	if wrapped.Dialect == sqldb.SQLite {
		if err := checkSettings(ctx, db, secureDelete, synchronous, writeAhead); err != nil {
			return nil, err
		}
	}
	if err := wrapped.Migrate(ctx, "keys", Migrations); err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	return &Store{db: wrapped}, nil
}

// Close closes the file of [OpenSQLite]; a database given to [New] stays open.
func (s *Store) Close() error {
	if s.opened == nil {
		return nil
	}
	return s.opened.Close()
}

// Rows in state 4 are versions that Replace has removed. They stay, so that those
// versions never come back, and so that lock finds the first one; nobody sees them.

const columns = `tenant, name, version, state, wrapped, note, messages, created_at, closed_at, destroyed_at`

// chunk keeps statements below the limits of parameters of both databases.
const chunk = 500

// Load implements encrypt.Store.
func (s *Store) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	return s.load(ctx, s.db, scopes)
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (s *Store) load(ctx context.Context, q querier, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	var records []encrypt.Record
	for part := range slices.Chunk(scopes, 2*chunk) { // a page of chunk clients, and the tenant
		names := make([]string, len(part))
		for i, scope := range part {
			names[i] = name(scope)
		}
		among, args, err := s.among(2, names)
		if err != nil {
			return nil, fmt.Errorf("encryptsql: load keys: %w", err)
		}
		found, err := s.query(ctx, q, `SELECT `+columns+` FROM crmguard_keys WHERE tenant = $1 AND state < 4 AND name IN (`+
			among+`) ORDER BY name, version`, append([]any{part[0].Tenant}, args...)...)
		if err != nil {
			return nil, fmt.Errorf("encryptsql: load keys: %w", err)
		}
		records = append(records, found...)
	}
	return records, nil
}

// among returns what stands behind IN, and its parameters from $from on. On SQLite the names
// are one parameter, because modernc.org/sqlite binds many in quadratic time.
func (s *Store) among(from int, names []string) (query string, args []any, err error) {
	if s.db.Dialect == sqldb.SQLite && len(names) > 8 {
		list, err := json.Marshal(names)
		return `SELECT value FROM json_each(` + sqldb.Params(from, 1) + `)`, []any{string(list)}, err
	}
	for _, name := range names {
		args = append(args, name)
	}
	return sqldb.Params(from, len(names)), args, nil
}

func (s *Store) query(ctx context.Context, q querier, query string, args ...any) (records []encrypt.Record, err error) {
	rows, err := q.QueryContext(ctx, s.db.Q(query), args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r encrypt.Record
		var key string
		var created, closed, destroyed int64
		if err := rows.Scan(&r.Scope.Tenant, &key, &r.Version, &r.State, &r.Wrapped, &r.Note, &r.Messages, &created, &closed, &destroyed); err != nil {
			return nil, err
		}
		if r.Scope.Purpose, r.Scope.Name, err = parseName(key); err != nil {
			return nil, err
		}
		r.CreatedAt, r.ClosedAt, r.DestroyedAt = sqldb.Time(created), sqldb.Time(closed), sqldb.Time(destroyed)
		records = append(records, r)
	}
	return records, rows.Err()
}

// Insert implements encrypt.Store.
func (s *Store) Insert(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	var scopes []encrypt.Scope
	for _, r := range records {
		scopes = append(scopes, r.Scope)
	}
	var stored []encrypt.Record
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		newest := make(map[encrypt.Scope][]byte)
		for _, r := range sorted(records) {
			ok, err := s.under(ctx, tx, r, newest)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if err := s.insert(ctx, tx, r); err != nil {
				return err
			}
		}
		var err error
		stored, err = s.load(ctx, tx, unique(scopes))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("encryptsql: insert keys: %w", err)
	}
	return stored, nil
}

// under says whether what wrapped a new key is the newest, and sees to it that it stays so
// until the transaction ends. Newest holds what it has read.
func (s *Store) under(ctx context.Context, tx *sql.Tx, r encrypt.Record, newest map[encrypt.Scope][]byte) (bool, error) {
	if len(r.Under) == 0 {
		return true, nil
	}
	scope := r.Scope.Wrapping()
	wrapped, known := newest[scope]
	if !known {
		// The first row is locked, so that lock waits and no version is added; then the
		// newest one is, in a statement that sees it, so that Replace waits. SQLite has
		// one writer anyway, but a transaction that began by reading is refused there, and
		// does not wait, while another one writes.
		share := ""
		if s.db.Dialect == sqldb.Postgres {
			share = ` FOR SHARE`
			if _, err := s.exec(ctx, tx, `SELECT 1 FROM crmguard_keys WHERE tenant = $1 AND name = $2 AND version = 1`+share, scope.Tenant, name(scope)); err != nil {
				return false, err
			}
		} else if err := s.lock(ctx, tx, scope); err != nil {
			return false, err
		}
		row := tx.QueryRowContext(ctx, s.db.Q(`SELECT wrapped FROM crmguard_keys WHERE tenant = $1 AND name = $2 AND state < 4 ORDER BY version DESC LIMIT 1`+share), scope.Tenant, name(scope))
		if err := row.Scan(&wrapped); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return false, err
		}
		newest[scope] = wrapped
	}
	return bytes.Equal(wrapped, r.Under), nil
}

func (s *Store) insert(ctx context.Context, tx *sql.Tx, r encrypt.Record) error {
	if r.Version > 1 {
		if err := s.lock(ctx, tx, r.Scope); err != nil {
			return err
		}
		n, err := s.exec(ctx, tx, `UPDATE crmguard_keys SET messages = messages WHERE tenant = $1 AND name = $2 AND version = $3 AND state = $4`,
			r.Scope.Tenant, name(r.Scope), r.Version-1, encrypt.Active)
		if err != nil || n == 0 {
			return err // the scope is closed, or the version would leave a gap
		}
	}
	n, err := s.exec(ctx, tx, `INSERT INTO crmguard_keys (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`,
		r.Scope.Tenant, name(r.Scope), r.Version, r.State, orNull(r.Wrapped), orNull(r.Note), r.Messages,
		sqldb.Micros(r.CreatedAt), sqldb.Micros(r.ClosedAt), sqldb.Micros(r.DestroyedAt))
	if err != nil || n == 0 || r.Version == 1 {
		return err
	}
	return s.revise(ctx, tx)
}

// orNull keeps empty bytes from being compared with NULL later.
func orNull(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// lock makes other transactions that add versions to a scope or move it wait for
// this one. Statements after it see what those before it have done. The row of the
// first version stays for ever.
func (s *Store) lock(ctx context.Context, tx *sql.Tx, scope encrypt.Scope) error {
	_, err := s.exec(ctx, tx, `UPDATE crmguard_keys SET messages = messages WHERE tenant = $1 AND name = $2 AND version = 1`,
		scope.Tenant, name(scope))
	return err
}

// revise tells all nodes that what they remember may be outdated.
func (s *Store) revise(ctx context.Context, tx *sql.Tx) error {
	_, err := s.exec(ctx, tx, `UPDATE crmguard_keys_revision SET revision = revision + 1 WHERE id = 1`)
	return err
}

func (s *Store) exec(ctx context.Context, tx *sql.Tx, query string, args ...any) (int64, error) {
	result, err := tx.ExecContext(ctx, s.db.Q(query), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Lease implements encrypt.Store.
func (s *Store) Lease(ctx context.Context, keys []encrypt.Record, n uint64) ([]encrypt.Record, error) {
	byVersion := make(map[uint32][]encrypt.Scope)
	for _, r := range sorted(keys) {
		byVersion[r.Version] = append(byVersion[r.Version], r.Scope)
	}
	var leased []encrypt.Record
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		leased = nil
		for version, scopes := range byVersion {
			for part := range slices.Chunk(unique(scopes), chunk) {
				args := []any{n, part[0].Tenant, version, encrypt.Active}
				for _, scope := range part {
					args = append(args, name(scope))
				}
				records, err := s.query(ctx, tx, `UPDATE crmguard_keys SET messages = messages + $1
					WHERE tenant = $2 AND version = $3 AND state = $4 AND name IN (`+sqldb.Params(5, len(part))+`) RETURNING `+columns, args...)
				if err != nil {
					return err
				}
				leased = append(leased, records...)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("encryptsql: lease messages: %w", err)
	}
	return leased, nil
}

// Closing implements encrypt.Store.
func (s *Store) Closing(ctx context.Context) (revision int64, closing []encrypt.Record, err error) {
	// The revision is read first: what closes in between is told twice rather than
	// never.
	row := s.db.QueryRowContext(ctx, s.db.Q(`SELECT revision FROM crmguard_keys_revision WHERE id = 1`))
	if err := row.Scan(&revision); err != nil {
		return 0, nil, fmt.Errorf("encryptsql: read the revision: %w", err)
	}
	closing, err = s.query(ctx, s.db, `SELECT `+columns+` FROM crmguard_keys k WHERE state = 2 AND NOT EXISTS (
		SELECT 1 FROM crmguard_keys n WHERE n.tenant = k.tenant AND n.name = k.name AND n.version > k.version) ORDER BY closed_at`)
	if err != nil {
		return 0, nil, fmt.Errorf("encryptsql: closing scopes: %w", err)
	}
	return revision, closing, nil
}

// letters stand for purposes in the names of keys.
var letters = map[encrypt.Purpose]byte{
	encrypt.TenantKeyset: 't', encrypt.DataKey: 'd', encrypt.IndexKey: 'i', encrypt.MACKey: 'm', encrypt.KEKCheck: 'k',
}

// name is purpose and name of a scope in one column, so that keys for all purposes
// are found with one IN. What has no purpose comes before all that have one.
func name(s encrypt.Scope) string {
	if s.Purpose == 0 {
		return ""
	}
	return string([]byte{letters[s.Purpose], ':'}) + s.Name
}

func parseName(name string) (encrypt.Purpose, string, error) {
	for purpose, letter := range letters {
		if len(name) >= 2 && name[0] == letter && name[1] == ':' {
			return purpose, name[2:], nil
		}
	}
	return 0, "", fmt.Errorf("encryptsql: not the name of a key: %q", name)
}

// sorted puts records into one order for all transactions, so that two of them
// wait for each other's locks in turn.
func sorted(records []encrypt.Record) []encrypt.Record {
	return slices.SortedFunc(slices.Values(records), func(a, b encrypt.Record) int {
		if c := strings.Compare(name(a.Scope), name(b.Scope)); c != 0 {
			return c
		}
		return int(a.Version) - int(b.Version)
	})
}

func unique(scopes []encrypt.Scope) []encrypt.Scope {
	seen := make(map[encrypt.Scope]bool, len(scopes))
	return slices.DeleteFunc(slices.Clone(scopes), func(s encrypt.Scope) bool {
		defer func() { seen[s] = true }()
		return seen[s]
	})
}

var errAdvance = errors.New("encryptsql: a scope goes from active to closing and from closing to destroyed")
