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
	if c.plain {
		return row.Plain[c.field]
	}
	return row.Sealed[c.field]
}

func now(change *encrypt.Change, c column) (value []byte, changed bool) {
	values := change.Sealed
	if c.plain {
		values = change.Plain
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

// swapOnPostgres locks the rows that are as they were, skipping those that others have locked, and then writes
// them: two statements, however many rows.
func (r *Rows) swapOnPostgres(ctx context.Context, tx *sql.Tx, tenant string, changes []encrypt.Change) (map[string]bool, error) {
	swapped := make(map[string]bool, len(changes))
	for part := range slices.Chunk(changes, maxParameters/(len(r.columns)+3)) {
		locked, err := r.lock(ctx, tx, tenant, part)
		if err != nil {
			return nil, err
		}
		if err := r.write(ctx, tx, tenant, part, locked); err != nil {
			return nil, err
		}
		for record := range locked {
			swapped[record] = true
		}
	}
	return swapped, nil
}

func (r *Rows) lock(ctx context.Context, tx *sql.Tx, tenant string, changes []encrypt.Change) (locked map[string]bool, err error) {
	v := values{args: []any{tenant}}
	same := `COALESCE(t.` + q(r.layout.Client) + `::text, '') = v.client`
	names := []string{`record`, `client`}
	for i, c := range r.columns {
		name := fmt.Sprintf(`w%d`, i)
		names = append(names, name)
		column := `t.` + q(c.name)
		if c.plain && r.types[c.name] != "bytea" { // json has no equality, citext a loose one
			column += `::text`
		}
		same += ` AND ` + column + ` IS NOT DISTINCT FROM v.` + name
	}
	for i := range changes {
		row := &changes[i].Was
		v.begin()
		v.add(row.Record, r.types[r.layout.Record])
		v.add(row.Client, `text`)
		for _, c := range r.columns {
			r.addValue(&v, c, was(row, c))
		}
	}
	rows, err := tx.QueryContext(ctx, `SELECT t.`+q(r.layout.Record)+`::text FROM `+r.table+` AS t JOIN (VALUES `+v.String()+`) AS v (`+strings.Join(names, `, `)+`)
		ON t.`+q(r.layout.Record)+` = v.record WHERE `+r.mineOfT()+` AND `+same+` FOR NO KEY UPDATE OF t SKIP LOCKED`, v.args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	locked = make(map[string]bool, len(changes))
	for rows.Next() {
		var record string
		if err := rows.Scan(&record); err != nil {
			return nil, err
		}
		locked[record] = true
	}
	return locked, rows.Err()
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

// write changes the columns of locked rows that have new values in any of them.
func (r *Rows) write(ctx context.Context, tx *sql.Tx, tenant string, changes []encrypt.Change, locked map[string]bool) error {
	var written []column
	for _, c := range r.columns {
		if slices.ContainsFunc(changes, func(change encrypt.Change) bool { _, changed := now(&change, c); return changed }) {
			written = append(written, c)
		}
	}
	if len(written) == 0 || len(locked) == 0 {
		return nil
	}
	v := values{args: []any{tenant}}
	names, sets := []string{`record`}, make([]string, len(written))
	for i, c := range written {
		name := fmt.Sprintf(`n%d`, i)
		names = append(names, name)
		sets[i] = q(c.name) + ` = v.` + name
		if t := r.types[c.name]; t != "bytea" {
			sets[i] = q(c.name) + ` = CAST(v.` + name + ` AS ` + t + `)`
		}
	}
	for i := range changes {
		change := &changes[i]
		if !locked[change.Was.Record] {
			continue
		}
		v.begin()
		v.add(change.Was.Record, r.types[r.layout.Record])
		for _, c := range written {
			value, changed := now(change, c)
			if !changed {
				value = was(&change.Was, c)
			}
			r.addValue(&v, c, value)
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE `+r.table+` AS t SET `+strings.Join(sets, `, `)+` FROM (VALUES `+v.String()+`) AS v (`+strings.Join(names, `, `)+`)
		WHERE `+r.mineOfT()+` AND t.`+q(r.layout.Record)+` = v.record`, v.args...)
	return err
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
	same := ` AND ` + q(r.layout.Record) + ` = $2 AND COALESCE(` + r.asText(r.layout.Client) + `, '') = $3`
	for _, c := range r.columns {
		args = append(args, null(was(&change.Was, c)))
		same += fmt.Sprintf(` AND %s IS $%d`, r.asBytes(c), len(args))
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
	return `UPDATE ` + r.table + ` SET ` + strings.Join(sets, `, `) + ` WHERE ` + r.mine() + same, args
}
