package encrypt

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// plan is what NewTable learns from a struct's tags.
type plan struct {
	record, client []int // reflect indexes of string fields
	fields         []fieldPlan
	migrates       bool // some field has a column of plaintext
	indexed        bool // some field has an index
}

type fieldPlan struct {
	name          string
	plain, sealed []int
	legacy        []int // what was there before it was sealed; nil: nothing
	form          form
	pad           int
	indexes       []indexPlan
}

// indexPlan is one way in which a field is found.
type indexPlan struct {
	name      string
	unique    bool
	normalize func(value, region string) string
}

func (p *plan) field(name string) *fieldPlan {
	for i := range p.fields {
		if p.fields[i].name == name {
			return &p.fields[i]
		}
	}
	return nil
}

// newPlan reads the tags of a struct type. See [NewTable] for the rules.
func newPlan(t reflect.Type) (*plan, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%v is not a struct", t)
	}
	r := tagReader{plan: &plan{}, sealed: make(map[string][]int), legacy: make(map[string][]int)}
	for _, f := range allFields(t, nil, nil) {
		if err := r.read(t, f); err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	return r.plan, r.join()
}

// allFields are the fields of a row and of structs embedded in it, those too that another of the
// same name hides.
func allFields(t reflect.Type, outer []int, seen []reflect.Type) (fields []reflect.StructField) {
	seen = append(seen, t)
	for f := range t.Fields() {
		f.Index = append(slices.Clone(outer), f.Index...)
		fields = append(fields, f)
		if inner := embedded(f); inner != nil && !slices.Contains(seen, inner) {
			fields = append(fields, allFields(inner, f.Index, seen)...)
		}
	}
	return fields
}

// embedded returns the struct whose fields are the row's own by f, nil if there is none.
func embedded(f reflect.StructField) reflect.Type {
	t := f.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if !f.Anonymous || t.Kind() != reflect.Struct {
		return nil
	}
	return t
}

// tagReader reads one field of a struct after another. What belongs to a field of the plan may
// stand before it.
type tagReader struct {
	plan           *plan
	sealed, legacy map[string][]int // by logical name
}

func (r *tagReader) read(t reflect.Type, f reflect.StructField) error {
	tag, ok := f.Tag.Lookup("encrypt")
	switch {
	case tag == "-": // rows of another table, say
		return nil
	case !ok && embedded(f) == nil && tagged(f.Type, nil):
		return errors.New("tags inside it would be overlooked: only fields of the row and of embedded structs are sealed; the tag \"-\" says that it may be")
	case !ok:
		return nil
	}
	if err := settable(t, f); err != nil {
		return err
	}
	if shown, found := t.FieldByName(f.Name); !found || !slices.Equal(shown.Index, f.Index) {
		return errors.New("another field of the same name hides it")
	}
	name, options, _ := strings.Cut(tag, ",")
	switch {
	case name == "":
		return r.readID(f, options)
	case options == "sealed" && f.Type != bytesType:
		return errors.New("a sealed field is a []byte")
	case options == "sealed":
		return put(r.sealed, name, f.Index, "sealed field")
	case options == "legacy" && f.Type.Kind() != reflect.String && f.Type != reflect.TypeFor[*string]() && f.Type != bytesType:
		return errors.New("a column of plaintext is a string, *string or []byte")
	case options == "legacy":
		return put(r.legacy, name, f.Index, "column of plaintext")
	case r.plan.field(name) != nil:
		return fmt.Errorf("second field of %q", name)
	}
	field, err := newFieldPlan(f, name, options)
	r.plan.fields = append(r.plan.fields, field)
	return err
}

func (r *tagReader) readID(f reflect.StructField, options string) error {
	id := map[string]*[]int{"record": &r.plan.record, "client": &r.plan.client}[options]
	if id == nil || *id != nil || f.Type.Kind() != reflect.String {
		return errors.New(`a tag without a name is ",record" or ",client", once, on a string`)
	}
	*id = f.Index
	return nil
}

func put(known map[string][]int, name string, index []int, what string) error {
	if known[name] != nil {
		return fmt.Errorf("second %s of %q", what, name)
	}
	known[name] = index
	return nil
}

// join gives the fields of the plan what belongs to them, and refuses what is missing or left.
func (r *tagReader) join() error {
	p := r.plan
	for i := range p.fields {
		field := &p.fields[i]
		if field.sealed = r.sealed[field.name]; field.sealed == nil {
			return fmt.Errorf("%q has no field tagged %q", field.name, field.name+",sealed")
		}
		field.legacy = r.legacy[field.name]
		p.migrates = p.migrates || field.legacy != nil
		p.indexed = p.indexed || len(field.indexes) > 0
		delete(r.sealed, field.name)
		delete(r.legacy, field.name)
	}
	for name := range r.sealed {
		return fmt.Errorf("%q has a sealed field, but no plain one", name)
	}
	for name := range r.legacy {
		return fmt.Errorf("%q has a column of plaintext, but is not sealed", name)
	}
	switch {
	case p.record == nil:
		return errors.New(`no field tagged ",record"`)
	case len(p.fields) == 0:
		return errors.New("no field to seal")
	case p.client == nil:
		p.client = p.record
	}
	return nil
}

// settable refuses fields that reflection cannot set.
func settable(t reflect.Type, f reflect.StructField) error {
	if !f.IsExported() {
		return errors.New("not exported")
	}
	for depth := 1; depth < len(f.Index); depth++ {
		if outer := t.FieldByIndex(f.Index[:depth]); outer.Type.Kind() == reflect.Pointer || !outer.IsExported() {
			return errors.New("in an embedded struct that may be nil or is not exported")
		}
	}
	return nil
}

func newFieldPlan(f reflect.StructField, name, options string) (field fieldPlan, err error) {
	field = fieldPlan{name: name, plain: f.Index, form: formOf(f.Type)}
	if err := checkName(name); err != nil {
		return field, err
	}
	if bad := unfit(jsonType{f.Type, false}, nil); bad != nil && !field.form.isText() { // which never becomes JSON
		return field, fmt.Errorf("a %v cannot be sealed: %v does not come back from JSON as it was", f.Type, bad)
	}
	if options == "" {
		return field, nil
	}
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "pad":
			pad, err := strconv.Atoi(value)
			if err != nil || pad < 1 || pad > maxPad || field.pad != 0 {
				return field, fmt.Errorf("pad is a number of bytes, 1 to %d, once", maxPad)
			}
			field.pad = pad
		case "index":
			value, extra, colon := strings.Cut(value, ":")
			kind, known := indexes[value]
			if !known {
				return field, fmt.Errorf("unknown index %q", value)
			}
			if colon && (extra != "unique" || !kind.exact) {
				return field, fmt.Errorf("index %q is not %q", value, extra)
			}
			if !field.form.isText() {
				return field, errors.New("only text can have an index")
			}
			if slices.ContainsFunc(field.indexes, func(x indexPlan) bool { return x.name == value }) {
				return field, fmt.Errorf("second index %q", value)
			}
			field.indexes = append(field.indexes, indexPlan{value, colon, kind.normalize})
		default:
			return field, fmt.Errorf("unknown option %q", option)
		}
	}
	return field, nil
}

// tagged reports whether a type has encrypt tags somewhere inside.
func tagged(t reflect.Type, seen []reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return tagged(t.Elem(), seen)
	case reflect.Struct:
		if slices.Contains(seen, t) {
			return false
		}
		seen = append(seen, t)
		for f := range t.Fields() {
			if tag, ok := f.Tag.Lookup("encrypt"); tag != "-" && (ok || tagged(f.Type, seen)) {
				return true
			}
		}
	}
	return false
}

var (
	marshaler   = reflect.TypeFor[json.Marshaler]()
	unmarshaler = reflect.TypeFor[json.Unmarshaler]()
	texter      = reflect.TypeFor[encoding.TextMarshaler]()
	untexter    = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// jsonType is a type as JSON meets it: values in maps cannot be pointed to, so methods of
// pointers do not make their text.
type jsonType struct {
	reflect.Type
	inMap bool
}

// unfit returns the type inside t, or t itself, that JSON would lose or could not
// bring back; nil if there is none.
func unfit(t jsonType, seen []jsonType) reflect.Type {
	if slices.Contains(seen, t) {
		return nil
	}
	seen = append(seen, t)
	within := func(inner reflect.Type, inMap bool) reflect.Type { return unfit(jsonType{inner, inMap}, seen) }
	switch t.Kind() {
	case reflect.Pointer:
		return within(t.Elem(), false)
	case reflect.Interface:
		if t.NumMethod() > 0 { // JSON does not know what to put there
			return t.Type
		}
		return nil
	}
	pointer := reflect.PointerTo(t.Type)
	reads := pointer.Implements(unmarshaler) || pointer.Implements(untexter)
	switch {
	case t.writes() && reads:
		return nil
	case t.writes(), reads && (jsonType{t.Type, false}).writes():
		return t.Type
	}
	switch t.Kind() {
	case reflect.Slice:
		return within(t.Elem(), false)
	case reflect.Array:
		return within(t.Elem(), t.inMap)
	case reflect.Map:
		if bad := within(t.Key(), true); bad != nil {
			return bad
		}
		return within(t.Elem(), true)
	case reflect.Struct:
		if t.NumField() == 0 {
			return nil
		}
		visible := false
		for f := range t.Fields() {
			if !f.IsExported() && !f.Anonymous || f.Tag.Get("json") == "-" {
				continue
			}
			visible = true
			if bad := within(f.Type, t.inMap); bad != nil {
				return bad
			}
		}
		if !visible {
			return t.Type // all that it holds would be lost
		}
		return nil
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128, reflect.Invalid:
		return t.Type
	}
	return nil
}

// writes says whether the type makes its own text, as types do that show stars instead.
func (t jsonType) writes() bool {
	own := t.Type
	if !t.inMap {
		own = reflect.PointerTo(own)
	}
	return own.Implements(marshaler) || own.Implements(texter)
}
