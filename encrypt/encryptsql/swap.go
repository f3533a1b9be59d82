package encryptsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// Swap implements encrypt.Rows. Rows that somebody else has locked are stale on PostgreSQL; on
// SQLite, which locks all of a database, it waits.
func (r *Rows) Swap(ctx context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) ([]string, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	var stale []string
	err := r.db.Tx(ctx, func(tx *sql.Tx) error {
		stale = nil
		swap := r.swapOnPostgres
		if r.db.Dialect == sqldb.SQLite {
			swap = r.swapOnSQLite
		}
		swapped, err := swap(ctx, tx, tenant, changes)
		if err != nil {
			return err
		}
		records := make([]string, 0, len(swapped))
		for i := range changes {
			if record := changes[i].Was.Record; swapped[record] {
				records = append(records, record)
			} else {
				stale = append(stale, record)
			}
		}
		if then == nil || len(records) == 0 {
			return nil
		}
		return then(tx, records)
	})
	if err != nil {
		return nil, fmt.Errorf("encryptsql: change rows: %w", err)
	}
	return stale, nil
}

// was and now are a row's values before and after, in the order of columns.
func was(row *encrypt.Row, c column) []byte {
	if c.legacy {
		return row.Legacy[c.field]
	}
	return row.Sealed[c.field]
}

func now(change *encrypt.Change, c column) (value []byte, changed bool) {
	values := change.Sealed
	if c.legacy {
		values = change.Legacy
	}
	value, changed = values[c.field]
	return value, changed
}

// null makes NULL of nil, which drivers do not agree on.
func null(value []byte) any {
	if value == nil {
		return nil
	}
	return value
}

// maxParameters is below what PostgreSQL takes in a statement.
const maxParameters = 60_000

// swapOnPostgres locks the rows that are as they were, skipping those that others have
// locked, and writes them, in one statement however many rows there are.
func (r *Rows) swapOnPostgres(ctx context.Context, tx *sql.Tx, tenant string, changes []encrypt.Change) (map[string]bool, error) {
	swapped := make(map[string]bool, len(changes))
	for part := range slices.Chunk(changes, maxParameters/(2*len(r.columns)+3)) {
		query, args := r.updateOnPostgres(tenant, part)
		if err := collect(ctx, tx, query, args, swapped); err != nil {
			return nil, err
		}
	}
	return swapped, nil
}

func collect(ctx context.Context, tx *sql.Tx, query string, args []any, into map[string]bool) (err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var record string
		if err := rows.Scan(&record); err != nil {
			return err
		}
		into[record] = true
	}
	return rows.Err()
}

func (r *Rows) updateOnPostgres(tenant string, changes []encrypt.Change) (query string, args []any) {
	v := values{args: []any{tenant}}
	names, sets := []string{`record`, `client`}, []string{}
	conditions := []string{`t.` + q(r.layout.Record) + ` = v.record`, r.mineOfT(), `COALESCE(t.` + q(r.layout.Client) + `::text, '') = v.client`}
	var written []column
	for i, c := range r.columns {
		was := fmt.Sprintf(`w%d`, i)
		names = append(names, was)
		column := `t.` + q(c.name)
		if c.legacy && r.types[c.name] != "bytea" { // json has no equality, citext a loose one
			column += `::text`
		}
		conditions = append(conditions, column+` IS NOT DISTINCT FROM v.`+was)
		if slices.ContainsFunc(changes, func(change encrypt.Change) bool { _, changed := now(&change, c); return changed }) {
			written = append(written, c)
		}
	}
	for i, c := range written {
		now := fmt.Sprintf(`n%d`, i)
		names = append(names, now)
		set := q(c.name) + ` = v.` + now
		if t := r.types[c.name]; t != "bytea" {
			set = q(c.name) + ` = CAST(v.` + now + ` AS ` + t + `)`
		}
		sets = append(sets, set)
	}
	for i := range changes {
		row := &changes[i].Was
		v.begin()
		v.add(row.Record, r.types[r.layout.Record])
		v.add(row.Client, `text`)
		for _, c := range r.columns {
			r.addValue(&v, c, was(row, c))
		}
		for _, c := range written {
			value, changed := now(&changes[i], c)
			if !changed {
				value = was(row, c)
			}
			r.addValue(&v, c, value)
		}
	}
	id, same := `t.`+q(r.layout.Record), strings.Join(conditions, ` AND `)
	query = `WITH v (` + strings.Join(names, `, `) + `) AS (VALUES ` + v.String() + `),
		free AS (SELECT ` + id + ` AS record FROM ` + r.table + ` AS t JOIN v ON ` + same + ` FOR NO KEY UPDATE OF t SKIP LOCKED)
		`
	if len(sets) == 0 { // to lock them is all
		return query + `SELECT record::text FROM free`, v.args
	}
	// Somebody may have been faster with the row than the lock: what counts is what it is now.
	return query + `UPDATE ` + r.table + ` AS t SET ` + strings.Join(sets, `, `) + ` FROM v JOIN free ON free.record = v.record
		WHERE ` + same + ` RETURNING ` + id + `::text`, v.args
}

// mineOfT is mine where the table is t.
func (r *Rows) mineOfT() string {
	if r.layout.Tenant == "" {
		return r.mine()
	}
	return `t.` + r.mine()
}

// addValue adds a value of a column: texts as such.
func (r *Rows) addValue(v *values, c column, value []byte) {
	if r.types[c.name] == "bytea" {
		v.add(null(value), `bytea`)
		return
	}
	if value == nil {
		v.add(nil, `text`)
		return
	}
	v.add(string(value), `text`)
}

// values builds the list of VALUES, with the types in its first row.
type values struct {
	b     strings.Builder
	args  []any
	rows  int
	inRow int
}

func (v *values) begin() {
	if v.rows > 0 {
		v.b.WriteString(`), `)
	}
	v.b.WriteByte('(')
	v.rows, v.inRow = v.rows+1, 0
}

func (v *values) add(value any, typ string) {
	if v.inRow > 0 {
		v.b.WriteString(`, `)
	}
	v.inRow++
	v.args = append(v.args, value)
	if v.rows == 1 {
		fmt.Fprintf(&v.b, `CAST($%d AS %s)`, len(v.args), typ)
	} else {
		fmt.Fprintf(&v.b, `$%d`, len(v.args))
	}
}

func (v *values) String() string { return v.b.String() + `)` }

// swapOnSQLite changes row by row: there is no way to the server that it would spare.
func (r *Rows) swapOnSQLite(ctx context.Context, tx *sql.Tx, tenant string, changes []encrypt.Change) (swapped map[string]bool, err error) {
	swapped = make(map[string]bool, len(changes))
	statements := make(map[string]*sql.Stmt)
	defer func() {
		for _, statement := range statements {
			err = errors.Join(err, statement.Close())
		}
	}()
	for i := range changes {
		change := &changes[i]
		query, args := r.updateOnSQLite(tenant, change)
		statement := statements[query]
		if statement == nil {
			if statement, err = tx.PrepareContext(ctx, query); err != nil {
				return nil, err
			}
			statements[query] = statement
		}
		result, err := statement.ExecContext(ctx, args...)
		if err != nil {
			return nil, err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return nil, err
		}
		swapped[change.Was.Record] = n > 0
	}
	return swapped, nil
}

func (r *Rows) updateOnSQLite(tenant string, change *encrypt.Change) (query string, args []any) {
	args = []any{tenant, change.Was.Record, change.Was.Client}
	var sets []string
	same := []string{r.mine(), q(r.layout.Record) + ` = $2`, `COALESCE(` + r.asText(r.layout.Client) + `, '') = $3`}
	for _, c := range r.columns {
		args = append(args, null(was(&change.Was, c)))
		same = append(same, fmt.Sprintf(`%s IS $%d`, r.asBytes(c), len(args)))
	}
	for _, c := range r.columns {
		if value, changed := now(change, c); changed {
			args = append(args, null(value))
			sets = append(sets, fmt.Sprintf(`%s = $%d`, q(c.name), len(args)))
		}
	}
	if len(sets) == 0 { // to lock it is all
		sets = append(sets, q(r.layout.Record)+` = `+q(r.layout.Record))
	}
	return `UPDATE ` + r.table + ` SET ` + strings.Join(sets, `, `) + ` WHERE ` + strings.Join(same, ` AND `), args
}
