package guardgorm

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"github.com/crmguard/crmguard/encrypt"
)

// model is a struct with sealed fields.
type model struct {
	*encrypt.Model
	kind           string
	typ            reflect.Type
	record, client []int // reflect indexes
	fields         []modelField
	index          encrypt.Index // nil: no field has one
}

type modelField struct{ encrypt.ModelField }

func newModel(keys *encrypt.Keyring, kind string, t reflect.Type, o *encrypt.TableOptions) (*model, error) {
	sealer, err := encrypt.NewModel(keys, kind, t, o)
	if err != nil {
		return nil, fmt.Errorf("guardgorm: %w", err)
	}
	m := &model{Model: sealer, kind: kind, typ: t, index: sealer.Index()}
	m.record, m.client = sealer.IDs()
	for _, f := range sealer.Fields() {
		m.fields = append(m.fields, modelField{f})
	}
	return m, nil
}

// ownClient says whether a record and its client have different ids.
func (m *model) ownClient() bool { return !reflect.DeepEqual(m.record, m.client) }

func (m *model) recordOf(row reflect.Value) string { return row.FieldByIndex(m.record).String() }
func (m *model) clientOf(row reflect.Value) string { return row.FieldByIndex(m.client).String() }

// empty says whether nothing of a field was read or is to be written.
func (f *modelField) empty(row reflect.Value) bool {
	return f.sealedOf(row).IsNil() && (f.Legacy == nil || row.FieldByIndex(f.Legacy).IsZero())
}

// dropLegacy empties what is not to be stored any more.
func (f *modelField) dropLegacy(row reflect.Value) {
	if f.Legacy != nil {
		row.FieldByIndex(f.Legacy).SetZero()
	}
}

func (f *modelField) plainOf(row reflect.Value) reflect.Value  { return row.FieldByIndex(f.Plain) }
func (f *modelField) sealedOf(row reflect.Value) reflect.Value { return row.FieldByIndex(f.Sealed) }

// table is a model as one database has it.
type table struct {
	*model
	schema           *schema.Schema
	idCol, clientCol *schema.Field
	pairs            []*field
	names            map[string]*field // of plain fields
}

type field struct {
	*modelField
	plain, sealed *schema.Field
	old           *schema.Field // the column of plaintext; nil: none
}

func newTable(db *gorm.DB, m *model) (*table, error) {
	stmt := &gorm.Statement{DB: db}
	if err := stmt.Parse(reflect.New(m.typ).Interface()); err != nil {
		return nil, err
	}
	t := &table{model: m, schema: stmt.Schema, names: make(map[string]*field)}
	t.idCol, t.clientCol = fieldAt(stmt.Schema, m.record), fieldAt(stmt.Schema, m.client)
	for _, f := range []*schema.Field{t.idCol, t.clientCol} {
		if f == nil || f.DBName == "" || !f.Readable {
			return nil, errors.New("the ids of record and client are not columns")
		}
	}
	if !unique(stmt.Schema, t.idCol) {
		return nil, fmt.Errorf(`column %s, the record's id, is not unique by itself: statements find rows by it alone. Make it the primary key, or tag it gorm:"unique"`, t.idCol.DBName)
	}
	for i := range m.fields {
		f := &field{modelField: &m.fields[i]}
		f.plain, f.sealed = fieldAt(stmt.Schema, f.Plain), fieldAt(stmt.Schema, f.Sealed)
		if f.plain == nil || f.plain.DBName != "" {
			return nil, fmt.Errorf(`field %s would be stored as it is: tag it gorm:"-"`, m.typ.FieldByIndex(f.Plain).Name)
		}
		if s := f.sealed; s == nil || s.DBName == "" || !s.Readable || !s.Creatable || !s.Updatable || s.HasDefaultValue || s.Serializer != nil || s.PrimaryKey {
			return nil, fmt.Errorf("field %s is not an ordinary column", m.typ.FieldByIndex(f.Sealed).Name)
		}
		if f.Legacy != nil {
			if f.old = fieldAt(stmt.Schema, f.Legacy); f.old == nil || f.old.DBName == "" {
				return nil, fmt.Errorf("the plaintext of %q is not in a column", f.Name)
			}
		}
		t.pairs = append(t.pairs, f)
	}
	for _, f := range t.pairs {
		t.names[f.plain.Name] = f
		if other := stmt.Schema.LookUpField(f.Name); other == nil || other == f.plain || other == f.old { // else it is that column's name
			t.names[f.Name] = f
		}
		// Known to gorm, but without a column: conditions in structs would leave it out and
		// find anything. So they do not, and checkConditions refuses them; and attributes
		// of FirstOrCreate reach the row.
		f.plain.Readable, f.plain.DataType = true, "sealed"
		f.sealed.ValueOf = nullable(f.sealed.ValueOf)
	}
	return t, nil
}

// unique says whether no two rows of a table, whosever they are, have the same value in a column.
func unique(s *schema.Schema, column *schema.Field) bool {
	if column.Unique || column.PrimaryKey && len(s.PrimaryFields) == 1 {
		return true
	}
	return slices.ContainsFunc(s.ParseIndexes(), func(x *schema.Index) bool {
		return x.Class == "UNIQUE" && x.Where == "" && len(x.Fields) == 1 && x.Fields[0].Field == column && x.Fields[0].Expression == ""
	})
}

// nullable turns no bytes into NULL, which some drivers of SQLite do not.
func nullable(valueOf func(context.Context, reflect.Value) (any, bool)) func(context.Context, reflect.Value) (any, bool) {
	return func(ctx context.Context, row reflect.Value) (any, bool) {
		value, zero := valueOf(ctx, row)
		if b, ok := value.([]byte); ok && b == nil {
			return nil, zero
		}
		return value, zero
	}
}

// fieldAt returns what gorm knows of the field at a reflect index.
func fieldAt(s *schema.Schema, index []int) *schema.Field {
	for _, f := range s.Fields {
		if reflect.DeepEqual(f.StructField.Index, index) {
			return f
		}
	}
	return nil
}

// seal fills the sealed fields of rows, if there are any of both, and returns what to put.
func (t *table) seal(ctx context.Context, fields []*field, rows []reflect.Value) (none encrypt.IndexEntries, err error) {
	if len(fields) == 0 || len(rows) == 0 {
		return none, nil
	}
	tenant, err := tenantOf(ctx)
	if err != nil {
		return none, err
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	pointers := make([]any, len(rows))
	for i, row := range rows {
		if t.recordOf(row) == "" || t.clientOf(row) == "" {
			return none, fmt.Errorf("guardgorm: %s: sealed values are bound to the ids of record and client, and this row lacks one: "+
				"make it in the program or in BeforeCreate, not in the database; an update needs it in Model", t.kind)
		}
		pointers[i] = row.Addr().Interface()
	}
	entries, err := t.Seal(ctx, tenant, names, pointers...)
	if err != nil {
		return none, fmt.Errorf("guardgorm: %s: %w", t.kind, err)
	}
	return entries, nil
}
