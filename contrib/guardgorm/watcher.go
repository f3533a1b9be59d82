package guardgorm

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"gorm.io/gorm"

	"github.com/crmguard/crmguard/encrypt"
)

// watcher is the plugin in one database.
type watcher struct {
	plugin *Plugin
	byType map[reflect.Type]*table
	byName map[string][]*table // by the name in the database, in lower case
	tagged sync.Map            // reflect.Type → whether it has tags
}

// table returns the table of a statement's model; nil for models without sealed fields.
func (w *watcher) table(stmt *gorm.Statement) (*table, error) {
	if stmt.Schema == nil {
		return nil, nil
	}
	if t := w.byType[stmt.Schema.ModelType]; t != nil {
		return t, nil
	}
	return nil, w.checkUnknown(stmt.Schema.ModelType)
}

// written is [watcher.table] for a statement that writes rows, which it prepares. Without sealed
// fields in its model it is checked all the same.
func (w *watcher) written(stmt *gorm.Statement) (*table, error) {
	t, err := w.table(stmt)
	switch {
	case err != nil:
		return nil, err
	case t == nil:
		return nil, w.checkBypass(stmt)
	}
	return t, w.prepare(stmt, t)
}

// checkUnknown refuses structs whose tags would be overlooked.
func (w *watcher) checkUnknown(t reflect.Type) error {
	tagged, ok := w.tagged.Load(t)
	if !ok {
		tagged = hasTags(t)
		w.tagged.Store(t, tagged)
	}
	if tagged.(bool) {
		return fmt.Errorf("guardgorm: %v has fields to seal, but no kind was given for it", t)
	}
	return nil
}

func hasTags(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for _, f := range reflect.VisibleFields(t) {
		if tag, ok := f.Tag.Lookup("encrypt"); ok && tag != "-" {
			return true
		}
	}
	return false
}

// mapsOf returns the maps of a destination; none of a struct.
func mapsOf(dest any) []map[string]any {
	switch d := dest.(type) {
	case map[string]any:
		return []map[string]any{d}
	case *map[string]any:
		return []map[string]any{*d}
	case []map[string]any:
		return d
	case *[]map[string]any:
		return *d
	}
	return nil
}

// selected says which fields a statement writes: those chosen by name whatever they hold,
// and those not left out; what is written only if it is not empty is up to the caller.
func (t *table) selected(stmt *gorm.Statement, create bool) (named, open []*field) {
	columns, restricted := stmt.SelectAndOmitColumns(create, !create)
	for _, f := range t.pairs {
		switch chosen, ok := columns[f.sealed.DBName]; {
		case ok && chosen:
			named = append(named, f)
		case !ok && !restricted:
			open = append(open, f)
		}
	}
	return named, open
}

// write is a statement between sealing and its end.
type write struct {
	table   *table
	records []string
	fields  []*field
	entries encrypt.IndexEntries
	rows    []reflect.Value
	upsert  *upsert
	finish  func(done bool)
}

// pending is the key of a write in the settings of its own statement, which nested
// statements get copies of.
type pending struct{ stmt *gorm.Statement }

func (w *write) begin(stmt *gorm.Statement) { stmt.Settings.Store(pending{stmt}, w) }

func taken(stmt *gorm.Statement) *write {
	w, ok := stmt.Settings.LoadAndDelete(pending{stmt})
	if !ok {
		return nil
	}
	return w.(*write)
}

// checkTransaction refuses to write rows and their index entries apart.
func (t *table) checkTransaction(db *gorm.DB) error {
	if _, ok := db.Statement.ConnPool.(gorm.TxCommitter); t.index != nil && !ok {
		return fmt.Errorf("guardgorm: %s: rows and their index entries are written in one transaction: begin one, or do not set SkipDefaultTransaction", t.kind)
	}
	return nil
}

// put puts what [table.seal] returned.
func (w *watcher) put(db *gorm.DB, t *table, entries encrypt.IndexEntries) error {
	if t.index == nil || len(entries.Records) == 0 {
		return nil
	}
	if err := t.index.Put(db.Statement.Context, db.Statement.ConnPool, entries); err != nil {
		return fmt.Errorf("guardgorm: %s: %w", t.kind, err)
	}
	return nil
}

// putAll replaces all entries of records that are new or gone: a row that was deleted past the
// plugin has left some.
func (w *watcher) putAll(db *gorm.DB, t *table, records []string, entries []encrypt.IndexEntry) error {
	if t.index == nil || len(records) == 0 {
		return nil
	}
	tenant, err := tenantOf(db.Statement.Context)
	if err != nil {
		return err
	}
	return w.put(db, t, encrypt.IndexEntries{Tenant: tenant, Kind: t.kind, Records: records, Entries: entries})
}

var errMap = errors.New("guardgorm: sealed fields are created from structs, not from maps")

// query reads the statement's table inside its transaction.
func (t *table) query(db *gorm.DB) *gorm.DB {
	q := db.Session(&gorm.Session{NewDB: true, SkipHooks: true}).Unscoped().Model(reflect.New(t.typ).Interface())
	q.Statement.Table, q.Statement.TableExpr = db.Statement.Table, db.Statement.TableExpr
	return q
}
