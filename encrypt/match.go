package encrypt

import (
	"bytes"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// matcher finds in opened values what [Query] describes.
type matcher struct {
	words   [][]byte
	numbers []number
}

// number is a row of digits, and how else it may have been typed.
type number struct{ digits, other []byte }

func newMatcher(query string) *matcher {
	m := &matcher{}
	var digits []byte
	flush := func() {
		if len(digits) > 0 {
			m.numbers = append(m.numbers, newNumber(digits))
			digits = nil
		}
	}
	const marks = `,;:"«»“”„` // "Petrova, Anna"; numbers on both sides of one are two
	for word := range bytes.FieldsSeq(fold(nil, query)) {
		begins := bytes.TrimLeft(word, marks)
		if len(begins) < len(word) {
			flush()
		}
		word = bytes.TrimRight(begins, marks)
		switch kindOf(word) {
		case separators: // a dash between numbers
		case numeric:
			for _, b := range word {
				if isDigit(b) {
					digits = append(digits, b)
				}
			}
		default:
			flush()
			m.words = append(m.words, word)
		}
		if len(word) < len(begins) {
			flush()
		}
	}
	flush()
	return m
}

// alike is how many digits a number needs so that a leading 7 and 8 are alike.
const alike = 5

func newNumber(digits []byte) number {
	n := number{digits: digits}
	if len(digits) >= alike && (digits[0] == '7' || digits[0] == '8') {
		n.other = bytes.Clone(digits)
		n.other[0] ^= '7' ^ '8'
	}
	return n
}

// kinds of words in a query.
const (
	text       = iota
	numeric    // digits and what separates them
	separators // nothing else
)

func kindOf(word []byte) int {
	kind := separators
	for _, b := range word {
		switch {
		case isDigit(b):
			kind = numeric
		case !separates(b):
			return text
		}
	}
	return kind
}

func isDigit(b byte) bool { return b-'0' <= 9 }

// separates says whether a folded byte may stand between digits of one number.
func separates(b byte) bool {
	switch b {
	case ' ', '-', '(', ')', '+', '.', '/':
		return true
	}
	return false
}

// empty says that nothing is looked for, and nothing found.
func (m *matcher) empty() bool { return len(m.words) == 0 && len(m.numbers) == 0 }

// haystackRoom is what the values of most rows fit in.
const haystackRoom = 384

// match looks at folded values with a zero byte after each, which occurs in no word.
func (m *matcher) match(haystack []byte) bool {
	for _, word := range m.words {
		if !bytes.Contains(haystack, word) {
			return false
		}
	}
	if len(m.numbers) == 0 {
		return true
	}
	var room [haystackRoom]byte
	digits := appendNumbers(room[:0], haystack)
	for i := range m.numbers {
		n := &m.numbers[i]
		if !bytes.Contains(digits, n.digits) && (n.other == nil || !bytes.Contains(digits, n.other)) {
			return false
		}
	}
	return true
}

// appendNumbers appends the digits of each number in folded text, and a zero byte
// between numbers.
func appendNumbers(dst, folded []byte) []byte {
	for _, b := range folded {
		switch {
		case isDigit(b):
			dst = append(dst, b)
		case !separates(b) && len(dst) > 0 && dst[len(dst)-1] != 0:
			dst = append(dst, 0)
		}
	}
	return dst
}

// fold appends what of a value is compared. Most runes fold by a table; a value with
// any other is folded as a whole, because marks change what stands before them.
func fold[S string | []byte](dst []byte, s S) []byte {
	start, table := len(dst), foldTable()
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			dst = append(dst, table.ascii[b])
			i++
			continue
		}
		if b < 0xC2 || b >= tableEnd || i+1 == len(s) || s[i+1]&0xC0 != 0x80 { // three bytes and more, or no UTF-8
			return foldSlowly(dst[:start], string(s), table)
		}
		f := &table.pairs[int(b&0x1F)<<6|int(s[i+1]&0x3F)]
		switch f.n {
		case 1:
			dst = append(dst, f.bytes[0])
		case 2:
			dst = append(dst, f.bytes[0], f.bytes[1])
		default:
			return foldSlowly(dst[:start], string(s), table)
		}
		i += 2
	}
	return dst
}

// tableEnd is the first byte of the first rune behind the table: it ends with the
// Cyrillic block's letters of living languages.
const (
	tableEnd   = 0xD2
	tableRunes = (tableEnd & 0x1F) << 6
)

type folds struct {
	ascii [utf8.RuneSelf]byte
	pairs [tableRunes]struct {
		n     uint8 // 0: fold the whole value slowly
		bytes [2]byte
	}
}

// foldTable knows the runes that fold to one byte or two whatever surrounds them.
var foldTable = sync.OnceValue(func() *folds {
	table := &folds{}
	for r := range rune(utf8.RuneSelf) {
		table.ascii[r] = foldSlowly(nil, string(r), nil)[0]
	}
	for r := rune(utf8.RuneSelf); r < tableRunes; r++ {
		folded := foldSlowly(nil, string(r), nil)
		if len(folded) <= 2 && norm.NFKC.PropertiesString(string(r)).BoundaryBefore() {
			table.pairs[r].n = uint8(len(folded)) //nolint:gosec // at most 2
			copy(table.pairs[r].bytes[:], folded)
		}
	}
	return table
})

// foldSlowly goes by the table where it can, except while the table is made.
func foldSlowly(dst []byte, s string, table *folds) []byte {
	for _, r := range norm.NFKC.String(s) {
		switch {
		case table != nil && r < utf8.RuneSelf:
			dst = append(dst, table.ascii[r])
		case table != nil && r < tableRunes && table.pairs[r].n > 0:
			f := &table.pairs[r]
			dst = append(dst, f.bytes[:f.n]...)
		default:
			dst = appendFolded(dst, r)
		}
	}
	return dst
}

// letters that people type as others, though no accent tells them apart.
var otherLetters = map[rune]string{
	'ß': "ss", 'æ': "ae", 'œ': "oe", 'ø': "o", 'đ': "d", 'ł': "l", 'ı': "i", 'ς': "σ", 'ё': "е", 'ѐ': "е", 'ѝ': "и",
	'’': "'", '‘': "'", 'ʼ': "'", '`': "'", '‐': "-", '‑': "-", '‒': "-", '–': "-", '—': "-", '−': "-",
}

// appendFolded folds a rune of text in NFKC.
func appendFolded(dst []byte, r rune) []byte {
	switch {
	case unicode.IsSpace(r) || unicode.IsControl(r):
		return append(dst, ' ')
	case isAccent(r) || r == '\u00ad' || r == '\u200b' || r == '\ufeff': // and what nobody sees
		return dst
	case unicode.In(r, unicode.Latin, unicode.Greek):
		for _, part := range norm.NFD.String(string(r)) {
			if !isAccent(part) {
				dst = appendLetter(dst, part)
			}
		}
		return dst
	}
	return appendLetter(dst, r)
}

func appendLetter(dst []byte, r rune) []byte {
	r = unicode.ToLower(r)
	if other, ok := otherLetters[r]; ok {
		return append(dst, other...)
	}
	return utf8.AppendRune(dst, r)
}

// isAccent says whether a mark may be left out. Those of Indic and other scripts are
// vowels, without which words are others.
func isAccent(r rune) bool {
	return r >= 0x0300 && r <= 0x036F || // diacritical marks
		r >= 0x0591 && r <= 0x05C7 && unicode.Is(unicode.Mn, r) || // points of Hebrew
		r >= 0x064B && r <= 0x0652 || r == 0x0670 // vowels of Arabic
}
