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

// maskText hides in a text what identifies or pays: phones, e-mail addresses,
// cards, IBANs, INN, SNILS and OGRN.
func maskText(b *strings.Builder, text string) string {
	if isPlain(text) {
		return text
	}
	var spans []span
	for run := range phone.Runs(text) {
		spans = numbers(run.Phones(spans), run)
	}
	spans = ibans(spans, text)
	spans = emails(spans, text)
	if len(spans) == 0 {
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
	return b.String()[start:]
}

// isPlain reports whether text certainly holds no digit and no "@", as most
// notes do not. It goes by first bytes: scripts before Arabic and the general
// punctuation have no digits besides ASCII's.
func isPlain(text string) bool {
	for i := 0; i < len(text); {
		switch b := text[i]; {
		case isDigit(b) || b == '@':
			return false
		case b < utf8.RuneSelf:
			i++
		case b <= 0xd8: // up to U+063F, two bytes
			i += 2
		case b == 0xe2: // U+2000 to U+2FFF, three bytes
			i += 3
		default:
			return false
		}
	}
	return true
}

// numbers appends the cards and the numbers with a checksum of one run. A number
// begins and ends where a group of digits does, so each such pair is looked at.
func numbers(spans []span, run *phone.Run) []span {
	for i := range run.Groups {
		for j := i + 1; j <= len(run.Groups); j++ {
			digits := run.Digits(i, j)
			if len(digits) > maxCard {
				break
			}
			if len(digits) >= 10 && isNumber(run, i, j, digits) {
				spans = append(spans, span{run.Groups[i].Start, run.Groups[j-1].End})
			}
		}
	}
	return spans
}

const minCard, maxCard = 13, 19

// isNumber goes by checksums. INN and OGRN are written in one piece, cards and
// SNILS in groups too.
func isNumber(run *phone.Run, i, j int, digits []byte) bool {
	n := len(digits)
	if n >= minCard && (isLuhn(digits) && digits[0] != '0' && sameGaps(run, i, j) || isGroupedCard(run, i, j)) {
		return true
	}
	if j-i > 1 {
		return n == 11 && isGroupedSNILS(run, i, j) && isSNILS(digits)
	}
	switch n {
	case 10, 12:
		return isINN(digits)
	case 11:
		return isSNILS(digits)
	case 13, 15:
		return isOGRN(digits)
	}
	return false
}

// sameGaps reports whether the groups from i to j are separated alike. A date and
// a time beside each other are not.
func sameGaps(run *phone.Run, i, j int) bool {
	for k := i + 2; k < j; k++ {
		if run.Gap(k) != run.Gap(i+1) {
			return false
		}
	}
	return true
}

// isGroupedCard reports whether groups have the sizes printed on cards. Then a
// mistyped digit does not show the rest.
func isGroupedCard(run *phone.Run, i, j int) bool {
	return run.Sizes(i, j, "4444") || run.Sizes(i, j, "44443") || run.Sizes(i, j, "465") || run.Sizes(i, j, "464")
}

// isGroupedSNILS is for 112-233-445 95.
func isGroupedSNILS(run *phone.Run, i, j int) bool { return run.Sizes(i, j, "3332") }

// emails appends the e-mail addresses of text. What stands before the "@" is
// taken as far as it may be one, and a space on either side is looked over.
func emails(spans []span, text string) []span {
	for at := 0; ; {
		i := strings.IndexAny(text[at:], signsAt)
		if i < 0 {
			return spans
		}
		at += i
		_, size := utf8.DecodeRuneInString(text[at:])
		before := strings.TrimSuffix(text[:at], " ")
		start := len(strings.TrimRightFunc(before, isLocal))
		after := strings.TrimPrefix(text[at+size:], " ")
		host := after[:len(after)-len(strings.TrimLeftFunc(after, isHost))]
		host = strings.TrimRight(host, ".-")
		if start < len(before) && strings.Contains(host, ".") {
			spans = append(spans, span{start, len(text) - len(after) + len(host)})
		}
		at += size
	}
}

const signsAt = "@＠﹫"

func isLocal(r rune) bool {
	return !unicode.IsSpace(r) && !unicode.IsControl(r) && !strings.ContainsRune("<>()[]{},;:\"«»|"+signsAt, r)
}

func isHost(r rune) bool {
	return r == '.' || r == '-' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || unicode.Is(unicode.Cf, r)
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
		before = isAlpha(text[i]) || isDigit(text[i])
	}
	return spans
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
