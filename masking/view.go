package masking

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// rowBytes is room for the masked strings of a usual row.
const rowBytes = 128

// Bounds of one row. What exceeds them is an error, never shown.
const (
	maxDepth = 128      // pointers, maps, slices and interfaces inside each other
	maxNodes = 1 << 20  // of them in all
	maxBytes = 64 << 20 // of what they refer to, counted again wherever it is referred to
	textCost = 4        // looking through a text is dearer than copying
	mapCost  = 128      // of an entry, besides its size
)

var (
	errCycle = errors.New("masking: the row holds itself")
	errLarge = errors.New("masking: the row is too deep or too large")
)

// View returns a copy of row as somebody may see it who may see those fields in
// the clear for which clear returns true; with a nil clear, none.
//
// Clear is asked by the name of each field: the lower-cased Go name, or what
// `mask:"KIND,field=NAME"` says. A field of a nested struct has the path to it,
// such as "manager.name"; slices, maps, pointers, interfaces, the structs of
// database/sql and embedded structs without field= add nothing to the path. The
// answer for a struct holds for everything inside that has no tag of its own.
//
// Rules for what has no tag, and for what is not a string:
//
//   - A string without a tag is hidden, tagged `mask:"-"` it is shown.
//   - Numbers and times are shown, unless they or what holds them is tagged: then
//     they are zero, and [RefuseMasked] does not notice. Bools are shown.
//   - A tag on a struct, pointer, slice, array, map or interface holds for
//     everything inside that has no tag of its own.
//   - A []byte with a kind is masked as a string is; without one it is nil. An
//     array of bytes is zero. The same goes for []rune, that is []int32, and
//     []uint16.
//   - Keys of maps are masked like the values, and numbered where they would
//     fall together. Keys of other types than strings, bools and, without a tag,
//     numbers are an error.
//   - Private fields, also embedded pointers to structs of private type, funcs and
//     channels are zero, those of a value shown in the clear excepted. [time.Time]
//     is a time.
//   - Under secret nothing tells whether there is a value: strings, []byte and
//     the like, pointers to strings, and any are a mask, a []string holds one mask,
//     bools are false; all other pointers, slices, maps and interfaces are nil and
//     what they hold is not looked at. Left to tell are the length of an array, and
//     fields inside a secret struct that have a tag of another kind.
//
// The copy shares no memory with row that can be written to, besides what funcs,
// channels, keys of maps and private fields of a value shown in the clear refer
// to. A row that holds itself, a tag that names no kind, and a row of absurd size
// (a million references, 64 MB behind them, or 16 MB to look through as text) are
// errors; the row returned is then zero.
func View[T any](row T, clear func(field string) bool) (T, error) {
	var zero T
	p, err := planOf(reflect.TypeFor[T]())
	if err != nil {
		return zero, err
	}
	out := row
	v := viewer{clear: clear}
	v.out.Grow(rowBytes)
	if err := v.apply(p, reflect.ValueOf(&out).Elem(), hidden); err != nil {
		return zero, err
	}
	return out, nil
}

// viewer masks one row.
type viewer struct {
	clear  func(field string) bool
	prefix string          // of the names of fields, "manager."
	out    strings.Builder // all masked strings, one after the other
	path   []node          // what is being copied, outermost first
	nodes  int
	bytes  int
}

type node struct {
	typ reflect.Type
	ptr uintptr
}

// apply masks v in place. V is settable and holds a shallow copy; what it points
// to is replaced by copies.
func (w *viewer) apply(p *plan, v reflect.Value, kind Kind) error {
	switch p.typ.Kind() {
	case reflect.String:
		if kind == Text {
			if err := w.spend(textCost, min(v.Len(), maxText)); err != nil {
				return err
			}
		}
		if kind != shown {
			v.SetString(w.mask(kind, v.String()))
		}
		return nil
	case reflect.Struct:
		return w.applyStruct(p, v, kind)
	case reflect.Array:
		return w.applyArray(p, v, kind)
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map:
		if kind == Secret {
			applySecret(v)
			return nil
		}
		if v.IsNil() {
			return nil
		}
		return w.applyReference(p, v, kind)
	case reflect.Bool:
		if kind == Secret {
			v.SetZero()
		}
		return nil
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Uintptr:
		if kind != shown {
			v.SetZero()
		}
		return nil
	}
	if kind != hidden && kind != shown { // a number under a tag
		v.SetZero()
	}
	return nil
}

// spend counts n times size bytes that are copied. What has no size takes time.
func (w *viewer) spend(n, size int) error {
	size = max(size, 1)
	if n > (maxBytes-w.bytes)/size {
		return errLarge
	}
	w.bytes += n * size
	return nil
}

// applySecret makes v the same whatever it refers to, nil too.
func applySecret(v reflect.Value) {
	switch t := v.Type(); {
	case t.Kind() == reflect.Interface && t.NumMethod() == 0:
		v.Set(reflect.ValueOf(mask))
	case t.Kind() == reflect.Slice && isChar(t.Elem()):
		setText(v, mask)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		v.Set(reflect.MakeSlice(t, 1, 1))
		v.Index(0).SetString(mask)
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.String:
		v.Set(reflect.New(t.Elem()))
		v.Elem().SetString(mask)
	default:
		v.SetZero()
	}
}

func (w *viewer) mask(kind Kind, value string) string {
	if kind == hidden && value == "" {
		return ""
	}
	return masked(&w.out, kind, value)
}

func (w *viewer) applyStruct(p *plan, v reflect.Value, kind Kind) error {
	if p.typ == timeType {
		if kind != hidden && kind != shown {
			v.SetZero()
		}
		return nil
	}
	if p.opaque && kind != shown {
		raw := reflect.New(p.typ).Elem()
		raw.Set(v)
		v.SetZero()
		for i := range p.fields {
			settable(v.Field(p.fields[i].index)).Set(settable(raw.Field(p.fields[i].index)))
		}
	}
	for i := range p.fields {
		f := &p.fields[i]
		if f.plain || !f.tagged && f.plan.asIs(kind) {
			continue
		}
		if err := w.applyField(f, v, kind); err != nil {
			return err
		}
	}
	return nil
}

func (w *viewer) applyField(f *field, host reflect.Value, kind Kind) error {
	if f.tagged {
		kind = f.kind
	}
	v := settable(host.Field(f.index))
	if w.clear == nil || f.name == "" {
		return w.apply(f.plan, v, kind)
	}
	if kind != shown && w.clear(w.prefix+f.name) {
		kind = shown
	}
	outer := w.prefix
	if f.nests {
		w.prefix += f.name + "."
	}
	err := w.apply(f.plan, v, kind)
	w.prefix = outer
	return err
}

// settable returns v without the mark that reflection puts on a field embedded by
// a private name. V is addressable, and a part of the copy.
func settable(v reflect.Value) reflect.Value {
	if v.CanSet() {
		return v
	}
	return reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem()
}

func (w *viewer) applyArray(p *plan, v reflect.Value, kind Kind) error {
	if isChar(p.elem.typ) {
		if kind != shown {
			v.SetZero()
		}
		return nil
	}
	if p.elem.asIs(kind) {
		return nil
	}
	for i := range v.Len() {
		if err := w.apply(p.elem, v.Index(i), kind); err != nil {
			return err
		}
	}
	return nil
}

// applyReference replaces what v refers to by a masked copy.
func (w *viewer) applyReference(p *plan, v reflect.Value, kind Kind) error {
	if w.nodes++; w.nodes > maxNodes || len(w.path) == maxDepth {
		return errLarge
	}
	n := node{typ: p.typ}
	if p.typ.Kind() != reflect.Interface {
		n.ptr = v.Pointer()
		if v.Kind() == reflect.Slice && v.Len() == 0 {
			n.ptr = 0
		}
		if n.ptr != 0 && slices.Contains(w.path, n) {
			return errCycle
		}
	}
	w.path = append(w.path, n)
	defer func() { w.path = w.path[:len(w.path)-1] }()

	switch p.typ.Kind() {
	case reflect.Pointer:
		if err := w.spend(1, int(p.typ.Elem().Size())); err != nil {
			return err
		}
		c := reflect.New(p.typ.Elem())
		c.Elem().Set(v.Elem())
		v.Set(c)
		return w.apply(p.elem, c.Elem(), kind)
	case reflect.Interface:
		dynamic, err := planOf(v.Elem().Type())
		if err != nil {
			return err
		}
		if err := w.spend(1, int(dynamic.typ.Size())); err != nil {
			return err
		}
		c := reflect.New(dynamic.typ).Elem()
		c.Set(v.Elem())
		if err := w.apply(dynamic, c, kind); err != nil {
			return err
		}
		v.Set(c)
		return nil
	case reflect.Slice:
		return w.applySlice(p, v, kind)
	}
	return w.applyMap(p, v, kind)
}

func (w *viewer) applySlice(p *plan, v reflect.Value, kind Kind) error {
	if isChar(p.elem.typ) && kind == hidden {
		v.SetZero()
		return nil
	}
	if err := w.spend(v.Len(), int(p.elem.typ.Size())); err != nil {
		return err
	}
	if isChar(p.elem.typ) && kind != shown {
		setText(v, w.mask(kind, textOf(v)))
		return nil
	}
	c := reflect.MakeSlice(p.typ, v.Len(), v.Len())
	reflect.Copy(c, v)
	v.Set(c)
	if p.elem.asIs(kind) {
		return nil
	}
	for i := range c.Len() {
		if err := w.apply(p.elem, c.Index(i), kind); err != nil {
			return err
		}
	}
	return nil
}

func (w *viewer) applyMap(p *plan, v reflect.Value, kind Kind) error {
	if err := w.spend(v.Len(), mapCost+int(p.key.typ.Size()+p.elem.typ.Size())); err != nil {
		return err
	}
	c := reflect.MakeMapWithSize(p.typ, v.Len())
	key, elem := reflect.New(p.typ.Key()).Elem(), reflect.New(p.typ.Elem()).Elem()
	taken := map[string]int{} // how many keys have the same mask
	for it := v.MapRange(); it.Next(); {
		key.Set(it.Key())
		if err := w.applyKey(p, key, c, kind, taken); err != nil {
			return err
		}
		elem.Set(it.Value())
		if err := w.apply(p.elem, elem, kind); err != nil {
			return err
		}
		c.SetMapIndex(key, elem)
	}
	v.Set(c)
	return nil
}

// applyKey masks a key so that it does not fall together with one in c.
func (w *viewer) applyKey(p *plan, key, c reflect.Value, kind Kind, taken map[string]int) error {
	if kind == shown || p.key.typ.Kind() == reflect.Bool {
		return nil
	}
	if p.key.typ.Kind() != reflect.String {
		if isNumeric(p.key.typ) && kind == hidden {
			return nil
		}
		return fmt.Errorf("masking: keys of %s cannot be masked", p.typ)
	}
	plain := w.mask(kind, key.String())
	key.SetString(plain)
	for c.MapIndex(key).IsValid() {
		taken[plain]++
		key.SetString(fmt.Sprint(plain, " ", taken[plain]+1))
	}
	return nil
}

func isNumeric(t reflect.Type) bool {
	return t.Kind() >= reflect.Int && t.Kind() <= reflect.Complex128 && t.Kind() != reflect.Uintptr
}
