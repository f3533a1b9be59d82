package guardgorm

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/callbacks"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/schema"
)

func (w *watcher) beforeUpdate(db *gorm.DB) {
	if db.Error == nil {
		_ = db.AddError(w.update(db))
	}
}

func (w *watcher) update(db *gorm.DB) error {
	stmt := db.Statement
	t, err := w.written(stmt)
	if err != nil || t == nil {
		return err
	}
	if c, ok := stmt.Clauses["SET"]; ok {
		return t.checkSet(c)
	}
	dest := reflect.ValueOf(stmt.Dest)
	for dest.Kind() == reflect.Pointer {
		dest = dest.Elem()
	}
	change := &write{table: t}
	switch {
	case dest.Kind() == reflect.Map:
		err = t.updateMap(db, change, dest)
	case dest.Kind() == reflect.Struct && dest.Type() == t.typ:
		err = t.updateStruct(db, change, dest)
	case dest.Kind() == reflect.Struct:
		return t.checkOther(db, dest)
	}
	if err != nil {
		if change.finish != nil {
			change.finish(false)
		}
		return err
	}
	if change.finish != nil {
		change.begin(stmt)
	}
	return nil
}

// checkSet refuses columns that an expression would write past the plugin.
func (t *table) checkSet(c clause.Clause) error {
	set, ok := c.Expression.(clause.Set)
	if !ok {
		return fmt.Errorf("guardgorm: %s: SET of type %T is unknown", t.kind, c.Expression)
	}
	for _, a := range set {
		if f, _ := t.meant(a.Column.Name); f != nil {
			return fmt.Errorf("guardgorm: %s: sealed field %q is written by Updates, Update or Save", t.kind, f.Name)
		}
		if id := t.idNamed(a.Column.Name); id != nil {
			return t.errMoved(id.DBName)
		}
	}
	return nil
}

func (t *table) errMoved(column string) error {
	return fmt.Errorf("guardgorm: %s: sealed values are bound to %s: load the row, change it and Save it", t.kind, column)
}

// updateMap replaces plain values in a map by sealed ones, in a copy.
func (t *table) updateMap(db *gorm.DB, change *write, dest reflect.Value) error {
	stmt := db.Statement
	original, ok := reflect.TypeAssert[map[string]any](dest)
	if !ok {
		return nil // gorm refuses it
	}
	columns, restricted := stmt.SelectAndOmitColumns(false, true)
	given := make(map[*field]any)
	row := stmt.ReflectValue
	changed := maps.Clone(original)
	for name, value := range original {
		f, column := t.meant(name)
		if f != nil && column == nil {
			delete(changed, name)
			if chosen, ok := columns[f.sealed.DBName]; chosen || !ok && !restricted {
				if _, twice := given[f]; twice {
					return fmt.Errorf("guardgorm: %s: %q is in the map twice", t.kind, f.Name)
				}
				given[f] = value
			}
			continue
		}
		if f != nil {
			return fmt.Errorf("guardgorm: %s: column %q is written by sealing: name the plain field", t.kind, name)
		}
		if id := t.idNamed(name); id != nil && !t.same(row, id.StructField.Index, value) {
			return t.errMoved(id.DBName)
		}
	}
	change.finish = func(bool) { stmt.Dest = original }
	stmt.Dest = changed
	if len(given) == 0 {
		return nil
	}
	scratch := reflect.New(t.typ).Elem()
	for _, f := range t.pairs {
		value, ok := given[f]
		if !ok {
			continue
		}
		if isSQL(value) || f.plain.Set(stmt.Context, scratch, value) != nil { // whose text may quote the value
			return fmt.Errorf("guardgorm: %s: a %T is no value of field %q", t.kind, value, f.Name)
		}
		change.fields = append(change.fields, f)
	}
	if err := t.sealFor(db, change, row, scratch); err != nil {
		return err
	}
	for _, f := range change.fields {
		changed[f.sealed.DBName] = any(nil)
		if sealed := f.sealedOf(scratch).Bytes(); sealed != nil {
			changed[f.sealed.DBName] = sealed
		}
		if f.old != nil {
			changed[f.old.DBName] = any(nil)
		}
	}
	change.finish = func(done bool) {
		stmt.Dest = original
		for _, f := range change.fields {
			if done && row.CanAddr() { // as gorm sets the other columns
				f.plainOf(row).Set(f.plainOf(scratch))
			}
		}
	}
	t.narrow(stmt, row, t.ownClient())
	return nil
}

// isSQL reports whether the database would compute a value.
func isSQL(value any) bool {
	switch value.(type) {
	case clause.Expression, *gorm.DB, gorm.Valuer:
		return true
	}
	return false
}

// same says whether an id is set to what it is.
func (t *table) same(row reflect.Value, index []int, value any) bool {
	if row.Kind() != reflect.Struct {
		return false
	}
	id := row.FieldByIndex(index).String()
	v := reflect.ValueOf(value)
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	return id != "" && v.Kind() == reflect.String && v.String() == id
}

// updateStruct seals those plain fields of a struct that gorm would update if they were
// columns: the named ones and, of the others, those that are not empty.
func (t *table) updateStruct(db *gorm.DB, change *write, dest reflect.Value) error {
	stmt := db.Statement
	row, original := stmt.ReflectValue, stmt.Dest
	inPlace := dest.CanAddr() && row.Kind() == reflect.Struct && row.CanAddr() && row.Type() == t.typ && dest.Addr().Pointer() == row.Addr().Pointer()
	if !inPlace {
		for _, id := range [][]int{t.record, t.client} {
			if value := dest.FieldByIndex(id); value.String() != "" && !t.same(row, id, value.Interface()) {
				return t.errMoved(fieldAt(t.schema, id).DBName)
			}
		}
		copied := reflect.New(t.typ)
		copied.Elem().Set(dest)
		dest, stmt.Dest = copied.Elem(), copied.Interface()
	}
	named, open := t.selected(stmt, false)
	change.fields = named
	for _, f := range open {
		if !f.plainOf(dest).IsZero() {
			change.fields = append(change.fields, f)
		}
	}
	before := reflect.New(t.typ).Elem()
	before.Set(dest)
	for _, f := range t.pairs { // what is not sealed now is not written
		f.sealedOf(dest).SetZero()
		f.dropLegacy(dest)
	}
	change.finish = func(done bool) {
		stmt.Dest = original
		for _, f := range t.pairs {
			switch changed := slices.Contains(change.fields, f); {
			case inPlace && (!done || !changed):
				f.sealedOf(dest).Set(f.sealedOf(before))
				if f.Legacy != nil {
					dest.FieldByIndex(f.Legacy).Set(before.FieldByIndex(f.Legacy))
				}
			case !inPlace && done && changed && row.CanAddr(): // as gorm sets the other columns
				f.plainOf(row).Set(f.plainOf(dest))
			}
		}
	}
	all := len(change.fields) == len(t.pairs)
	columns, restricted := stmt.SelectAndOmitColumns(false, true)
	chosen, ok := columns[t.clientCol.DBName]
	setsClient := inPlace && t.ownClient() && (ok && chosen || !ok && !restricted)
	if len(change.fields) == 0 {
		if setsClient && t.recordOf(row) != "" {
			t.narrow(stmt, row, t.clientOf(row) != "")
		}
		return nil
	}
	scratch := reflect.New(t.typ).Elem()
	for _, f := range change.fields {
		f.plainOf(scratch).Set(f.plainOf(dest))
	}
	if err := t.sealFor(db, change, row, scratch); err != nil {
		return err
	}
	for _, f := range change.fields {
		f.sealedOf(dest).Set(f.sealedOf(scratch))
	}
	t.narrow(stmt, row, t.ownClient() && (!setsClient || !all))
	t.clearLegacy(stmt, change)
	return nil
}

// clearLegacy has the columns of plaintext emptied that gorm, which leaves empty values out,
// would leave as they are.
func (t *table) clearLegacy(stmt *gorm.Statement, change *write) {
	if !slices.ContainsFunc(change.fields, func(f *field) bool { return f.old != nil }) {
		return
	}
	set := callbacks.ConvertToAssignments(stmt)
	for _, f := range change.fields {
		if f.old != nil && !slices.ContainsFunc(set, func(a clause.Assignment) bool { return a.Column.Name == f.old.DBName }) {
			set = append(set, clause.Assignment{Column: clause.Column{Name: f.old.DBName}})
		}
	}
	stmt.AddClause(set)
	finish := change.finish
	change.finish = func(done bool) {
		delete(stmt.Clauses, "SET")
		finish(done)
	}
}

// sealFor seals the fields of scratch for the record that the statement's model names.
func (t *table) sealFor(db *gorm.DB, change *write, row, scratch reflect.Value) error {
	if err := t.checkTransaction(db); err != nil {
		return err
	}
	if row.Kind() != reflect.Struct || row.Type() != t.typ {
		return fmt.Errorf("guardgorm: %s: sealed fields are updated in one record at a time: Model(&row)", t.kind)
	}
	scratch.FieldByIndex(t.record).SetString(t.recordOf(row))
	scratch.FieldByIndex(t.client).SetString(t.clientOf(row))
	entries, err := t.seal(db.Statement.Context, change.fields, []reflect.Value{scratch})
	change.entries = entries
	return err
}

// narrow makes an update touch the one record, and only while it is its client's.
func (t *table) narrow(stmt *gorm.Statement, row reflect.Value, client bool) {
	if where, ok := stmt.Clauses["WHERE"].Expression.(clause.Where); ok && len(where.Exprs) > 0 {
		c := stmt.Clauses["WHERE"]
		c.Expression = clause.Where{Exprs: []clause.Expression{clause.And(where.Exprs...)}} // "a OR b" stays inside
		stmt.Clauses["WHERE"] = c
	}
	exprs := []clause.Expression{clause.Eq{Column: clause.Column{Table: clause.CurrentTable, Name: t.idCol.DBName}, Value: t.recordOf(row)}}
	if client {
		exprs = append(exprs, clause.Eq{Column: clause.Column{Table: clause.CurrentTable, Name: t.clientCol.DBName}, Value: t.clientOf(row)})
	}
	stmt.AddClause(clause.Where{Exprs: exprs})
}

// checkOther refuses sealed fields in structs of another type, which gorm matches by columns.
func (t *table) checkOther(db *gorm.DB, dest reflect.Value) error {
	other := &gorm.Statement{DB: db}
	if err := other.Parse(db.Statement.Dest); err != nil {
		return err
	}
	columns, _ := db.Statement.SelectAndOmitColumns(false, true)
	for _, c := range other.Schema.Fields {
		f, _ := t.meant(c.DBName)
		if f == nil {
			f, _ = t.meant(c.Name)
		}
		if f == nil {
			continue
		}
		if _, empty := c.ValueOf(db.Statement.Context, dest); !empty || columns[c.DBName] {
			return fmt.Errorf("guardgorm: %s: sealed field %q is updated by a map or a %v, not by a %v", t.kind, f.Name, t.typ, dest.Type())
		}
	}
	for _, id := range []*schema.Field{t.idCol, t.clientCol} {
		if c := other.Schema.LookUpField(id.DBName); c != nil {
			if value, empty := c.ValueOf(db.Statement.Context, dest); !empty && !t.same(db.Statement.ReflectValue, id.StructField.Index, value) {
				return t.errMoved(id.DBName)
			}
		}
	}
	return nil
}

func (w *watcher) afterUpdate(db *gorm.DB) {
	change := taken(db.Statement)
	if change == nil {
		return
	}
	done := db.Error == nil && !db.DryRun
	change.finish(done)
	if !done {
		return
	}
	if db.RowsAffected > 0 {
		if err := w.put(db, change.table, change.entries); err != nil {
			_ = db.AddError(err)
			return
		}
	}
	_ = db.AddError(w.returned(db))
}
