package phone

// Outline is as much of a number as may be shown of a hidden one.
type Outline struct {
	Code   string  // calling code without the plus; empty if the number was typed without one
	Last   [2]byte // last two digits
	Digits int     // digits in all, with the calling code if there is one, without an extension
}

// longestNational is the longest number as typed inside a country.
const longestNational = 13

// OutlineOf reads one typed number as [Parse] does, of whatever region. It
// allocates nothing for countries in the table.
func OutlineOf(text string) (Outline, bool) {
	var t typed
	if !t.read(text) {
		return Outline{}, false
	}
	digits := t.digits[:t.n]
	if !t.plus {
		rest, ok := dialledAbroad(digits, nil)
		if !ok || planOfCode(rest) == nil && codeLen(rest) == 0 {
			return outline("", digits, minDigits, longestNational)
		}
		digits = rest
	}
	if p := planOfCode(digits); p != nil {
		nsn, ok := p.national(digits[len(p.code):])
		if !ok {
			return Outline{}, false
		}
		return outline(p.code, nsn, 0, maxDigits)
	}
	code := codeLen(digits)
	if code == 0 {
		return Outline{}, false
	}
	return outline(string(digits[:code]), digits[code:], minDigits-code, maxDigits-code)
}

func outline(code string, nsn []byte, shortest, longest int) (Outline, bool) {
	n := len(nsn)
	if n < max(shortest, 2) || n > longest {
		return Outline{}, false
	}
	return Outline{Code: code, Last: [2]byte(nsn[n-2:]), Digits: len(code) + n}, true
}
