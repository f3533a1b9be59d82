package masking

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/crmguard/crmguard/internal/phone"
)

// The lengths of IBANs, ISO 13616.
const minIBAN, maxIBAN = 15, 34

// ibanLen returns the length in bytes of the IBAN that text begins with, 0 if
// there is none. The words after an IBAN look like groups of it, so that every
// end of a group is tried.
func ibanLen(text string) int {
	n, longest, gap := 0, 0, 0
	rest := 0 // modulo 97, of what follows the first four characters
	for i := 0; i < len(text) && gap < 3; {
		c := text[i]
		if phone.IsAlnum(rune(c)) {
			if n == maxIBAN {
				break
			}
			if n >= ibanHead {
				rest = mod97(rest, c)
			}
			n, i, gap = n+1, i+1, 0
			if n >= minIBAN && (i == len(text) || !phone.IsAlnum(rune(text[i]))) && isIBAN(text[:ibanHead], rest) {
				longest = i
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if n < ibanHead || r != ' ' && r != '-' && !unicode.In(r, unicode.Zs, unicode.Pd, unicode.Cf) {
			break
		}
		i += size
		gap++
	}
	return longest
}

// ibanHead is the country and two check digits.
const ibanHead = 4

// isIBAN: the head moved to the end, letters as 10 to 35, all modulo 97 is one.
func isIBAN(head string, rest int) bool {
	for i := range len(head) {
		rest = mod97(rest, head[i])
	}
	return rest == 1
}

func mod97(rest int, c byte) int {
	if isDigit(c) {
		return (rest*10 + int(c-'0')) % 97
	}
	return (rest*100 + int(c&^0x20-'A') + 10) % 97
}

// luhn is the check of ISO/IEC 7812-1, annex B, of digits that come one by one:
// every second digit counts double, from the last but one to the left.
type luhn struct {
	sum   int // of what has come
	other int // the same, the last counting double
}

func (l *luhn) add(digits []byte) {
	for _, c := range digits {
		d := int(c - '0')
		double := 2 * d
		if double > 9 {
			double -= 9
		}
		l.sum, l.other = l.other+d, l.sum+double
	}
}

func (l luhn) valid() bool { return l.sum%10 == 0 }

// isINN checks a Russian taxpayer's number: ten digits of a company, twelve of a
// person (order ММВ-7-6/435@ of the Federal Tax Service).
func isINN(digits []byte) bool {
	const weights = "\x03\x07\x02\x04\x0a\x03\x05\x09\x04\x06\x08"
	check := func(at int) bool {
		return int(digits[at]-'0') == weigh(digits[:at], weights[len(weights)-at:])%11%10
	}
	if len(digits) == 10 {
		return check(9)
	}
	return check(10) && check(11)
}

// isSNILS checks a Russian insurance number. Numbers up to 001-001-998 have no
// check digits; nobody living has one of them.
func isSNILS(digits []byte) bool {
	sum := weigh(digits[:9], "\x09\x08\x07\x06\x05\x04\x03\x02\x01") % 101 % 100
	return string(digits[:9]) > "001001998" && int(digits[9]-'0')*10+int(digits[10]-'0') == sum
}

// isOGRN checks a Russian registration number: 13 digits of a company, 15 of an
// entrepreneur. The last is the rest of the others modulo 11 or 13.
func isOGRN(digits []byte) bool {
	last := len(digits) - 1
	if !strings.ContainsRune("1235", rune(digits[0])) {
		return false
	}
	rest := 0
	for _, d := range digits[:last] {
		rest = (rest*10 + int(d-'0')) % (last - 1)
	}
	return int(digits[last]-'0') == rest%10
}

func weigh(digits []byte, weights string) int {
	sum := 0
	for i, d := range digits {
		sum += int(d-'0') * int(weights[i])
	}
	return sum
}
