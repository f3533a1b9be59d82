package phone

import "strings"

// Find returns the byte ranges of text that have a phone's shape, in order. It
// would rather take another number for a phone than miss one; dates, IP
// addresses, GUIDs, hashes and sums of money written in thousands are none.
func Find(text string) [][2]int {
	var found [][2]int
	for run := range Runs(text) {
		found = run.Phones(found)
	}
	return found
}

// Phones appends the byte ranges of the phones of one run.
func (r *Run) Phones(found [][2]int) [][2]int {
	for i := 0; i < len(r.Groups); {
		if n := r.notPhone(i); n > 0 {
			i += n
			continue
		}
		j := r.phoneAt(i)
		if j == 0 {
			i++
			continue
		}
		found = append(found, [2]int{r.startOf(i), r.Groups[j-1].End})
		i = j
	}
	return found
}

// startOf is where group i begins, with its plus or opening bracket.
func (r *Run) startOf(i int) int {
	if i == 0 {
		return r.start
	}
	gap := r.Gap(i)
	if open := strings.LastIndexAny(gap, "([（"); open >= 0 {
		return r.Groups[i-1].End + open
	}
	return r.Groups[i].Start
}

// shortest is a number inside a town.
const shortest = 6

// phoneAt returns the end of the longest phone that begins with group i, 0 if
// none does.
func (r *Run) phoneAt(i int) int {
	end := i
	for end < len(r.Groups) && len(r.Digits(i, end+1)) <= maxTyped {
		end++
	}
	for j := end; j > i; j-- {
		digits := r.Digits(i, j)
		if len(digits) < shortest {
			break
		}
		if r.Plus && i == 0 {
			if isInternational(digits) {
				return j
			}
			continue
		}
		if r.national(i, j, digits) {
			return j
		}
	}
	if r.Plus && i == 0 { // a plus before many digits, though no number that we know
		for j := end; j > i; j-- {
			if n := len(r.Digits(i, j)); n >= 9 && n <= maxDigits {
				return j
			}
		}
	}
	return 0
}

func isInternational(digits []byte) bool {
	if p := planOfCode(digits); p != nil {
		_, ok := p.national(digits[len(p.code):])
		return ok
	}
	code := codeLen(digits)
	return code > 0 && len(digits) <= maxDigits
}

// national reports whether the groups from i to j look like a number typed
// without a plus.
func (r *Run) national(i, j int, digits []byte) bool {
	if len(digits) > longestNational && digits[0] != '0' && digits[0] != '8' {
		return false // usual for long rows of digits, and what follows is dear
	}
	first := r.Size(i)
	if rest, ok := dialledAbroad(digits, nil); ok && len(digits) > 9 && isInternational(rest) {
		return true
	}
	switch n := len(digits); {
	case hasPrefix(digits, planRU.abroad) && n > 11:
		return isInternational(digits[len(planRU.abroad):])
	case digits[0] == '0':
		return digits[1] != '0' && (first != 2 || r.all(i, j, 2)) && (10 <= n && n <= 12 || n == 9 && j-i > 1)
	case n == 6:
		return r.Sizes(i, j, "222") && r.Gap(i+1) == "-" && r.Gap(i+2) == "-"
	case n == 7:
		return r.Sizes(i, j, "322") || r.Sizes(i, j, "34") && r.Gap(i+1) == "-" && digits[6] != '0'
	case n == 9:
		return r.Sizes(i, j, "2322") || r.bracket(i)
	case n == 10:
		return planUS.fits(digits) && r.Sizes(i, j, "334") ||
			(first == 10 || r.all(i, j, 1)) && (planUS.fits(digits) || planRU.fits(digits)) ||
			first >= 3 && first <= 6 && planRU.fits(digits) || r.bracket(i)
	case n == 11 && (digits[0] == '7' || digits[0] == '8'):
		return true
	case n >= 11 && n <= 13:
		return planOfCode(digits) != nil && isInternational(digits) || n == 12 && digits[0] == '9' && digits[1] == '9' ||
			n == 11 && r.bracket(i)
	}
	return false
}

// bracket reports whether group i stands in brackets, as area codes do.
func (r *Run) bracket(i int) bool { return strings.ContainsAny(r.Gap(i), "([（") }

// Sizes reports whether the groups from i to j have these sizes, a digit each.
func (r *Run) Sizes(i, j int, want string) bool {
	if j-i != len(want) {
		return false
	}
	for k := range len(want) {
		if r.Size(i+k) != int(want[k]-'0') {
			return false
		}
	}
	return true
}

// all reports whether all groups from i to j have this size.
func (r *Run) all(i, j, size int) bool {
	for ; i < j; i++ {
		if r.Size(i) != size {
			return false
		}
	}
	return true
}

// notPhone returns how many groups from i on make a date or an IP address. What
// a phone may begin with is neither, unless another date or address follows.
func (r *Run) notPhone(i int) int {
	n, sure := r.dateOrAddress(i)
	if n == 0 || sure || r.phoneAt(i) <= i+n {
		return n
	}
	if next, _ := r.dateOrAddress(i + n); next > 0 && r.Gap(i+n) != r.Gap(i+1) {
		return n
	}
	return 0
}

// dateOrAddress returns how many groups from i on have the shape of a date or an
// IP address, and whether it cannot be a part of a phone: a date with a long year
// that goes no further.
func (r *Run) dateOrAddress(i int) (n int, sure bool) {
	if i+2 >= len(r.Groups) || r.Plus && i == 0 {
		return 0, false
	}
	gap := r.Gap(i + 1)
	if gap != "." && gap != "/" && gap != "-" || gap != r.Gap(i+2) {
		return 0, false
	}
	further := i+3 < len(r.Groups) && r.Gap(i+3) == gap
	if further && gap == "." && r.octets(i) && (i+4 == len(r.Groups) || r.Gap(i+4) != ".") {
		return 4, false
	}
	if !r.isDate(i) {
		return 0, false
	}
	return 3, !further && (r.Size(i) == 4 || r.Size(i+2) == 4)
}

func (r *Run) octets(i int) bool {
	for k := i; k < i+4; k++ {
		if r.Size(k) > 3 || r.value(k) > 255 {
			return false
		}
	}
	return true
}

func (r *Run) isDate(i int) bool {
	a, b, c := r.Size(i), r.Size(i+1), r.Size(i+2)
	x, y, z := r.value(i), r.value(i+1), r.value(i+2)
	switch {
	case a == 4 && b <= 2 && c <= 2:
		return x >= 1900 && x < 2100 && isDay(y, z)
	case a <= 2 && b <= 2 && c == 4:
		return z >= 1900 && z < 2100 && (isDay(y, x) || isDay(x, y))
	case a <= 2 && b <= 2 && c == 2:
		return isDay(y, x) || isDay(x, y) || a == 2 && isDay(y, z)
	}
	return false
}

func isDay(month, day int) bool { return 1 <= month && month <= 12 && 1 <= day && day <= 31 }

// value is the number that group i is, if it has at most four digits.
func (r *Run) value(i int) int {
	n := 0
	for _, d := range r.Digits(i, i+1) {
		if n = 10*n + int(d-'0'); n > 9999 {
			return n
		}
	}
	return n
}
