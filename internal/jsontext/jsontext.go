// Package jsontext makes JSON that writes nothing to a terminal: what a text of
// somebody's holds stands in it as it is printed.
package jsontext

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable escapes what is no printable character. JSON has such only in strings and,
// as line feeds, between values; so it says the same as before.
//
// encoding/json escapes the controls of ASCII, but not DEL, those of Latin-1, such as
// the one that begins a command of a terminal, nor those that turn the direction of
// writing round.
func Printable(b []byte) []byte {
	if bytes.IndexFunc(b, escaped) < 0 {
		return b
	}
	out := make([]byte, 0, len(b)+64)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		switch {
		case !escaped(r):
			out = append(out, b[:size]...)
		case r <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
		b = b[size:]
	}
	return out
}

func escaped(r rune) bool { return r > '~' && !unicode.IsPrint(r) }
