package masking

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/crmguard/crmguard/internal/phone"
)

// span is a range of bytes to hide.
type span = [2]int

// maxText is how many bytes of a text are looked at. What lies beyond is hidden,
// so that a hostile text costs some tens of milliseconds at most.
const maxText = 64 << 10

// maskText hides in a text what identifies or pays: phones, e-mail addresses,
// cards, IBANs, INN, SNILS and OGRN.
func maskText(b *strings.Builder, text string) string {
	long := len(text) > maxText
	if long {
		text = beforeCut(text[:maxText])
	} else if isPlain(text) {
		return text
	}
	var spans []span
	for run := range phone.Runs(text) {
		spans = numbers(run.Phones(spans), run)
	}
	spans = ibans(spans, text)
	spans = emails(spans, text)
	if len(spans) == 0 && !long {
		return text
	}
	slices.SortFunc(spans, func(a, b span) int { return a[0] - b[0] })
	start, end := b.Len(), 0
	for _, s := range spans {
		if s[0] < end { // overlaps what is hidden already
			if s[1] > end {
				end = s[1]
			}
			continue
		}
		b.WriteString(text[end:s[0]])
		b.WriteString(mask)
		end = s[1]
	}
	b.WriteString(text[end:])
	if long {
		b.WriteString(mask)
	}
	return b.String()[start:]
}

// beforeCut drops the number and the word with which a text breaks off: they may
// be the first half of something to hide.
func beforeCut(text string) string {
	text = strings.TrimRightFunc(text, func(r rune) bool { return !unicode.IsLetter(r) })
	return strings.TrimRightFunc(text, func(r rune) bool { return !unicode.IsSpace(r) })
}

// isPlain reports whether text certainly holds no digit and no "@", as most
// notes do not.
func isPlain(text string) bool {
	for i := 0; i < len(text); {
		b := text[i]
		switch {
		case isDigit(b) || b == '@':
			return false
		case b < utf8.RuneSelf:
			i++
			continue
		case 0xd0 <= b && b <= 0xd3 && i+1 < len(text) && !utf8.RuneStart(text[i+1]): // Cyrillic
			i += 2
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if _, ok := phone.AnyDigit(r); ok || r == '＠' || r == '﹫' {
			return false
		}
		i += size
	}
	return true
}

// emails appends the e-mail addresses of text. What stands before the "@" is
// taken as far as it may be one, and blanks on either side are looked over.
func emails(spans []span, text string) []span {
	for at := 0; at < len(text); at++ {
		size := signAt(text[at:])
		if size == 0 {
			continue
		}
		before := strings.TrimRightFunc(text[:at], isFiller)
		start := localStart(before)
		after := strings.TrimLeftFunc(text[at+size:], isFiller)
		if n := hostLen(after); n > 0 && start < len(before) {
			spans = append(spans, span{start, len(text) - len(after) + n})
		}
		at += size - 1
	}
	return spans
}

func signAt(text string) (size int) {
	switch {
	case text[0] == '@':
		return 1
	case text[0] == 0xef && (strings.HasPrefix(text, "＠") || strings.HasPrefix(text, "﹫")):
		return len("＠")
	}
	return 0
}

func isFiller(r rune) bool {
	return phone.IsBlank(r) || r >= utf8.RuneSelf && unicode.Is(unicode.Cf, r)
}

// maxQuoted leaves room for 64 bytes in quotes, each escaped.
const maxQuoted = 2 + 2*64

// localStart returns where the local part begins that text ends with.
func localStart(text string) int {
	if unquoted, ok := strings.CutSuffix(text, `"`); ok {
		for i := len(unquoted) - 1; i >= max(0, len(text)-maxQuoted) && text[i] != '\n'; i-- {
			if text[i] == '"' && (i == 0 || text[i-1] != '\\') {
				return i
			}
		}
		text = unquoted
	}
	return len(strings.TrimRightFunc(text, isLocal))
}

func isLocal(r rune) bool {
	return !unicode.IsSpace(r) && !unicode.IsControl(r) && !strings.ContainsRune("<>()[]{},;:\"«»|@＠﹫", r)
}

const dots = ".．。｡"

// hostLen returns the length of the domain, or address in brackets, that text
// begins with, 0 if there is none.
func hostLen(text string) int {
	if strings.HasPrefix(text, "[") {
		address := strings.TrimLeftFunc(text[1:], func(r rune) bool { return r < utf8.RuneSelf && (phone.IsAlnum(r) || r == '.' || r == ':') })
		if n := len(text) - len(address); n > 1 && strings.HasPrefix(address, "]") {
			return n + 1
		}
		return 0
	}
	host := text[:len(text)-len(strings.TrimLeftFunc(text, isHost))]
	host = strings.TrimRight(host, "-_"+dots)
	if !strings.ContainsAny(host, dots) {
		return 0
	}
	return len(host)
}

// isHost takes bytes that are no UTF-8 for letters.
func isHost(r rune) bool {
	if r < utf8.RuneSelf {
		return phone.IsAlnum(r) || r == '.' || r == '-' || r == '_'
	}
	return unicode.In(r, unicode.L, unicode.Nd, unicode.M, unicode.Cf) || r == utf8.RuneError || strings.ContainsRune(dots, r)
}

// ibans appends the IBANs of text, in groups or in one piece, in either case.
func ibans(spans []span, text string) []span {
	before := false // whether a letter or digit stands before i
	for i := 0; i+minIBAN <= len(text); i++ {
		if !before && isAlpha(text[i]) && isAlpha(text[i+1]) && isDigit(text[i+2]) && isDigit(text[i+3]) {
			if n := ibanLen(text[i:]); n > 0 {
				spans = append(spans, span{i, i + n})
				i += n - 1
			}
		}
		before = phone.IsAlnum(rune(text[i]))
	}
	return spans
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
