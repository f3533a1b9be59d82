package encryptsql

import (
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

// IndexMigrations returns the migrations of the index, whose table lives in the
// CRM's database.
func IndexMigrations() fs.FS {
	sub, err := fs.Sub(indexFiles, "index")
	if err != nil {
		return indexFiles // cannot happen: the path is constant and valid
	}
	return sub
}

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
	if err := wrapped.Migrate(ctx, "index", IndexMigrations()); err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	return &Index{wrapped}, nil
}

// Put implements encrypt.Index.
func (x *Index) Put(ctx context.Context, tx encrypt.Execer, tenant, kind string, records []string, entries []encrypt.IndexEntry) error {
	if err := encrypt.CheckEntries(tenant, kind, records, entries); err != nil {
		return err
	}
	for part := range slices.Chunk(records, chunk) {
		args := []any{tenant, kind}
		for _, record := range part {
			args = append(args, record)
		}
		if _, err := tx.ExecContext(ctx, x.db.Q(`DELETE FROM crmguard_index WHERE tenant = $1 AND kind = $2 AND record IN (`+
			sqldb.Params(3, len(part))+`)`), args...); err != nil {
			return fmt.Errorf("encryptsql: replace index entries: %w", err)
		}
	}
	const width, rows = 7, 40 // modernc.org/sqlite binds in time quadratic in the parameters
	for part := range slices.Chunk(entries, rows) {
		values := make([]string, 0, len(part))
		args := make([]any, 0, width*len(part))
		for i, e := range part {
			values = append(values, `(`+sqldb.Params(1+width*i, width)+`)`)
			args = append(args, e.Tenant, e.Kind, e.Record, e.Field, e.Client, e.Version, e.Value)
		}
		query := `INSERT INTO crmguard_index (tenant, kind, record, field, client, version, value) VALUES ` + strings.Join(values, `, `)
		if _, err := tx.ExecContext(ctx, x.db.Q(query), args...); err != nil {
			return fmt.Errorf("encryptsql: put index entries: %w", err)
		}
	}
	return nil
}

// Find implements encrypt.Index.
func (x *Index) Find(ctx context.Context, tenant, kind, field string, values [][]byte) (records []string, err error) {
	if len(values) == 0 {
		return nil, nil
	}
	args := []any{tenant, kind, field}
	for _, value := range values {
		args = append(args, value)
	}
	rows, err := x.db.QueryContext(ctx, x.db.Q(`SELECT DISTINCT record FROM crmguard_index WHERE tenant = $1 AND kind = $2 AND field = $3 AND value IN (`+
		sqldb.Params(4, len(values))+`)`), args...)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: find: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var record string
		if err := rows.Scan(&record); err != nil {
			return nil, fmt.Errorf("encryptsql: find: %w", err)
		}
		records = append(records, record)
	}
	slices.Sort(records) // not by the database: collations differ
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
