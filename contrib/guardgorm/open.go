package guardgorm

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

func (w *watcher) beforeRead(db *gorm.DB) {
	if db.Error == nil {
		t, err := w.table(db.Statement)
		if err == nil {
			err = w.prepare(db.Statement, t)
		}
		_ = db.AddError(err)
	}
	refuseSubquery(db)
}

func (w *watcher) afterQuery(db *gorm.DB) {
	if db.Error == nil && !db.DryRun {
		_ = db.AddError(w.open(db))
	}
	refuseSubquery(db)
}

// refused is a syntax error wherever it stands, because no database takes SELECT for a
// name. No word of it begins a comment or ends a statement.
const refused = "SELECT SELECT refused_by_guardgorm"

// refuseSubquery makes the statement around a refused subquery fail. Subqueries are dry
// runs, whose errors gorm drops: of NOT IN (…) there would be NOT IN (), which SQLite
// takes for every row.
func refuseSubquery(db *gorm.DB) {
	if db.Error != nil && db.DryRun {
		db.Statement.SQL.Reset()
		db.Statement.SQL.WriteString(refused)
	}
}

// returned opens rows that came back by a RETURNING clause.
func (w *watcher) returned(db *gorm.DB) error {
	if _, ok := db.Statement.Clauses["RETURNING"]; !ok {
		return nil
	}
	return w.open(db)
}

// open opens the rows of a statement, and those joined to them.
func (w *watcher) open(db *gorm.DB) error {
	stmt := db.Statement
	b := newBatches(w.plugin)
	rows := b.structs(stmt.ReflectValue)
	if len(rows) == 0 {
		return nil
	}
	for _, row := range rows {
		b.add(row)
	}
	if b.models[rows[0].Type()] == nil {
		if err := w.checkUnknown(rows[0].Type()); err != nil {
			return err
		}
	}
	if len(stmt.Joins) > 0 {
		s, err := w.schemaOf(db, rows[0].Type())
		if err != nil {
			return err
		}
		for _, join := range stmt.Joins {
			for _, row := range rows {
				b.addJoined(stmt.Context, s, row, strings.Split(join.Name, "."))
			}
		}
	}
	return b.open(stmt.Context)
}

func (w *watcher) schemaOf(db *gorm.DB, t reflect.Type) (*schema.Schema, error) {
	if s := db.Statement.Schema; s != nil && s.ModelType == t {
		return s, nil
	}
	other := &gorm.Statement{DB: db}
	err := other.Parse(reflect.New(t).Interface())
	return other.Schema, err
}

// batches are the rows of a query, by their model.
type batches struct {
	models map[reflect.Type]*model
	order  []*model
	rows   map[*model][]reflect.Value
	seen   map[any]bool // pointers to joined rows
}

func newBatches(p *Plugin) *batches {
	return &batches{models: p.models, rows: make(map[*model][]reflect.Value), seen: make(map[any]bool)}
}

// structs returns the structs that a destination points to.
func (b *batches) structs(v reflect.Value) (rows []reflect.Value) {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		if v.CanAddr() {
			rows = append(rows, v)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if row := reflect.Indirect(v.Index(i)); row.Kind() == reflect.Struct && row.CanAddr() {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// addAll adds rows that must have a model.
func (b *batches) addAll(v reflect.Value) error {
	for _, row := range b.structs(v) {
		if b.models[row.Type()] == nil {
			return fmt.Errorf("guardgorm: no kind was given for %v", row.Type())
		}
		b.add(row)
	}
	return nil
}

// add adds a row, if it has a model.
func (b *batches) add(row reflect.Value) {
	m := b.models[row.Type()]
	if m == nil {
		return
	}
	if b.rows[m] == nil {
		b.order = append(b.order, m)
	}
	b.rows[m] = append(b.rows[m], row)
}

// addJoined adds what a row holds on a path of relations.
func (b *batches) addJoined(ctx context.Context, s *schema.Schema, row reflect.Value, path []string) {
	for _, name := range path {
		relation := s.Relationships.Relations[name]
		if relation == nil {
			return // SQL text
		}
		row = reflect.Indirect(relation.Field.ReflectValueOf(ctx, row))
		if row.Kind() != reflect.Struct {
			return // nothing was joined
		}
		s = relation.FieldSchema
		if p := row.Addr().Interface(); !b.seen[p] {
			b.seen[p] = true
			b.add(row)
		}
	}
}

// open opens each model's rows in one batch, and tells rows whether they were erased.
func (b *batches) open(ctx context.Context) error {
	var failed encrypt.RowErrors
	for _, m := range b.order {
		err := m.open(ctx, b.rows[m])
		rows, ok := errors.AsType[encrypt.RowErrors](err)
		if err != nil && !ok {
			return err
		}
		failed = append(failed, rows...)
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}

func (m *model) open(ctx context.Context, rows []reflect.Value) error {
	var sealed []any
	var at []int
	for i, row := range rows {
		some := false
		for j := range m.fields {
			some = some || !m.fields[j].empty(row)
			m.fields[j].plainOf(row).SetZero() // nothing that was there before passes for what was read
		}
		if some {
			sealed, at = append(sealed, row.Addr().Interface()), append(at, i)
		}
		setErased(row, false)
	}
	if len(sealed) == 0 {
		return nil // of a Select of other columns, say
	}
	tenant, err := tenantOf(ctx)
	if err != nil {
		return err
	}
	err = m.Open(ctx, tenant, sealed...)
	errs, ok := errors.AsType[encrypt.RowErrors](err)
	if !ok {
		if err != nil {
			return fmt.Errorf("guardgorm: %s: %w", m.kind, err)
		}
		return nil
	}
	var failed encrypt.RowErrors
	for _, e := range errs {
		e.Row = at[e.Row]
		if !errors.Is(e.Err, crmguard.ErrErased) || !setErased(rows[e.Row], true) {
			failed = append(failed, e)
		}
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}

func setErased(row reflect.Value, erased bool) bool {
	e, ok := reflect.TypeAssert[Erasable](row.Addr())
	if ok {
		e.SetErased(erased)
	}
	return ok
}
