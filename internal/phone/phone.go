// Package phone reads phone numbers in the shapes in which people type them.
//
// [Parse] turns one typed number into E.164, so that two spellings of a number
// compare equal. [Find] points at everything in free text that has a phone's
// shape, so that it can be hidden.
//
//	n, ok := phone.Parse("8 (916) 123-45-67 доб. 12", "RU")
//	n.E164     // "+79161234567"
//	n.Country  // "RU"
//	n.National // "9161234567"
//
// The rules are a small table of our own (see plan.go): calling code, trunk and
// international prefixes, lengths, leading digits. It is meant to be fast and to
// agree on valid numbers, not to tell every unassigned number from an assigned
// one: github.com/nyaruka/phonenumbers, the oracle of the tests, does that and
// needs 12 to 21 µs a number. Countries outside the table are read after their
// calling code only, as ITU-T E.164 allows: 7 to 15 digits.
//
// # Compatibility
//
// E164 feeds blind indexes, so the result of Parse for a number is stable: a
// number that parses today keeps its E164.
package phone

// Number is a phone number.
type Number struct {
	E164     string // "+" and 7 to 15 ASCII digits
	Country  string // ISO 3166 code; empty for a calling code outside the table
	National string // E164 without the calling code
}

// Code returns the calling code with its plus, such as "+7".
func (n Number) Code() string { return n.E164[:len(n.E164)-len(n.National)] }

// Parse reads one phone number. Region is the upper-case ISO code of the country
// whose habits numbers without a calling code follow; with an unknown or empty
// region only international numbers are read. An extension is dropped. Letters,
// anything else that is not a phone's punctuation, and more than one number are
// refused.
func Parse(text, region string) (Number, bool) {
	var t typed
	if !t.read(text) {
		return Number{}, false
	}
	digits := t.digits[:t.n]
	if t.plus {
		return international(digits, t.optionalZero)
	}
	home := planOf(region)
	if home != nil {
		if nsn, ok := home.national(digits); ok {
			return number(home, nsn), true
		}
	}
	if rest, ok := dialledAbroad(digits, home); ok {
		return international(rest, t.optionalZero-(len(digits)-len(rest)))
	}
	if home != nil && hasPrefix(digits, home.code) { // the plus was forgotten
		if nsn, ok := home.national(digits[len(home.code):]); ok {
			return number(home, nsn), true
		}
	}
	return Number{}, false
}

// dialledAbroad strips the prefix that is dialled before a calling code: that of
// the region, or one of the two that are known everywhere.
func dialledAbroad(digits []byte, home *plan) ([]byte, bool) {
	switch {
	case home != nil && hasPrefix(digits, home.abroad):
		return digits[len(home.abroad):], true
	case hasPrefix(digits, "00"):
		return digits[len("00"):], true
	case hasPrefix(digits, planUS.abroad) && len(digits) > longestLeeds:
		return digits[len(planUS.abroad):], true
	}
	return nil, false
}

// longestLeeds is the length of British numbers such as 0113 496 0000, which
// begin as calls from America do.
const longestLeeds = 11

// international reads digits that begin with a calling code. A zero typed in
// brackets, as in "+44 (0)20", stands at optionalZero, if that is positive; it
// is dialled inside the country only, except in Italy.
func international(digits []byte, optionalZero int) (Number, bool) {
	if p := planOfCode(digits); p != nil {
		nsn, ok := p.national(digits[len(p.code):])
		if !ok {
			return Number{}, false
		}
		return number(p, nsn), true
	}
	code := codeLen(digits)
	if code == 0 {
		return Number{}, false
	}
	nsn := digits[code:]
	if optionalZero == code && string(digits[:code]) != "39" {
		nsn = nsn[1:]
	}
	if total := code + len(nsn); total < minDigits || total > maxDigits {
		return Number{}, false
	}
	return build(digits[:code], nsn, ""), true
}

func number(p *plan, nsn []byte) Number {
	return build(p.code, nsn, p.countryOf(nsn))
}

// build makes the number with one allocation: National shares E164's memory.
func build[C string | []byte](code C, nsn []byte, country string) Number {
	var buf [1 + maxDigits]byte
	buf[0] = '+'
	n := 1 + copy(buf[1:], code)
	n += copy(buf[n:], nsn)
	e164 := string(buf[:n])
	return Number{E164: e164, Country: country, National: e164[n-len(nsn):]}
}

func hasPrefix(digits []byte, prefix string) bool {
	return len(digits) >= len(prefix) && string(digits[:len(prefix)]) == prefix
}
