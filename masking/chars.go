package masking

import (
	"reflect"
	"unicode/utf16"
)

// isChar reports whether a list of t holds a text: bytes, runes, UTF-16 units.
func isChar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Uint8, reflect.Int32, reflect.Uint16:
		return true
	}
	return false
}

// textOf returns the text that a slice of chars holds.
func textOf(v reflect.Value) string {
	switch v.Type().Elem().Kind() {
	case reflect.Uint8:
		return string(v.Bytes())
	case reflect.Int32:
		runes := make([]rune, v.Len())
		for i, to := 0, reflect.ValueOf(runes); i < len(runes); i++ {
			to.Index(i).SetInt(v.Index(i).Int())
		}
		return string(runes)
	}
	units := make([]uint16, v.Len())
	for i, to := 0, reflect.ValueOf(units); i < len(units); i++ {
		to.Index(i).SetUint(v.Index(i).Uint())
	}
	return string(utf16.Decode(units))
}

// setText makes v, a slice of chars, hold a text of its own.
func setText(v reflect.Value, text string) {
	switch v.Type().Elem().Kind() {
	case reflect.Uint8:
		v.SetBytes([]byte(text))
	case reflect.Int32:
		setChars(v, []rune(text), func(c reflect.Value, r rune) { c.SetInt(int64(r)) })
	default:
		setChars(v, utf16.Encode([]rune(text)), func(c reflect.Value, unit uint16) { c.SetUint(uint64(unit)) })
	}
}

func setChars[C any](v reflect.Value, chars []C, set func(reflect.Value, C)) {
	s := reflect.MakeSlice(v.Type(), len(chars), len(chars))
	for i, c := range chars {
		set(s.Index(i), c)
	}
	v.Set(s)
}
