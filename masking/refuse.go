package masking

import (
	"reflect"
)

// MaskedError says that a row holds a mask where a value should be. It carries
// the field's name and never its value.
type MaskedError struct {
	Field string // as in [View]
}

// Error names the field.
func (e *MaskedError) Error() string {
	return "masking: field " + e.Field + " holds a mask, not a value"
}

// RefuseMasked returns a [*MaskedError] if a field that [View] would mask holds
// a mask: then a masked value came back and must not be saved over the real one.
// Call it before every write. Row is a struct or a pointer to one; fields tagged
// `mask:"-"` and private fields are not looked at.
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
	return r.check(p, v, hidden, "row")
}

// refuser looks for masks in one row.
type refuser struct {
	depth, nodes int
}

func (r *refuser) check(p *plan, v reflect.Value, kind Kind, name string) error {
	if p.inert || kind == shown && p.typ.Kind() == reflect.String {
		return nil
	}
	switch p.typ.Kind() {
	case reflect.String:
		return refuse(v.String(), name)
	case reflect.Struct:
		for i := range p.fields {
			f := &p.fields[i]
			k := kind
			if f.tagged {
				k = f.kind
			}
			if err := r.check(f.plan, v.Field(f.index), k, f.name); err != nil {
				return err
			}
		}
	case reflect.Array:
		return r.checkAll(p, v, kind, name)
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map:
		if v.IsNil() {
			return nil
		}
		if r.nodes++; r.nodes > maxNodes || r.depth == maxDepth {
			return errLarge
		}
		r.depth++
		defer func() { r.depth-- }()
		return r.checkReference(p, v, kind, name)
	}
	return nil
}

func (r *refuser) checkReference(p *plan, v reflect.Value, kind Kind, name string) error {
	switch p.typ.Kind() {
	case reflect.Pointer:
		return r.check(p.elem, v.Elem(), kind, name)
	case reflect.Interface:
		dynamic, err := planOf(v.Elem().Type())
		if err != nil {
			return err
		}
		return r.check(dynamic, v.Elem(), kind, name)
	case reflect.Slice:
		if p.elem.typ.Kind() == reflect.Uint8 {
			if kind == shown {
				return nil
			}
			return refuse(string(v.Bytes()), name)
		}
		return r.checkAll(p, v, kind, name)
	}
	for it := v.MapRange(); it.Next(); {
		if err := r.check(p.key, it.Key(), kind, name); err != nil {
			return err
		}
		if err := r.check(p.elem, it.Value(), kind, name); err != nil {
			return err
		}
	}
	return nil
}

func (r *refuser) checkAll(p *plan, v reflect.Value, kind Kind, name string) error {
	for i := range v.Len() {
		if err := r.check(p.elem, v.Index(i), kind, name); err != nil {
			return err
		}
	}
	return nil
}

func refuse(value, name string) error {
	if IsMasked(value) {
		return &MaskedError{Field: name}
	}
	return nil
}
