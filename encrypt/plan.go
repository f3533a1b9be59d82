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
	p := &plan{}
	plain := make(map[string]*fieldPlan)
	sealed, legacy := make(map[string][]int), make(map[string][]int)
	var order []string
	for _, f := range reflect.VisibleFields(t) {
		tag, ok := f.Tag.Lookup("encrypt")
		if tag == "-" { // rows of another table, say
			continue
		}
		if !ok {
			if !f.Anonymous && tagged(f.Type, nil) {
				return nil, fmt.Errorf("field %s: tags inside it would be overlooked: only fields of the row and of embedded structs are sealed; the tag \"-\" says that it may be", f.Name)
			}
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if err := settable(t, f); err != nil {
			return nil, err
		}
		isString := f.Type.Kind() == reflect.String
		switch {
		case name == "" && options == "record" && isString && p.record == nil:
			p.record = f.Index
		case name == "" && options == "client" && isString && p.client == nil:
			p.client = f.Index
		case name == "":
			return nil, fmt.Errorf("field %s: a tag without a name is \",record\" or \",client\", once, on a string", f.Name)
		case options == "sealed":
			if f.Type != bytesType {
				return nil, fmt.Errorf("field %s: a sealed field is a []byte", f.Name)
			}
			if sealed[name] != nil {
				return nil, fmt.Errorf("field %s: second sealed field of %q", f.Name, name)
			}
			sealed[name] = f.Index
		case options == "plain":
			if !isString && f.Type != reflect.TypeFor[*string]() && f.Type != bytesType {
				return nil, fmt.Errorf("field %s: a column of plaintext is a string, *string or []byte", f.Name)
			}
			if legacy[name] != nil {
				return nil, fmt.Errorf("field %s: second column of plaintext of %q", f.Name, name)
			}
			legacy[name] = f.Index
		default:
			field, err := newFieldPlan(f, name, options)
			if err != nil {
				return nil, err
			}
			if plain[name] != nil {
				return nil, fmt.Errorf("field %s: second field of %q", f.Name, name)
			}
			plain[name] = field
			order = append(order, name)
		}
	}
	for _, name := range order {
		field := plain[name]
		if field.sealed = sealed[name]; field.sealed == nil {
			return nil, fmt.Errorf("%q has no field tagged %q", name, name+",sealed")
		}
		field.legacy = legacy[name]
		p.migrates = p.migrates || field.legacy != nil
		delete(sealed, name)
		delete(legacy, name)
		p.fields = append(p.fields, *field)
	}
	for name := range sealed {
		return nil, fmt.Errorf("%q has a sealed field, but no plain one", name)
	}
	for name := range legacy {
		return nil, fmt.Errorf("%q has a column of plaintext, but is not sealed", name)
	}
	if p.record == nil {
		return nil, errors.New(`no field tagged ",record"`)
	}
	if len(p.fields) == 0 {
		return nil, errors.New("no field to seal")
	}
	if p.client == nil {
		p.client = p.record
	}
	return p, nil
}

// settable refuses fields that reflection cannot set.
func settable(t reflect.Type, f reflect.StructField) error {
	if !f.IsExported() {
		return fmt.Errorf("field %s: not exported", f.Name)
	}
	for depth := 1; depth < len(f.Index); depth++ {
		if outer := t.FieldByIndex(f.Index[:depth]); outer.Type.Kind() == reflect.Pointer || !outer.IsExported() {
			return fmt.Errorf("field %s: in an embedded struct that may be nil or is not exported", f.Name)
		}
	}
	return nil
}

func newFieldPlan(f reflect.StructField, name, options string) (*fieldPlan, error) {
	field := &fieldPlan{name: name, plain: f.Index, form: formOf(f.Type)}
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("field %s: %w", f.Name, err)
	}
	if bad := unfit(f.Type, nil); bad != nil {
		return nil, fmt.Errorf("field %s: a %v cannot be sealed: %v does not come back from JSON as it was", f.Name, f.Type, bad)
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
				return nil, fmt.Errorf("field %s: pad is a number of bytes, 1 to %d, once", f.Name, maxPad)
			}
			field.pad = pad
		case "index":
			value, extra, colon := strings.Cut(value, ":")
			kind, known := indexes[value]
			if !known {
				return nil, fmt.Errorf("field %s: unknown index %q", f.Name, value)
			}
			if colon && (extra != "unique" || !kind.exact) {
				return nil, fmt.Errorf("field %s: index %q is not %q", f.Name, value, extra)
			}
			if !field.form.isText() {
				return nil, fmt.Errorf("field %s: only text can have an index", f.Name)
			}
			if slices.ContainsFunc(field.indexes, func(x indexPlan) bool { return x.name == value }) {
				return nil, fmt.Errorf("field %s: second index %q", f.Name, value)
			}
			field.indexes = append(field.indexes, indexPlan{value, colon, kind.normalize})
		default:
			return nil, fmt.Errorf("field %s: unknown option %q", f.Name, option)
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

// unfit returns the type inside t, or t itself, that JSON would lose or could not
// bring back; nil if there is none.
func unfit(t reflect.Type, seen []reflect.Type) reflect.Type {
	if slices.Contains(seen, t) {
		return nil
	}
	seen = append(seen, t)
	pointer := reflect.PointerTo(t)
	if t.Kind() != reflect.Interface &&
		(pointer.Implements(marshaler) && pointer.Implements(unmarshaler) || pointer.Implements(texter) && pointer.Implements(untexter)) {
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return unfit(t.Elem(), seen)
	case reflect.Map:
		if bad := unfit(t.Key(), seen); bad != nil {
			return bad
		}
		return unfit(t.Elem(), seen)
	case reflect.Interface:
		if t.NumMethod() > 0 { // JSON does not know what to put there
			return t
		}
		return nil
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
			if bad := unfit(f.Type, seen); bad != nil {
				return bad
			}
		}
		if !visible {
			return t // all that it holds would be lost
		}
		return nil
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128, reflect.Invalid:
		return t
	}
	return nil
}
