package masking

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The lengths of IBANs, ISO 13616.
const minIBAN, maxIBAN = 15, 34

// ibanLen returns the length in bytes of the IBAN that text begins with, 0 if
// there is none. The words after an IBAN look like groups of it, so that every
// end of a group is tried.
func ibanLen(text string) int {
	var chars [maxIBAN]byte
	n, longest := 0, 0
	gap := 0
	for i := 0; i < len(text) && gap < 3; {
		c := text[i]
		if isAlpha(c) || isDigit(c) {
			if n == maxIBAN {
				break
			}
			chars[n] = c
			n, i, gap = n+1, i+1, 0
			if n >= minIBAN && (i == len(text) || !isAlpha(text[i]) && !isDigit(text[i])) && isIBAN(chars[:n]) {
				longest = i
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if !unicode.In(r, unicode.Zs, unicode.Pd, unicode.Cf) {
			break
		}
		i += size
		gap++
	}
	return longest
}

// isIBAN: the first four characters moved to the end, letters as 10 to 35, the
// rest modulo 97 is one.
func isIBAN(chars []byte) bool {
	rest := 0
	for k := range len(chars) {
		c := chars[(k+4)%len(chars)]
		if isDigit(c) {
			rest = (rest*10 + int(c-'0')) % 97
		} else {
			rest = (rest*100 + int(c&^0x20-'A') + 10) % 97
		}
	}
	return rest == 1
}

// isLuhn is the check of ISO/IEC 7812-1, annex B.
func isLuhn(digits []byte) bool {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

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
