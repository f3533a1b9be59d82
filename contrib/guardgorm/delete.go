package guardgorm

import (
	"errors"
	"reflect"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/schema"
)

func (w *watcher) beforeDelete(db *gorm.DB) {
	if db.Error == nil {
		_ = db.AddError(w.delete(db))
	}
}

func (w *watcher) delete(db *gorm.DB) error {
	stmt := db.Statement
	t, err := w.table(stmt)
	if err != nil {
		return err
	}
	if err := w.prepare(stmt, t); err != nil || t == nil {
		return err
	}
	soft := len(t.schema.DeleteClauses) > 0 && !stmt.Unscoped
	if t.index == nil || soft || db.DryRun {
		return nil
	}
	if err := t.checkTransaction(db); err != nil {
		return err
	}
	records, err := t.deleted(db)
	if err != nil {
		return err
	}
	(&write{table: t, records: records}).begin(stmt)
	return nil
}

// deleted returns the records that gorm will delete: by the conditions, and by the primary
// keys of what it was given. They are locked: nobody else deletes them, so those that are gone
// afterwards can be counted.
func (t *table) deleted(db *gorm.DB) (records []string, err error) {
	stmt := db.Statement
	query := t.query(db).Clauses(clause.Locking{Strength: clause.LockingStrengthUpdate})
	conditions := db.AllowGlobalUpdate
	if where, ok := stmt.Clauses["WHERE"].Expression.(clause.Where); ok && len(where.Exprs) > 0 {
		query, conditions = query.Where(clause.And(where.Exprs...)), true
	}
	byKey := func(v reflect.Value) {
		_, keys := schema.GetIdentityFieldValuesMap(stmt.Context, v, t.schema.PrimaryFields)
		if column, values := schema.ToQueryValues(stmt.Table, t.schema.PrimaryFieldDBNames, keys); len(values) > 0 {
			query, conditions = query.Where(clause.IN{Column: column, Values: values}), true
		}
	}
	byKey(stmt.ReflectValue)
	if stmt.ReflectValue.CanAddr() && stmt.Dest != stmt.Model && stmt.Model != nil {
		byKey(reflect.ValueOf(stmt.Model))
	}
	if !conditions {
		return nil, nil // gorm refuses it
	}
	return records, query.Pluck(t.idCol.DBName, &records).Error
}

// gone leaves out records that are still there: a condition may be about other tables, which are not
// locked, and a trigger or a policy of the database may keep rows.
func (t *table) gone(db *gorm.DB, records []string) ([]string, error) {
	kept := make(map[string]bool)
	for part := range slices.Chunk(records, 500) {
		var there []string
		if err := t.query(db).Where(map[string]any{t.idCol.DBName: part}).Pluck(t.idCol.DBName, &there).Error; err != nil {
			return nil, err
		}
		for _, record := range there {
			kept[record] = true
		}
	}
	return slices.DeleteFunc(records, func(record string) bool { return kept[record] }), nil
}

var errMoreDeleted = errors.New("guardgorm: rows came to fit the conditions while they were deleted, and their index entries would stay: roll back and delete again")

func (w *watcher) afterDelete(db *gorm.DB) {
	done := taken(db.Statement)
	if db.Error != nil || db.DryRun {
		return
	}
	if done != nil {
		gone, err := done.table.gone(db, done.records)
		if err == nil && db.RowsAffected > int64(len(gone)) {
			err = errMoreDeleted
		}
		if err == nil {
			err = w.putAll(db, done.table, gone, nil)
		}
		if err != nil {
			_ = db.AddError(err)
			return
		}
	}
	_ = db.AddError(w.returned(db))
}
