package phone

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// separator is what a character, or several that spell one, means between the
// digits of a text.
type separator uint8

const (
	noSeparator separator = iota
	punctuation
	blank
	lineBreak
)

// separatorAt returns the separator that text begins with and its size. R is the
// first rune. Entities and percent-encoding come with what was copied from a page
// or an address.
func separatorAt(text string, r rune, size int) (separator, int) {
	if IsBlank(r) {
		return blank, size
	}
	switch r {
	case '\n', '\u2028', '\u2029', '\u0085':
		return lineBreak, size
	case '\r':
		if strings.HasPrefix(text, "\r\n") {
			return lineBreak, 2
		}
		return lineBreak, 1
	case '&':
		return entityAt(text)
	case '%':
		return encodedAt(text)
	}
	if isPunct(r) {
		return punctuation, size
	}
	return noSeparator, size
}

// IsBlank reports whether r shows as a space: spaces, tabs and letters without ink.
func IsBlank(r rune) bool {
	switch r {
	case ' ', '\t', '\u115f', '\u1160', '\u2800', '\u3164', '\uffa0':
		return true
	}
	return r >= utf8.RuneSelf && unicode.Is(unicode.Zs, r)
}

var entities = [...]string{"&nbsp;", "&ensp;", "&emsp;", "&thinsp;", "&#32;", "&#160;", "&#x20;", "&#xa0;", "&#8239;", "&#x202f;"}

func entityAt(text string) (separator, int) {
	for _, entity := range entities {
		if len(text) >= len(entity) && strings.EqualFold(text[:len(entity)], entity) {
			return blank, len(entity)
		}
	}
	return noSeparator, 1
}

func encodedAt(text string) (separator, int) {
	if len(text) >= 6 && strings.EqualFold(text[:6], "%c2%a0") {
		return blank, 6
	}
	if len(text) < 3 || !isHex(rune(text[1])) || !isHex(rune(text[2])) {
		return noSeparator, 1
	}
	switch r := rune(hexValue(text[1])<<4 | hexValue(text[2])); {
	case r == ' ' || r == '\t':
		return blank, 3
	case r < utf8.RuneSelf && asciiPunct[r]:
		return punctuation, 3
	}
	return noSeparator, 1
}

func hexValue(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// isInvisible reports whether r leaves digits standing together: zero-width
// characters, marks of direction, marks on digits such as keycaps, and the
// replacement for bytes that are no UTF-8.
func isInvisible(r rune) bool {
	if r < '\u0300' {
		return r == '\u00ad'
	}
	return r == utf8.RuneError || unicode.In(r, unicode.Cf, unicode.Mn, unicode.Me)
}

// dressed are the rows of digits that are raised, lowered, circled, in brackets or
// with a stop: the first of each, and what the row stands for.
var dressed = [...]struct {
	first  rune
	digits string
}{
	{'²', "23"}, {'¹', "1"}, {'⁰', "0"}, {'⁴', "456789"}, {'₀', "0123456789"},
	{'①', "123456789"}, {'⑴', "123456789"}, {'⒈', "123456789"}, {'⓪', "0"}, {'⓵', "123456789"}, {'⓿', "0"},
	{'❶', "123456789"}, {'➀', "123456789"}, {'➊', "123456789"}, {'🄀', "00123456789"}, {'🄋', "0"}, {'🄌', "0"},
}

// AnyDigit is [Digit] for texts, where digits that are no decimal digits to
// Unicode, such as ² and ②, are read as well.
func AnyDigit(r rune) (byte, bool) {
	if d, ok := Digit(r); ok || r < '²' || '¹' < r && r < '⁰' {
		return d, ok
	}
	if !unicode.Is(unicode.No, r) {
		return 0, false
	}
	for _, row := range dressed {
		if i := int(r - row.first); 0 <= i && i < len(row.digits) {
			return row.digits[i], true
		}
	}
	return 0, false
}
