package masking

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
)

// How strings are treated that have no tag of their own.
const (
	hidden Kind = ""  // no tag above either
	shown  Kind = "-" // the tag "-", or clear said so
)

// plan is what is known of a type before any value of it is seen.
type plan struct {
	typ    reflect.Type
	inert  bool // nothing to hide in it, and copied by assignment
	fields []field
	opaque bool  // a struct with private fields
	elem   *plan // of a pointer, slice, array or map
	key    *plan // of a map
}

type field struct {
	index  int
	name   string // for clear and for errors, empty for what adds nothing to the path
	tagged bool
	kind   Kind
	plan   *plan
	plain  bool // shown to everybody and copied by assignment
	nests  bool // may hold fields
}

var (
	plans    sync.Map // reflect.Type → *plan
	timeType = reflect.TypeFor[time.Time]()
)

func planOf(t reflect.Type) (*plan, error) {
	if p, ok := plans.Load(t); ok {
		return p.(*plan), nil
	}
	c := compiler{}
	p, err := c.compile(t)
	if err != nil {
		return nil, err
	}
	c.settle()
	for t, p := range c {
		plans.LoadOrStore(t, p)
	}
	return p, nil
}

// compiler holds the plans of the types that one type reaches, so that a type
// may reach itself.
type compiler map[reflect.Type]*plan

func (c compiler) compile(t reflect.Type) (p *plan, err error) {
	if p, ok := c[t]; ok {
		return p, nil
	}
	p = &plan{typ: t}
	c[t] = p
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		p.elem, err = c.compile(t.Elem())
	case reflect.Map:
		if p.key, err = c.compile(t.Key()); err == nil {
			p.elem, err = c.compile(t.Elem())
		}
	case reflect.Struct:
		err = c.compileStruct(p)
	}
	return p, err
}

func (c compiler) compileStruct(p *plan) error {
	if p.typ == timeType {
		return nil
	}
	for i := range p.typ.NumField() {
		sf := p.typ.Field(i)
		// The exported fields of an embedded struct are part of its host's JSON,
		// even if the embedded type is private.
		if !sf.IsExported() && (!sf.Anonymous || sf.Type.Kind() != reflect.Struct) {
			p.opaque = true
			continue
		}
		f := field{index: i, nests: nests(sf.Type)}
		// The fields of an embedded struct are its host's, and a sql.Null's value is
		// the field's.
		if (!sf.Anonymous || !f.nests) && p.typ.PkgPath() != "database/sql" {
			f.name = strings.ToLower(sf.Name)
		}
		if err := f.parse(sf.Tag.Get("mask")); err != nil {
			return fmt.Errorf("masking: %s.%s: %w", p.typ, sf.Name, err)
		}
		var err error
		if f.plan, err = c.compile(sf.Type); err != nil {
			return err
		}
		p.fields = append(p.fields, f)
	}
	return nil
}

// nests reports whether a value of type t may hold fields that have names.
func nests(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct:
		return t != timeType
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map, reflect.Interface:
		return true
	}
	return false
}

// parse reads `mask:"phone"`, `mask:"phone,field=mobile"` or `mask:"-"`.
func (f *field) parse(tag string) error {
	kind, option, hasOption := strings.Cut(tag, ",")
	if hasOption {
		name, ok := strings.CutPrefix(option, "field=")
		if !ok || name == "" {
			return fmt.Errorf("mask tag with %q, want field=NAME", option)
		}
		f.name = name
	}
	switch f.kind = Kind(kind); f.kind {
	case hidden:
		return nil
	case shown, Phone, Email, Name, Card, Secret, Text:
		f.tagged = true
		return nil
	}
	return fmt.Errorf("mask tag names no kind: %q", kind)
}

// settle finds out which types hold nothing to hide. All are taken for inert at
// first; what holds a string, or what holds that, is not.
func (c compiler) settle() {
	for _, p := range c {
		p.inert = true
	}
	for changed := true; changed; {
		changed = false
		for _, p := range c {
			if p.inert && !p.canBeInert() {
				p.inert, changed = false, true
			}
		}
	}
	for _, p := range c {
		for i := range p.fields {
			f := &p.fields[i]
			f.plain = f.tagged && f.kind == shown && (f.plan.inert || f.plan.typ.Kind() == reflect.String)
		}
	}
}

func (p *plan) canBeInert() bool {
	switch p.typ.Kind() {
	case reflect.Array:
		return p.elem.inert && !isChar(p.elem.typ)
	case reflect.Struct:
		for _, f := range p.fields {
			if !f.plan.inert || f.tagged && f.kind != shown {
				return false
			}
		}
		return !p.opaque
	}
	return p.typ.Kind() == reflect.Bool || isNumeric(p.typ)
}

// asIs reports whether nothing changes in a value under this kind.
func (p *plan) asIs(kind Kind) bool { return p.inert && (kind == hidden || kind == shown) }
