package encryptsql

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/sqldb"
)

//go:embed index/migrations/*.sql
var indexFiles embed.FS

// IndexMigrations are the table of the index, which lives in the CRM's database. [NewIndex]
// applies them; see [Migrations].
var IndexMigrations, _ = fs.Sub(indexFiles, "index") // the path is constant and valid

// Index is an encrypt.Index in the CRM's own database, so that entries are written
// in the transaction of the row. Leave its table out of dumps.
type Index struct{ db *sqldb.DB }

var _ encrypt.Index = (*Index)(nil)

// NewIndex brings the table of the index up to date. A SQLite pool without
// secure_delete is refused: the index values of an erased client would stay in the
// file.
func NewIndex(ctx context.Context, db *sql.DB, o *Options) (*Index, error) {
	if o == nil {
		o = &Options{}
	}
	wrapped, err := sqldb.New(ctx, db, o.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	if wrapped.Dialect == sqldb.SQLite {
		if err := checkSettings(ctx, db, secureDelete); err != nil {
			return nil, err
		}
	}
	if err := wrapped.Migrate(ctx, "index", IndexMigrations); err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	return &Index{wrapped}, nil
}

// beginner is a *sql.DB, of this index or not, or a *sql.Conn.
type beginner interface {
	BeginTx(ctx context.Context, o *sql.TxOptions) (*sql.Tx, error)
}

// Put implements encrypt.Index. What can begin a transaction gets one for the entries, which
// are replaced as a whole or not at all: so a *sql.Conn must not be in one.
func (x *Index) Put(ctx context.Context, tx encrypt.Execer, entries encrypt.IndexEntries) error {
	if err := entries.Check(); err != nil {
		return err
	}
	if db, ok := tx.(beginner); ok {
		return x.db.Retry(ctx, func() error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return fmt.Errorf("encryptsql: replace index entries: %w", err)
			}
			defer tx.Rollback() //nolint:errcheck // after Commit it does nothing; before, the first error counts
			if err := x.put(ctx, tx, &entries); err != nil {
				return err
			}
			return tx.Commit()
		})
	}
	return x.put(ctx, tx, &entries)
}

// put does all anew when the entries that were in the way are gone by the time somebody asks whose they were.
func (x *Index) put(ctx context.Context, tx encrypt.Execer, entries *encrypt.IndexEntries) error {
	for range attempts {
		if err := x.replace(ctx, tx, entries); !errors.Is(err, errConcurrent) {
			return err
		}
	}
	return errConcurrent
}

func (x *Index) replace(ctx context.Context, tx encrypt.Execer, entries *encrypt.IndexEntries) error {
	for part := range slices.Chunk(entries.Records, chunk) {
		args := []any{entries.Tenant, entries.Kind}
		for _, record := range part {
			args = append(args, record)
		}
		query := `DELETE FROM crmguard_index WHERE tenant = $1 AND kind = $2 AND record IN (` + sqldb.Params(3, len(part)) + `)`
		if len(entries.Fields) > 0 {
			query += ` AND field IN (` + sqldb.Params(3+len(part), len(entries.Fields)) + `)`
			for _, field := range entries.Fields {
				args = append(args, field)
			}
		}
		if _, err := tx.ExecContext(ctx, x.db.Q(query), args...); err != nil {
			return fmt.Errorf("encryptsql: replace index entries: %w", err)
		}
	}
	const width, rows = 9, 30 // modernc.org/sqlite binds in time quadratic in the parameters
	for part := range slices.Chunk(inOrder(entries.Entries), rows) {
		values := make([]string, 0, len(part))
		args := make([]any, 0, width*len(part))
		for i, e := range part {
			unique := 0
			if e.Unique {
				unique = 1
			}
			values = append(values, `(`+sqldb.Params(1+width*i, width)+`)`)
			args = append(args, e.Tenant, e.Kind, e.Record, e.Field, e.Index, e.Version, e.Client, e.Value, unique)
		}
		// What conflicts is left out, because after an error PostgreSQL would not even tell
		// with what. A conflict with another transaction waits for its end.
		result, err := tx.ExecContext(ctx, x.db.Q(`INSERT INTO crmguard_index (tenant, kind, record, field, index_name, version, client, value, is_unique) VALUES `+
			strings.Join(values, `, `)+` ON CONFLICT DO NOTHING`), args...)
		if err != nil {
			return fmt.Errorf("encryptsql: put index entries: %w", err)
		}
		n, err := result.RowsAffected()
		if err != nil {
			return fmt.Errorf("encryptsql: put index entries: %w", err)
		}
		if n < int64(len(part)) {
			return x.conflict(ctx, tx, part)
		}
	}
	return nil
}

// inOrder sorts entries so that transactions wait for each other's unique values in turn.
func inOrder(entries []encrypt.IndexEntry) []encrypt.IndexEntry {
	return slices.SortedFunc(slices.Values(entries), func(a, b encrypt.IndexEntry) int {
		return cmp.Or(strings.Compare(a.Field, b.Field), strings.Compare(a.Index, b.Index), cmp.Compare(a.Version, b.Version),
			bytes.Compare(a.Value, b.Value), strings.Compare(a.Record, b.Record))
	})
}

const attempts = 10

var errConcurrent = errors.New("encryptsql: other transactions keep changing the same index entries")

// conflict says why some entries were left out.
func (x *Index) conflict(ctx context.Context, tx encrypt.Execer, part []encrypt.IndexEntry) error {
	reader, ok := tx.(querier)
	if !ok { // nobody to ask
		return encrypt.ErrDuplicate
	}
	for _, e := range part {
		if !e.Unique {
			continue
		}
		others, err := x.records(ctx, reader, `SELECT record FROM crmguard_index WHERE tenant = $1 AND kind = $2 AND field = $3
			AND index_name = $4 AND version = $5 AND value = $6 AND is_unique = 1 AND record <> $7`,
			e.Tenant, e.Kind, e.Field, e.Index, e.Version, e.Value, e.Record)
		if err != nil {
			return fmt.Errorf("%w: who has it: %w", encrypt.ErrDuplicate, err)
		}
		if len(others) > 0 {
			return &encrypt.DuplicateError{Field: e.Field, Index: e.Index, Record: e.Record, Other: others[0]}
		}
	}
	return errConcurrent
}

// Find implements encrypt.Index.
func (x *Index) Find(ctx context.Context, tenant, kind, field, index string, values [][]byte) ([]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	args := []any{tenant, kind, field, index}
	for _, value := range values {
		args = append(args, value)
	}
	records, err := x.records(ctx, x.db, `SELECT DISTINCT record FROM crmguard_index
		WHERE tenant = $1 AND kind = $2 AND field = $3 AND index_name = $4 AND value IN (`+sqldb.Params(5, len(values))+`)`, args...)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: find: %w", err)
	}
	slices.Sort(records) // not by the database: collations differ
	return records, nil
}

// Duplicates implements encrypt.Index.
func (x *Index) Duplicates(ctx context.Context, tenant, client string) ([]string, error) {
	records, err := x.records(ctx, x.db, `SELECT DISTINCT o.record FROM crmguard_index c JOIN crmguard_index o ON o.tenant = c.tenant AND o.kind = c.kind
			AND o.field = c.field AND o.index_name = c.index_name AND o.version = c.version AND o.value = c.value
		WHERE c.tenant = $1 AND c.client = $2 AND o.client <> $3 AND c.index_name IN ('phone', 'email', 'exact')`, tenant, client, client)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: duplicates: %w", err)
	}
	slices.Sort(records)
	return records, nil
}

// Stale implements encrypt.Index.
func (x *Index) Stale(ctx context.Context, tenant, kind, field, index string, version uint32, after string, limit int) ([]string, error) {
	records, err := x.records(ctx, x.db, `SELECT DISTINCT e.record FROM crmguard_index e
		WHERE e.tenant = $1 AND e.kind = $2 AND e.record > $3 AND e.field = $4 AND e.index_name = $5 AND NOT EXISTS (
			SELECT 1 FROM crmguard_index n WHERE n.tenant = e.tenant AND n.kind = e.kind AND n.record = e.record
				AND n.field = e.field AND n.index_name = e.index_name AND n.version = $6)
		ORDER BY e.record LIMIT $7`, tenant, kind, after, field, index, version, limit)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: stale index entries: %w", err)
	}
	return records, nil
}

func (x *Index) records(ctx context.Context, from querier, query string, args ...any) (records []string, err error) {
	rows, err := from.QueryContext(ctx, x.db.Q(query), args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var record string
		if err := rows.Scan(&record); err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return records, rows.Err()
}

// DropClient implements encrypt.Index.
func (x *Index) DropClient(ctx context.Context, tenant, client string) (int, error) {
	var n int64
	err := x.db.Retry(ctx, func() error {
		result, err := x.db.ExecContext(ctx, x.db.Q(`DELETE FROM crmguard_index WHERE tenant = $1 AND client = $2`), tenant, client)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("encryptsql: drop a client's index entries: %w", err)
	}
	return int(n), nil
}
