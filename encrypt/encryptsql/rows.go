package encryptsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// Layout says where a table of the CRM keeps what encrypt's jobs work on. Names are
// taken as they are, letter by letter; that of the table may have a schema in front, after a dot.
type Layout struct {
	Table  string
	Tenant string // column; empty: all rows belong to the tenant that the job names
	Record string // column, unique within a tenant
	Client string // column; empty: Record

	Sealed map[string]string // columns of sealed values, by logical name of the field
	Legacy map[string]string // columns that the fields were in before they were sealed, likewise
}

// Rows is an encrypt.Rows over a table of the CRM in SQLite or PostgreSQL.
type Rows struct {
	db      *sqldb.DB
	layout  Layout
	columns []column
	table   string            // quoted
	types   map[string]string // of columns, on PostgreSQL
	untyped bool              // on SQLite: the tenant's column converts no text to what it holds
	page    string            // start of the query
}

var _ encrypt.Rows = (*Rows)(nil)

// column is one that jobs read and write.
type column struct {
	field, name string
	legacy      bool
}

// NewRows checks that the table is as the layout says. It makes nothing.
func NewRows(ctx context.Context, db *sql.DB, layout Layout) (*Rows, error) {
	wrapped, err := sqldb.New(ctx, db, "")
	if err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	if layout.Client == "" {
		layout.Client = layout.Record
	}
	r := &Rows{db: wrapped, layout: layout}
	for _, field := range slices.Sorted(maps.Keys(layout.Sealed)) {
		r.columns = append(r.columns, column{field, layout.Sealed[field], false})
	}
	for _, field := range slices.Sorted(maps.Keys(layout.Legacy)) {
		if layout.Sealed[field] == "" {
			return nil, fmt.Errorf("encryptsql: layout of %s: %q has a column of plaintext, but none of sealed values", layout.Table, field)
		}
		r.columns = append(r.columns, column{field, layout.Legacy[field], true})
	}
	if len(r.columns) == 0 {
		return nil, fmt.Errorf("encryptsql: layout of %s: no column", layout.Table)
	}
	names := []string{layout.Record, layout.Client}
	if layout.Tenant != "" {
		names = append(names, layout.Tenant)
	}
	seen := make(map[string]string)
	for _, c := range r.columns {
		if other, twice := seen[c.name]; twice {
			return nil, fmt.Errorf("encryptsql: layout of %s: column %s is both %q and %q", layout.Table, c.name, other, c.field)
		}
		seen[c.name] = c.field
		names = append(names, c.name)
	}
	schema, table, qualified := strings.Cut(layout.Table, ".")
	if r.table, err = quote(schema); err == nil && qualified {
		var quoted string
		quoted, err = quote(table)
		r.table += "." + quoted
	}
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, err := quote(name); err != nil {
			return nil, err
		}
	}
	if err := r.readTypes(ctx, names); err != nil {
		return nil, fmt.Errorf("encryptsql: table %s: %w", layout.Table, err)
	}
	r.page = r.selection()
	return r, nil
}

// quote makes an identifier of SQL.
func quote(name string) (string, error) {
	if name == "" || len(name) > 63 || strings.ContainsAny(name, "\x00.") {
		return "", fmt.Errorf("encryptsql: %q is no name of a table or column", name)
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`, nil
}

// q quotes a name that was checked before.
func q(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// untyped says whether SQLite gives a column the affinity BLOB, as it does with ANY in a STRICT table:
// https://sqlite.org/datatype3.html#determination_of_column_affinity.
func untyped(declared string) bool {
	for _, typed := range []string{"INT", "CHAR", "CLOB", "TEXT"} {
		if strings.Contains(declared, typed) {
			return false
		}
	}
	return declared == "" || declared == "ANY" || strings.Contains(declared, "BLOB")
}

var errNotBytes = errors.New("a column of sealed values holds bytes: BYTEA in PostgreSQL")

// readTypes finds out what PostgreSQL must be told about parameters, and that all
// columns are there.
func (r *Rows) readTypes(ctx context.Context, names []string) error {
	if r.db.Dialect == sqldb.SQLite {
		schema, table, qualified := strings.Cut(r.layout.Table, ".")
		if !qualified {
			schema, table = "main", schema
		}
		known, err := r.strings(ctx, `SELECT name FROM pragma_table_info($1, $2)`, table, schema)
		if err != nil {
			return err
		}
		for _, name := range names { // SQLite would take a quoted name that is no column for a text
			if !slices.Contains(known, name) {
				return fmt.Errorf("no column %q", name)
			}
		}
		declared, err := r.strings(ctx, `SELECT UPPER(type) FROM pragma_table_info($1, $2) WHERE name = $3`, table, schema, r.layout.Tenant)
		r.untyped = len(declared) > 0 && untyped(declared[0])
		return err
	}
	r.types = make(map[string]string, len(names))
	for _, name := range names {
		// Of any length: without -1 CHAR(36) is "character", which a cast takes for one character.
		found, err := r.strings(ctx, `SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = $1::regclass AND attname = $2 AND attnum > 0 AND NOT attisdropped`, r.table, name)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("no column %q", name)
		}
		r.types[name] = found[0]
	}
	for _, c := range r.columns {
		if !c.legacy && r.types[c.name] != "bytea" {
			return fmt.Errorf("%q: %w", c.name, errNotBytes)
		}
	}
	return nil
}

func (r *Rows) strings(ctx context.Context, query string, args ...any) (found []string, err error) {
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	return found, rows.Err()
}

// asText and asBytes read any column as what encrypt.Row has.
func (r *Rows) asText(name string) string { return `CAST(` + q(name) + ` AS TEXT)` }

func (r *Rows) asBytes(c column) string {
	switch {
	case r.db.Dialect == sqldb.SQLite:
		return `CAST(` + q(c.name) + ` AS BLOB)` // its columns hold values of any type
	case r.types[c.name] == "bytea":
		return q(c.name)
	}
	return r.asText(c.name)
}

// as is a parameter of the type of a column.
func (r *Rows) as(parameter int, name string) string {
	if r.db.Dialect == sqldb.SQLite {
		return fmt.Sprintf(`$%d`, parameter)
	}
	return fmt.Sprintf(`CAST($%d AS %s)`, parameter, r.types[name])
}

// findable says whether a row is found by its record as a text, as all jobs do. In SQLite a number
// in a column without a type is not, nor are bytes in any; a page after it would be any other. The
// plus takes from the text what it would be converted by.
func (r *Rows) findable(record string) string {
	if r.db.Dialect == sqldb.SQLite {
		return q(r.layout.Record) + ` IS +` + record
	}
	return `TRUE`
}

var (
	errUnfindable = errors.New("is no text or number that its column's type tells: declare the column INTEGER or TEXT")
	errNameless   = errors.New("a row has no record: its column is NULL")
)

// selection is all of the query that reads rows but what comes after its first condition.
func (r *Rows) selection() string {
	record := r.asText(r.layout.Record)
	read := []string{record, r.findable(record), `COALESCE(` + r.asText(r.layout.Client) + `, '')`}
	for _, c := range r.columns {
		read = append(read, r.asBytes(c))
	}
	return `SELECT ` + strings.Join(read, `, `) + ` FROM ` + r.table + ` AS t WHERE ` + r.mine()
}

// mine is the condition that rows belong to the tenant, which is the first parameter.
func (r *Rows) mine() string {
	if r.layout.Tenant == "" {
		return `CAST($1 AS TEXT) <> ''`
	}
	if r.untyped {
		return r.asText(r.layout.Tenant) + ` = $1`
	}
	return q(r.layout.Tenant) + ` = ` + r.as(1, r.layout.Tenant)
}

// Page implements encrypt.Rows.
func (r *Rows) Page(ctx context.Context, tenant, after string, limit int) ([]encrypt.Row, error) {
	query, args := r.page, []any{tenant}
	record := `t.` + q(r.layout.Record) // not the text that the query returns under the same name

	// NULL comes first on SQLite, and on PostgreSQL after the last page.
	if after == "" && r.db.Dialect == sqldb.Postgres {
		nameless, err := r.strings(ctx, `SELECT 'NULL' FROM `+r.table+` AS t WHERE `+r.mine()+` AND `+record+` IS NULL LIMIT 1`, tenant)
		if err == nil && len(nameless) > 0 {
			err = errNameless
		}
		if err != nil {
			return nil, fmt.Errorf("encryptsql: read rows: %w", err)
		}
	}
	if after != "" {
		query += ` AND ` + record + ` > ` + r.as(2, r.layout.Record)
		args = append(args, after)
	}
	found, err := r.read(ctx, query+fmt.Sprintf(` ORDER BY %s LIMIT %d`, record, limit), args)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: read rows: %w", err)
	}
	return found, nil
}

// Get implements encrypt.Rows. What is no id in the column's type has no row, nor has what the
// database only takes for one, such as 01 for 1: the index, from which jobs have ids, can hold
// anything that somebody has put there.
func (r *Rows) Get(ctx context.Context, tenant string, records []string) ([]encrypt.Row, error) {
	var rows []encrypt.Row
	for part := range slices.Chunk(records, chunk) {
		found, err := r.get(ctx, tenant, part)
		if err != nil {
			return nil, fmt.Errorf("encryptsql: read rows: %w", err)
		}
		rows = append(rows, found...)
	}
	asked := make(map[string]bool, len(records))
	for _, record := range records {
		asked[record] = true
	}
	return slices.DeleteFunc(rows, func(row encrypt.Row) bool {
		mine := asked[row.Record]
		delete(asked, row.Record) // "01", "1" and " 1" in three queries find it three times
		return !mine
	}), nil
}

// get halves records among which there is one that PostgreSQL does not read as an id: compared as
// texts, all of them would be looked for without the table's index.
func (r *Rows) get(ctx context.Context, tenant string, records []string) ([]encrypt.Row, error) {
	args := []any{tenant}
	wanted := make([]string, len(records))
	for i, record := range records {
		wanted[i] = r.as(2+i, r.layout.Record)
		args = append(args, record)
	}
	found, err := r.read(ctx, r.page+` AND `+q(r.layout.Record)+` IN (`+strings.Join(wanted, `, `)+`)`, args)
	if !sqldb.DataException(err) {
		return found, err
	}
	if len(records) == 1 {
		return nil, nil
	}
	if found, err = r.get(ctx, tenant, records[:len(records)/2]); err != nil {
		return nil, err
	}
	more, err := r.get(ctx, tenant, records[len(records)/2:])
	return append(found, more...), err
}

func (r *Rows) read(ctx context.Context, query string, args []any) (list []encrypt.Row, err error) {
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	values := make([]any, len(r.columns))
	var row encrypt.Row
	var record sql.NullString
	var findable bool
	into := []any{&record, &findable, &row.Client}
	for i := range values {
		into = append(into, &values[i])
	}
	for rows.Next() {
		row = encrypt.Row{Sealed: make(map[string][]byte, len(r.layout.Sealed))}
		if len(r.layout.Legacy) > 0 {
			row.Legacy = make(map[string][]byte, len(r.layout.Legacy))
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		switch row.Record = record.String; {
		case !record.Valid:
			return nil, errNameless
		case !findable:
			return nil, fmt.Errorf("%s %q %w", r.layout.Record, row.Record, errUnfindable)
		}
		for i, c := range r.columns {
			value, err := bytesOf(values[i])
			if err != nil {
				return nil, err
			}
			if c.legacy {
				row.Legacy[c.field] = value
			} else {
				row.Sealed[c.field] = value
			}
		}
		list = append(list, row)
	}
	return list, rows.Err()
}

// bytesOf tells NULL from an empty value, for which drivers return nil too.
func bytesOf(value any) ([]byte, error) {
	switch value := value.(type) {
	case nil:
		return nil, nil
	case []byte:
		return append([]byte{}, value...), nil
	case string:
		return []byte(value), nil
	}
	return nil, fmt.Errorf("a column is read as %T", value)
}
