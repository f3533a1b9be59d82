package guardgorm

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

func (w *watcher) beforeCreate(db *gorm.DB) {
	if db.Error == nil {
		_ = db.AddError(w.create(db))
	}
}

func (w *watcher) create(db *gorm.DB) error {
	stmt := db.Statement
	t, err := w.written(stmt)
	if err != nil || t == nil {
		return err
	}
	if maps := mapsOf(stmt.Dest); maps != nil {
		return t.checkMaps(maps)
	}
	if err := t.checkTransaction(db); err != nil {
		return err
	}
	rows, err := t.rowsOf(stmt.ReflectValue)
	if err != nil {
		return err
	}
	named, open := t.selected(stmt, true)
	fields := slices.Concat(named, open) // in an INSERT empty values are values
	upsert, err := t.upsertOf(stmt, fields)
	if err != nil {
		return err
	}
	var entries encrypt.IndexEntries
	for {
		entries, err = t.seal(stmt.Context, fields, rows)
		i, ok := t.erasedAgain(err, rows, upsert)
		if !ok {
			break
		}
		rows = slices.Delete(rows, i, i+1)
	}
	if err != nil {
		return err
	}
	records := make([]string, len(rows))
	for i, row := range rows {
		records[i] = t.recordOf(row)
		for _, f := range t.pairs {
			f.dropLegacy(row)
		}
	}
	(&write{table: t, rows: rows, records: records, fields: fields, entries: entries, upsert: upsert}).begin(stmt)
	return nil
}

// checkMaps refuses sealed fields in maps that are inserted.
func (t *table) checkMaps(maps []map[string]any) error {
	for _, m := range maps {
		for name := range m {
			if f, _ := t.meant(name); f != nil {
				return errMap
			}
		}
	}
	return nil
}

// rowsOf returns the structs that a statement inserts.
func (t *table) rowsOf(v reflect.Value) ([]reflect.Value, error) {
	var rows []reflect.Value
	add := func(v reflect.Value) error {
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
			v = v.Elem()
		}
		if !v.IsValid() || v.Type() != t.typ || !v.CanAddr() {
			return fmt.Errorf("guardgorm: %s: rows are pointers to %v, or slices", t.kind, t.typ)
		}
		rows = append(rows, v)
		return nil
	}
	if v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return rows, add(v)
	}
	for i := range v.Len() {
		if err := add(v.Index(i)); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// erasedAgain is for associations: gorm inserts their rows anew and does nothing where
// they exist. One that was read after its client was erased has nothing to seal.
func (t *table) erasedAgain(err error, rows []reflect.Value, u *upsert) (row int, ok bool) {
	e, isRow := errors.AsType[*encrypt.RowError](err)
	if !isRow || !errors.Is(err, crmguard.ErrErased) || u == nil || len(u.sealed) > 0 || e.Row >= len(rows) {
		return 0, false
	}
	for _, f := range t.pairs {
		if !f.plainOf(rows[e.Row]).IsZero() {
			return 0, false
		}
	}
	for _, f := range t.pairs {
		f.sealedOf(rows[e.Row]).SetZero()
		f.dropLegacy(rows[e.Row])
	}
	return e.Row, true
}

// upsert is what an INSERT does with rows that exist.
type upsert struct {
	sealed  []*field // that it updates
	guarded bool     // rows of other clients stay as they are
}

// upsertOf refuses updates that would move sealed values to other records or clients.
func (t *table) upsertOf(stmt *gorm.Statement, fields []*field) (*upsert, error) {
	c, ok := stmt.Clauses["ON CONFLICT"]
	if !ok {
		return nil, nil
	}
	conflict, ok := c.Expression.(clause.OnConflict)
	if !ok {
		return nil, fmt.Errorf("guardgorm: %s: ON CONFLICT of type %T is unknown", t.kind, c.Expression)
	}
	u := &upsert{}
	movesRecord, movesClient := false, false
	if conflict.UpdateAll {
		columns, restricted := stmt.SelectAndOmitColumns(true, true)
		chosen, ok := columns[t.clientCol.DBName]
		u.sealed, movesClient = fields, ok && chosen || !ok && !restricted
	}
	updates := slices.Clone(conflict.DoUpdates)
	for i, a := range conflict.DoUpdates {
		name := a.Column.Name
		f, column := t.meant(name)
		if f != nil {
			if from, ok := a.Value.(clause.Column); !ok || from.Table != "excluded" || !slices.Contains(fields, f) || column != nil && column == f.old {
				return nil, fmt.Errorf("guardgorm: %s: an upsert takes sealed field %q from the row that it inserts", t.kind, name)
			}
			updates[i] = fromInserted(f.sealed.DBName)
			if f.old != nil { // empty in the row
				updates = append(updates, fromInserted(f.old.DBName))
			}
			u.sealed = append(u.sealed, f)
		}
		id := t.idNamed(name)
		movesRecord = movesRecord || id == t.idCol
		movesClient = movesClient || id == t.clientCol
	}
	conflict.DoUpdates = updates
	if !t.ownClient() {
		movesClient = false
	}
	if (len(u.sealed) > 0 || movesRecord || movesClient) && !t.onRecord(conflict) {
		return nil, fmt.Errorf("guardgorm: %s: sealed values are bound to the record: such an upsert is on a conflict of column %s", t.kind, t.idCol.DBName)
	}
	if t.ownClient() && (len(u.sealed) > 0 || movesClient) && (!movesClient || len(u.sealed) < len(t.pairs)) {
		u.guarded = true
		conflict.Where.Exprs = append(slices.Clone(conflict.Where.Exprs), clause.Eq{
			Column: clause.Column{Table: clause.CurrentTable, Name: t.clientCol.DBName}, Value: clause.Column{Table: "excluded", Name: t.clientCol.DBName},
		})
	}
	stmt.AddClause(conflict)
	return u, nil
}

func fromInserted(column string) clause.Assignment {
	return clause.Assignment{Column: clause.Column{Name: column}, Value: clause.Column{Table: "excluded", Name: column}}
}

// onRecord says whether rows in conflict are of the same record.
func (t *table) onRecord(c clause.OnConflict) bool {
	if c.OnConstraint != "" {
		return false
	}
	if len(c.Columns) == 0 && c.UpdateAll { // gorm takes the primary key
		return t.idCol.PrimaryKey
	}
	return slices.ContainsFunc(c.Columns, func(c clause.Column) bool { return c.Name == t.idCol.DBName })
}

func (w *watcher) afterCreate(db *gorm.DB) {
	if done := taken(db.Statement); done != nil && db.Error == nil && !db.DryRun {
		_ = db.AddError(w.created(db, done))
	}
}

func (w *watcher) created(db *gorm.DB, done *write) error {
	t := done.table
	if done.upsert == nil {
		return errors.Join(w.putAll(db, t, done.records, done.entries.Entries), w.returned(db))
	}
	if t.index == nil && !done.upsert.guarded {
		return w.returned(db)
	}
	stored, err := t.stored(db, done.records)
	if err != nil {
		return err
	}
	if done.upsert.guarded {
		for i, row := range done.rows {
			if client := stored[done.records[i]].client; client != t.clientOf(row) {
				return fmt.Errorf("guardgorm: %s: record %q is another client's: load it, change its client and Save it", t.kind, done.records[i])
			}
		}
	}
	for _, f := range done.fields {
		if !f.Indexed {
			continue
		}
		entries := done.entries
		entries.Records, entries.Fields = nil, []string{f.Name}
		for i, row := range done.rows {
			if slices.Equal(stored[done.records[i]].sealed[f.sealed.DBName], f.sealedOf(row).Bytes()) {
				entries.Records = append(entries.Records, done.records[i])
			}
		}
		entries.Entries = slices.DeleteFunc(slices.Clone(entries.Entries), func(e encrypt.IndexEntry) bool {
			return e.Field != f.Name || !slices.Contains(entries.Records, e.Record)
		})
		if err := w.put(db, t, entries); err != nil {
			return err
		}
	}
	return w.returned(db)
}

// storedRow is what a table holds after an upsert.
type storedRow struct {
	client string
	sealed map[string][]byte // by column
}

// stored reads back which values an upsert has stored: no two sealings of a value are equal.
func (t *table) stored(db *gorm.DB, records []string) (map[string]storedRow, error) {
	columns := []string{t.idCol.DBName, t.clientCol.DBName}
	for _, f := range t.pairs {
		columns = append(columns, f.sealed.DBName)
	}
	found := make(map[string]storedRow, len(records))
	for part := range slices.Chunk(records, 500) {
		rows, err := t.query(db).Select(columns).
			Where(clause.IN{Column: clause.Column{Name: t.idCol.DBName}, Values: values(part)}).Rows()
		if err != nil {
			return nil, fmt.Errorf("guardgorm: %s: read back: %w", t.kind, err)
		}
		for rows.Next() {
			var record, client string
			sealed := make([][]byte, len(t.pairs))
			into := []any{&record, &client}
			for i := range sealed {
				into = append(into, &sealed[i])
			}
			if err = rows.Scan(into...); err != nil {
				break
			}
			row := storedRow{client, make(map[string][]byte, len(t.pairs))}
			for i, f := range t.pairs {
				row.sealed[f.sealed.DBName] = sealed[i]
			}
			found[record] = row
		}
		if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return nil, fmt.Errorf("guardgorm: %s: read back: %w", t.kind, err)
		}
	}
	return found, nil
}

func values(records []string) []any {
	v := make([]any, len(records))
	for i, r := range records {
		v[i] = r
	}
	return v
}
