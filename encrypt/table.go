package encrypt

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// Table seals and opens rows of one kind. It is safe for concurrent use.
type Table[T any] struct{ model *Model }

// Model is a [Table] of a struct type that is known at run time only, for ORMs and the
// like. It is safe for concurrent use.
type Model struct {
	keys   *Keyring
	kind   string
	region string
	typ    reflect.Type
	plan   *plan

	decodeLegacy func(ctx context.Context, at crmguard.Place, stored []byte) ([]byte, error)
}

// TableOptions of a [Table] or [Model]. Nil means the defaults.
type TableOptions struct {
	Region string // ISO country of phones typed without a country code, such as "RU"

	// DecodeLegacy turns what a column tagged ",legacy" holds into what is to be sealed, for
	// columns that were encrypted by another scheme before; nil: it is taken as it is. Its error
	// leaves the value where it is; one that is [crmguard.ErrUnavailable] ends the call.
	DecodeLegacy func(ctx context.Context, at crmguard.Place, stored []byte) ([]byte, error)
}

// RowError says why one row or [Cell] was refused.
type RowError struct {
	Row    int    // index among the rows or cells
	Record string // its id
	Field  string // empty: the whole row
	Err    error
}

// Error names record and field.
func (e *RowError) Error() string { return "encrypt: " + e.text() }

func (e *RowError) text() string {
	return fmt.Sprintf("row %d (record %q, field %q): %v", e.Row, e.Record, e.Field, e.Err)
}

// Unwrap returns the cause.
func (e *RowError) Unwrap() error { return e.Err }

// RowErrors is the error of an Open that opened all rows but these.
type RowErrors []*RowError

// Error counts the rows and shows the first.
func (e RowErrors) Error() string {
	if len(e) == 0 {
		return "encrypt: no errors"
	}
	if len(e) == 1 {
		return fmt.Sprintf("encrypt: one row did not open: %s", e[0].text())
	}
	return fmt.Sprintf("encrypt: %d rows did not open, first: %s", len(e), e[0].text())
}

// Unwrap returns the errors of all rows.
func (e RowErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, row := range e {
		errs[i] = row
	}
	return errs
}

// NewTable reads the tags of struct type T:
//
//	ID          string `encrypt:",record"`                        // id of the record, and of the client unless another field is tagged ",client"
//	Phone       string `encrypt:"phone,index=phone,index=last4"`  // logical name, and how it is found; see [Table.Find]
//	PhoneSealed []byte `encrypt:"phone,sealed"`                   // what is stored of it; nil is NULL
//	PhoneLegacy *string `encrypt:"phone,legacy"`                  // the column that it was in before, see [Table.Migrate]
//	Email       string `encrypt:"email,index=email:unique"`       // no two records of a tenant have the same; see [ErrDuplicate]
//	Note        *string `encrypt:"note,pad=64"`                   // lengths are hidden up to multiples of 64 bytes
//	Calls       []Call  `encrypt:"-"`                             // rows of another table, which has tags of its own
//
// Indexes are phone, email and exact, which may be unique, and last4 and domain, which may
// not. [LeakOf] says what each tells.
//
// A string, *string or []byte is sealed as it is, a type of database/sql such as
// sql.Null[T] as the value in it, any other type as JSON. A nil pointer, slice, map or
// interface stays NULL, as does what a driver.Valuer calls NULL; an empty string is sealed.
// JSON takes a struct that embeds a type with JSON or text methods, such as time.Time, for a
// value of that type: fields beside it are lost, unless the struct has such methods of its own.
// A kind is any name but "crmguard", which is reserved for receipts and the like.
func NewTable[T any](k *Keyring, kind string, o *TableOptions) (*Table[T], error) {
	model, err := NewModel(k, kind, reflect.TypeFor[T](), o)
	if err != nil {
		return nil, err
	}
	return &Table[T]{model}, nil
}

// NewModel is [NewTable] for a struct type that is known at run time only.
func NewModel(k *Keyring, kind string, t reflect.Type, o *TableOptions) (*Model, error) {
	if k == nil || kind == "" || t == nil {
		return nil, errors.New("encrypt: a table needs a keyring, a kind and a struct")
	}
	if err := checkName(kind); err != nil {
		return nil, err
	}
	if kind == ownKind {
		return nil, errOwnKind
	}
	plan, err := newPlan(t)
	if err != nil {
		return nil, fmt.Errorf("encrypt: table %s: %w", kind, err)
	}
	m := &Model{keys: k, kind: strings.Clone(kind), typ: t, plan: plan}
	if o != nil {
		m.region = strings.ToUpper(o.Region)
		m.decodeLegacy = o.DecodeLegacy
	}
	if _, ok := k.store.(Pending); !ok && plan.migrates {
		return nil, fmt.Errorf("encrypt: table %s: %w", kind, errPending)
	}
	for _, field := range plan.fields {
		if len(field.indexes) > 0 && k.opts.Index == nil {
			return nil, fmt.Errorf("encrypt: table %s: %q has an index, but Options.Index is nil", kind, field.name)
		}
	}
	return m, nil
}

// Seal fills the sealed fields of rows from the plain ones, which stay, and returns
// the index entries to put in the transaction that stores the rows. It may write to
// the key store, so call it before that transaction begins. On an error no row was
// changed.
func (t *Table[T]) Seal(ctx context.Context, tenant string, rows ...*T) (IndexEntries, error) {
	var one [1]reflect.Value
	return t.model.seal(ctx, tenant, t.model.plan.fields, values(rows, one[:0]))
}

// Open fills the plain fields of rows from the sealed ones, as [Keyring.OpenAll] does it:
// for all of them in one go, after asking Options.OnOpen once. Rows that do not open
// have empty plain fields and are named by the [RowErrors] that is returned; all
// others are open. After any other error the plain fields of all rows are empty.
func (t *Table[T]) Open(ctx context.Context, tenant string, rows ...*T) error {
	var one [1]reflect.Value
	return t.model.open(ctx, tenant, values(rows, one[:0]))
}

// Seal is [Table.Seal] for rows that are pointers to the model's type, of these fields, by
// logical name; none: all. The sealed fields of others stay as they are.
func (m *Model) Seal(ctx context.Context, tenant string, fields []string, rows ...any) (IndexEntries, error) {
	found, err := m.values(rows)
	if err != nil {
		return IndexEntries{}, err
	}
	selected := m.plan.fields
	if len(fields) > 0 {
		selected = make([]fieldPlan, 0, len(fields))
		for _, name := range fields {
			field := m.plan.field(name)
			if field == nil {
				return IndexEntries{}, fmt.Errorf("encrypt: table %s has no field %q", m.kind, name)
			}
			if slices.ContainsFunc(selected, func(f fieldPlan) bool { return f.name == name }) {
				return IndexEntries{}, fmt.Errorf("encrypt: table %s: field %q is named twice", m.kind, name)
			}
			selected = append(selected, *field)
		}
	}
	return m.seal(ctx, tenant, selected, found)
}

// Open is [Table.Open] for rows that are pointers to the model's type.
func (m *Model) Open(ctx context.Context, tenant string, rows ...any) error {
	found, err := m.values(rows)
	if err != nil {
		return err
	}
	return m.open(ctx, tenant, found)
}

// ModelField is a field of a [Model]. The indexes are those of reflect, for FieldByIndex.
type ModelField struct {
	Name          string // the logical one
	Plain, Sealed []int  // of what people read, and of what is stored of it
	Legacy        []int  // of the column tagged ",legacy"; nil: none
	Indexed       bool   // it has entries in the [Index]
}

// Fields returns the fields that are sealed, in their order.
func (m *Model) Fields() []ModelField {
	fields := make([]ModelField, len(m.plan.fields))
	for i, f := range m.plan.fields {
		fields[i] = ModelField{f.name, slices.Clone(f.plain), slices.Clone(f.sealed), slices.Clone(f.legacy), len(f.indexes) > 0}
	}
	return fields
}

// IDs returns the reflect indexes of the fields with the ids of record and client, which may
// be the same.
func (m *Model) IDs() (record, client []int) {
	return slices.Clone(m.plan.record), slices.Clone(m.plan.client)
}

// Index returns Options.Index, in which the entries of rows are put; nil if no field has an
// index.
func (m *Model) Index() Index {
	if !m.plan.indexed {
		return nil
	}
	return m.keys.opts.Index
}

// values returns the structs behind pointers; that of nil is the zero Value. It appends to
// found, which spares a single row an allocation.
func values[T any](rows []*T, found []reflect.Value) []reflect.Value {
	found = slices.Grow(found, len(rows))
	for _, row := range rows {
		var value reflect.Value
		if row != nil {
			value = reflect.ValueOf(row).Elem()
		}
		found = append(found, value)
	}
	return found
}

func (m *Model) values(rows []any) ([]reflect.Value, error) {
	found := make([]reflect.Value, len(rows))
	for i, row := range rows {
		v := reflect.ValueOf(row)
		if !v.IsValid() || v.Type() != reflect.PointerTo(m.typ) {
			return nil, &RowError{Row: i, Err: fmt.Errorf("encrypt: %T is not a *%v", row, m.typ)}
		}
		if !v.IsNil() {
			found[i] = v.Elem()
		}
	}
	return found, nil
}
