package phone

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// typed is a number as somebody typed it, reduced to its digits.
type typed struct {
	digits       [maxTyped]byte
	n            int
	plus         bool
	optionalZero int // index of the zero in "(0)", 0 if there is none
}

// maxTyped leaves room for a prefix before the longest number.
const maxTyped = maxDigits + 4

// read reports false for what is no single number.
func (t *typed) read(text string) bool {
	text = strings.TrimSpace(text)
	if text != "" && text[0] >= 'A' { // an ASCII letter or any other script
		text = skipLabel(text)
	}
	var before rune // the last rune that was not invisible
	for i := 0; i < len(text); {
		r, size := rune(text[i]), 1
		if r < utf8.RuneSelf && asciiPunct[r] {
			before = r
			i++
			continue
		}
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(text[i:])
		}
		d, isDigit := Digit(r)
		switch {
		case isDigit:
			if t.n == maxTyped {
				return false
			}
			if d == '0' && opens(before) && t.n > 0 && closes(text[i+size:]) {
				t.optionalZero = t.n
			}
			t.digits[t.n] = d
			t.n++
		case isPlus(r):
			if t.plus || t.n > 0 {
				return false
			}
			t.plus = true
		case isPunct(r):
		case isExtension(text[i:]):
			return t.n > 0
		default:
			return false
		}
		if r < utf8.RuneSelf || !unicode.Is(unicode.Cf, r) {
			before = r
		}
		i += size
	}
	return t.n > 0
}

func opens(r rune) bool { return r == '(' || r == '（' || r == '[' }

func closes(rest string) bool {
	r, _ := utf8.DecodeRuneInString(rest)
	return r == ')' || r == '）' || r == ']'
}

// Digit returns the ASCII digit for a decimal digit of any script. The Unicode
// standard keeps each script's ten digits together and in order.
func Digit(r rune) (byte, bool) {
	if '0' <= r && r <= '9' {
		return byte(r), true
	}
	if r < '\u0660' || !unicode.Is(unicode.Nd, r) { // Arabic digits are the next after ASCII's
		return 0, false
	}
	first := 0 // of the range that holds r
	for _, r16 := range unicode.Nd.R16 {
		if int(r) <= int(r16.Hi) {
			first = int(r16.Lo)
			break
		}
	}
	for i := 0; first == 0; i++ {
		if r32 := unicode.Nd.R32[i]; int(r) <= int(r32.Hi) {
			first = int(r32.Lo)
		}
	}
	return '0' + byte((int(r)-first)%10), true
}

func isPlus(r rune) bool { return r == '+' || r == '＋' || r == '﹢' }

// isPunct reports whether people put r between the digits of a phone.
func isPunct(r rune) bool {
	if r < utf8.RuneSelf {
		return asciiPunct[r]
	}
	switch r {
	case '\u2212', '（', '）', '．', '／', '～', '·':
		return true
	}
	if 'Ͱ' <= r && r <= 'և' { // Greek, Cyrillic, Armenian letters
		return false
	}
	// Cf: marks of direction and zero-width characters, which come with copied numbers.
	return unicode.In(r, unicode.Zs, unicode.Pd, unicode.Cf)
}

var asciiPunct = [utf8.RuneSelf]bool{
	' ': true, '\t': true, '-': true, '(': true, ')': true, '[': true, ']': true, '.': true, '/': true, '_': true, '~': true,
}

var labels = [...]string{"telephone", "phone", "tel", "mob", "телефон", "тел", "моб", "т."}

// skipLabel drops what people write before a number, such as "tel:".
func skipLabel(text string) string {
	for _, label := range labels {
		if rest, ok := cutFold(text, label); ok {
			return strings.TrimLeft(rest, ".: \u00a0")
		}
	}
	return text
}

var extensions = [...]string{
	"extension", "extn", "ext", "x", "#",
	"добавочный", "доб", "внутренний", "внутр", "вн", "х", ";ext=",
}

// isExtension reports whether rest is an extension and nothing else.
func isExtension(rest string) bool {
	rest = strings.TrimLeft(rest, ", ")
	for _, word := range extensions {
		if number, ok := cutFold(rest, word); ok {
			return isShortNumber(number)
		}
	}
	return false
}

func isShortNumber(text string) bool {
	n := 0
	for _, r := range text {
		if _, ok := Digit(r); ok {
			n++
		} else if !isPunct(r) && r != ':' {
			return false
		}
	}
	return 0 < n && n <= 7
}

// cutFold cuts prefix, lower case, from text in any case.
func cutFold(text, prefix string) (rest string, ok bool) {
	for _, want := range prefix {
		r, size := utf8.DecodeRuneInString(text)
		if unicode.ToLower(r) != want {
			return text, false
		}
		text = text[size:]
	}
	return text, true
}
