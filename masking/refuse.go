package masking

import (
	"errors"
	"reflect"
)

// MaskedError says that a row holds a mask where a value should be. It carries
// the field's name and never its value.
type MaskedError struct {
	Field string // the path, as [View] asks for it
}

// Error names the field.
func (e *MaskedError) Error() string {
	return "masking: field " + e.Field + " holds a mask, not a value"
}

// RefuseMasked returns a [*MaskedError] if a text that [View] would mask holds a
// mask: then a masked value came back and must not be saved over the real one.
// Call it before every write. Row is a struct or a pointer to one; what is tagged
// `mask:"-"` and private fields are not looked at. A row of absurd size, and a tag
// that names no kind, are errors too.
//
// It cannot tell what [View] made zero, false or nil from what is: numbers, times
// and bools under a tag, untagged []byte and the like, arrays of bytes, private
// fields, most of what is under a secret. So do not write a row back as a whole.
// Leave out of the UPDATE every field that was not shown in the clear, by the same
// rights with which View was asked, and have RefuseMasked check the rest:
//
//	for name, column := range columns {
//		if !may[name].Read || !may[name].Unmask {
//			continue // was not shown, so it was not edited
//		}
//		update.Set(column, edited.Value(name))
//	}
func RefuseMasked(row any) error {
	v := reflect.ValueOf(row)
	if !v.IsValid() {
		return nil
	}
	p, err := planOf(v.Type())
	if err != nil {
		return err
	}
	var r refuser
	if err = r.check(p, v, hidden); errors.Is(err, errMasked) {
		return &MaskedError{Field: "row"}
	}
	return err
}

// errMasked becomes a MaskedError at the first field that has a name.
var errMasked = errors.New("masking: a mask, not a value")

// refuser looks for masks in one row.
type refuser struct {
	depth, nodes int
}

func (r *refuser) check(p *plan, v reflect.Value, kind Kind) error {
	if p.inert || kind == shown && p.typ.Kind() == reflect.String {
		return nil
	}
	switch p.typ.Kind() {
	case reflect.String:
		return refuse(v.String())
	case reflect.Struct:
		for i := range p.fields {
			f := &p.fields[i]
			k := kind
			if f.tagged {
				k = f.kind
			}
			if err := r.check(f.plan, v.Field(f.index), k); err != nil {
				return f.locate(err)
			}
		}
	case reflect.Array:
		return r.checkAll(p, v, kind)
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map:
		if v.IsNil() {
			return nil
		}
		if r.nodes++; r.nodes > maxNodes || r.depth == maxDepth {
			return errLarge
		}
		r.depth++
		defer func() { r.depth-- }()
		return r.checkReference(p, v, kind)
	}
	return nil
}

// locate says in which field a mask was found.
func (f *field) locate(err error) error {
	if f.name == "" {
		return err
	}
	if errors.Is(err, errMasked) {
		return &MaskedError{Field: f.name}
	}
	if masked, ok := errors.AsType[*MaskedError](err); ok {
		masked.Field = f.name + "." + masked.Field
	}
	return err
}

func (r *refuser) checkReference(p *plan, v reflect.Value, kind Kind) error {
	switch p.typ.Kind() {
	case reflect.Pointer:
		return r.check(p.elem, v.Elem(), kind)
	case reflect.Interface:
		dynamic, err := planOf(v.Elem().Type())
		if err != nil {
			return err
		}
		return r.check(dynamic, v.Elem(), kind)
	case reflect.Slice:
		if isChar(p.elem.typ) {
			if kind == shown {
				return nil
			}
			return refuse(textOf(v))
		}
		return r.checkAll(p, v, kind)
	}
	for it := v.MapRange(); it.Next(); {
		if err := r.check(p.key, it.Key(), kind); err != nil {
			return err
		}
		if err := r.check(p.elem, it.Value(), kind); err != nil {
			return err
		}
	}
	return nil
}

func (r *refuser) checkAll(p *plan, v reflect.Value, kind Kind) error {
	if p.elem.inert {
		return nil
	}
	if r.nodes += v.Len(); r.nodes > maxNodes {
		return errLarge
	}
	for i := range v.Len() {
		if err := r.check(p.elem, v.Index(i), kind); err != nil {
			return err
		}
	}
	return nil
}

func refuse(value string) error {
	if IsMasked(value) {
		return errMasked
	}
	return nil
}
