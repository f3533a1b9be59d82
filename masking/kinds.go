package masking

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/crmguard/crmguard/internal/phone"
)

const (
	phoneDigits = 2  // of the national number
	cardDigits  = 4  // PCI DSS 4.0, 3.4.1 allows BIN and last four
	nameWords   = 3  // whose first letters are shown
	nameShare   = 3  // a word shows its first letter if it has at least so many
	emailShare  = 4  // a local part likewise
	maxTLD      = 6  // letters
	letterBytes = 12 // a longer cluster carries more than a letter
)

// Each of these appends the masked value, or nothing and reports that the value
// is not of the kind.

func maskPhone(b *strings.Builder, value string) bool {
	o, ok := phone.OutlineOf(value)
	if !ok || 2*(len(o.Code)+phoneDigits) > o.Digits {
		return false
	}
	if o.Code != "" {
		b.WriteByte('+')
		b.WriteString(o.Code)
		b.WriteByte(' ')
	}
	b.WriteString(mask)
	b.WriteByte(' ')
	b.Write(o.Last[:])
	return true
}

func maskCard(b *strings.Builder, value string) bool {
	var digits [19]byte
	n := 0
	for _, r := range value {
		d, isDigit := phone.Digit(r)
		switch {
		case isDigit && n == len(digits):
			return false
		case isDigit:
			digits[n] = d
			n++
		case r != ' ' && r != '-' && r != '.' && !unicode.In(r, unicode.Zs, unicode.Pd, unicode.Cf):
			return false
		}
	}
	if n < 13 {
		return false
	}
	b.WriteString(mask)
	b.WriteByte(' ')
	b.Write(digits[n-cardDigits : n])
	return true
}

func maskEmail(b *strings.Builder, value string) bool {
	local, domain, ok := strings.Cut(value, "@")
	if !ok || local == "" || len(local) > 64 || !isAtoms(local) || !isDomain(domain) {
		return false
	}
	tld := domain[strings.LastIndexByte(domain, '.')+1:]
	if first, n := firstLetter(local, emailShare); n >= emailShare {
		b.WriteString(first)
	}
	b.WriteString(mask)
	b.WriteByte('@')
	b.WriteString(mask)
	if letters := utf8.RuneCountInString(tld); letters <= maxTLD && 2*(letters+1) <= utf8.RuneCountInString(value)-2 {
		b.WriteByte('.')
		b.WriteString(tld)
	}
	return true
}

// isAtoms reports whether s is a local part without quotes (RFC 5321, 6531).
func isAtoms(s string) bool {
	for _, r := range s {
		if !isSimple(r) && (r < utf8.RuneSelf && !atomSigns[r] || r >= utf8.RuneSelf && !unicode.In(r, unicode.L, unicode.Nd, unicode.M)) {
			return false
		}
	}
	return true
}

var atomSigns = func() (signs [utf8.RuneSelf]bool) {
	for _, r := range "0123456789!#$%&'*+-/=?^_`{|}~." {
		signs[r] = true
	}
	return signs
}()

// isDomain reports whether s is a host name of two labels or more, the last of
// which is made of letters. Internationalised labels count as letters.
func isDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	labels, label, letters := 1, 0, true // how many; of the last: length, and whether it is all letters
	for _, r := range s {
		switch {
		case isSimple(r):
		case r == '.':
			if label == 0 {
				return false
			}
			labels++
			label, letters = 0, true
			continue
		case r == '-' || unicode.In(r, unicode.Nd, unicode.M):
			letters = false
		case !unicode.IsLetter(r):
			return false
		}
		label++
	}
	return labels > 1 && letters && label >= 2
}

func maskName(b *strings.Builder, value string) bool {
	var firsts [nameWords]string
	words, ok := simpleWords(&firsts, value)
	if !ok {
		clear(firsts[:])
		words, ok = anyWords(&firsts, value)
	}
	for i := range min(words, nameWords) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(firsts[i])
		b.WriteString(mask)
	}
	return ok && words > 0
}

// simpleWords finds what to show of each of the first words. It reports false if
// there is anything but simple letters and spaces; then anyWords must do it.
func simpleWords(firsts *[nameWords]string, value string) (words int, ok bool) {
	start, size, n := 0, 0, 0 // of the current word: where, first letter, letters
	for i, r := range value {
		switch {
		case r == ' ':
			if n > 0 {
				words++
			}
			n = 0
		case !isSimple(r):
			return 0, false
		case words < nameWords:
			switch n++; n {
			case 1:
				start, size = i, utf8.RuneLen(r)
			case nameShare:
				firsts[words] = value[start : start+size]
			}
		}
	}
	if n > 0 {
		words++
	}
	return words, true
}

func anyWords(firsts *[nameWords]string, value string) (words int, ok bool) {
	for _, r := range value {
		if !unicode.In(r, unicode.L, unicode.M, unicode.White_Space) && !strings.ContainsRune(".'’ʼ-‐‑", r) {
			return 0, false
		}
	}
	for word := range strings.FieldsSeq(value) {
		if words == nameWords {
			break
		}
		if first, n := firstLetter(word, nameShare); n >= nameShare {
			firsts[words] = first
		}
		words++
	}
	return words, true
}

// firstLetter returns the first grapheme cluster of s, if it is one letter with
// its marks, and how many clusters of letters and digits s has, counted up to
// enough.
func firstLetter(s string, enough int) (first string, n int) {
	if size := simpleLetters(s, enough); size > 0 {
		return s[:size], enough
	}
	rest, state := s, -1
	for rest != "" && n < enough {
		var cluster string
		cluster, rest, _, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if len(cluster)+len(rest) == len(s) && isLetter(cluster) {
			first = cluster
		}
		if r, _ := utf8.DecodeRuneInString(cluster); unicode.In(r, unicode.L, unicode.Nd) {
			n++
		}
	}
	return first, n
}

// simpleLetters returns the size of the first letter of s if s begins with
// enough letters of scripts whose letters are a cluster each: the usual case,
// without the cost of the general one.
func simpleLetters(s string, enough int) (size int) {
	n := 0
	for _, r := range s {
		if !isSimple(r) {
			return 0
		}
		if n++; n == 1 {
			size = utf8.RuneLen(r)
		}
		if n == enough {
			return size
		}
	}
	return 0
}

func isSimple(r rune) bool {
	return 'a' <= r|0x20 && r|0x20 <= 'z' || 'Ѐ' <= r && r <= 'ҁ' || 'À' <= r && r <= 'ɏ' && r != '×' && r != '÷'
}

func isLetter(cluster string) bool {
	for i, r := range cluster {
		if !unicode.IsLetter(r) && (i == 0 || !unicode.IsMark(r)) || r == utf8.RuneError {
			return false
		}
	}
	return len(cluster) <= letterBytes
}
