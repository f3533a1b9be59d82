package phone

import (
	"iter"
	"slices"
	"unicode/utf8"
)

// Group is digits that stand together in a text.
type Group struct {
	Start, End int // bytes of the text
	from, to   int // digits of the run
}

// Run is groups of digits with nothing but a phone's punctuation between them.
type Run struct {
	Groups []Group
	Plus   bool // a plus stands before the first group

	text   string
	start  int // of the plus or bracket before the first group
	digits []byte
}

// maxGap is how many separators may stand between two groups, as in ") - ".
// However long a row of blanks is, it is one.
const maxGap = 5

// gapState is what stands since the last group, or since the lead.
type gapState struct {
	separators int
	last       separator
	broken     bool // a line ended
}

// add reports whether the gap is still one inside a number.
func (g *gapState) add(s separator) bool {
	switch {
	case s == noSeparator, s == lineBreak && g.broken:
		return false
	case s == lineBreak:
		g.broken = true
		s = blank
	}
	if s != blank || g.last != blank {
		g.separators++
	}
	g.last = s
	return g.separators <= maxGap
}

// Runs yields the runs of digits of a text, in order. A run is valid until the
// next one is asked for. Digits inside GUIDs and hexadecimal hashes are left out.
func Runs(text string) iter.Seq[*Run] {
	return func(yield func(*Run) bool) {
		s := scanner{text: text, lead: -1}
		s.run.text = text
		s.run.Groups, s.run.digits = s.groups[:0], s.digits[:0]
		for s.next() {
			if !yield(&s.run) {
				return
			}
		}
	}
}

// Digits returns the digits of the groups from i up to, not including, j.
func (r *Run) Digits(i, j int) []byte {
	return r.digits[r.Groups[i].from:r.Groups[j-1].to]
}

// Size returns how many digits group i has.
func (r *Run) Size(i int) int { return r.Groups[i].to - r.Groups[i].from }

// Gap returns what stands before group i, since the group before it.
func (r *Run) Gap(i int) string {
	if i == 0 {
		return r.text[r.start:r.Groups[0].Start]
	}
	return r.text[r.Groups[i-1].End:r.Groups[i].Start]
}

type scanner struct {
	text string
	pos  int
	run  Run
	lead int  // where a plus or bracket stands that may belong to the next run
	plus bool // it is or begins with a plus
	word bool // the rune before pos is an ASCII letter or digit

	groups [16]Group // room for most runs
	digits [32]byte
}

func (s *scanner) next() bool {
	s.run.Groups, s.run.digits = s.run.Groups[:0], s.run.digits[:0]
	var gap gapState
	joined := false // nothing but invisible runes since the last digit
	for s.pos < len(s.text) {
		if len(s.run.Groups) == 0 && s.lead < 0 {
			if s.skipWords(); s.pos == len(s.text) {
				break
			}
		}
		r, size := rune(s.text[s.pos]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s.text[s.pos:])
		}
		if !s.word && isHex(r) {
			if n := opaque(s.text[s.pos:]); n > 0 {
				if len(s.run.Groups) > 0 {
					return true
				}
				s.pos, s.word, s.lead = s.pos+n, true, -1
				continue
			}
		}
		s.word = IsAlnum(r)
		d, isDigit := AnyDigit(r)
		switch {
		case isDigit:
			s.add(d, size, joined)
			gap, joined = gapState{}, true
		case isPlus(r):
			if len(s.run.Groups) > 0 {
				return true // the plus is read again as the head of the next run
			}
			s.lead, s.plus = s.pos, true
		case len(s.run.Groups) == 0 && s.lead < 0:
			if opens(r) {
				s.lead, s.plus = s.pos, false
			}
		case isInvisible(r):
		default:
			var sep separator
			sep, size = separatorAt(s.text[s.pos:], r, size)
			if gap.add(sep) {
				joined = false
				break
			}
			if len(s.run.Groups) > 0 {
				return true
			}
			gap, s.lead = gapState{}, -1
		}
		s.pos += size
	}
	return len(s.run.Groups) > 0
}

// skipWords goes to the next byte that may matter outside a run. Most of a text
// is words, so this decides how fast it is read.
func (s *scanner) skipWords() {
	for s.pos < len(s.text) {
		switch b := s.text[s.pos]; {
		case 'a' <= b|0x20 && b|0x20 <= 'z':
			if !s.word && isHex(rune(b)) {
				return // may begin a hash
			}
			s.word = true
			s.pos++
		case b >= utf8.RuneSelf:
			if b < 0xd0 || b > 0xd3 || s.pos+1 == len(s.text) || utf8.RuneStart(s.text[s.pos+1]) {
				return
			}
			s.word = false // a Cyrillic letter, two bytes
			s.pos += 2
		case '0' <= b && b <= '9', isPlus(rune(b)), opens(rune(b)):
			return
		default:
			s.word = false
			s.pos++
		}
	}
}

func (s *scanner) add(d byte, size int, joined bool) {
	run := &s.run
	if len(run.Groups) == 0 {
		run.start, run.Plus = s.pos, false
		if s.lead >= 0 {
			run.start, run.Plus = s.lead, s.plus
		}
		s.lead = -1
	}
	if !joined || len(run.Groups) == 0 {
		run.Groups = append(run.Groups, Group{Start: s.pos, from: len(run.digits)})
	}
	run.digits = append(run.digits, d)
	g := &run.Groups[len(run.Groups)-1]
	g.End, g.to = s.pos+size, len(run.digits)
}

// IsAlnum reports whether r is an ASCII letter or digit.
func IsAlnum(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'z'
}

func isHex(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'f'
}

// opaque returns the length of the GUID or hexadecimal hash that text begins
// with, 0 if there is none.
func opaque(text string) int {
	if isGUID(text) {
		return guidLen
	}
	return hashLen(text)
}

// hashLens are those of MD5, SHA-1, SHA-224, SHA-256, SHA-384 and SHA-512.
var hashLens = [...]int{32, 40, 56, 64, 96, 128}

// hashLen returns the length of the hash that text begins with. One that begins
// or ends with as many digits as a phone has, or with hardly any letters, is
// rather a number with a tail.
func hashLen(text string) int {
	n, head, tail := 0, 0, 0 // length; digits at either end
	var letters [6]bool
	for n < len(text) && IsAlnum(rune(text[n])) {
		c := text[n]
		if !isHex(rune(c)) || n == hashLens[len(hashLens)-1] {
			return 0
		}
		if c > '9' {
			letters[hexValue(c)-10] = true
			tail = 0
		} else if tail++; tail > n {
			head = tail
		}
		n++
	}
	different := 0
	for _, seen := range letters {
		if seen {
			different++
		}
	}
	const phoneDigits, lettersOfHash = 10, 4
	if head >= phoneDigits || tail >= phoneDigits || different < lettersOfHash || !slices.Contains(hashLens[:], n) {
		return 0
	}
	return n
}

const guidLen = 36

func isGUID(text string) bool {
	if len(text) < guidLen || len(text) > guidLen && IsAlnum(rune(text[guidLen])) {
		return false
	}
	for i := range guidLen {
		switch i {
		case 8, 13, 18, 23:
			if text[i] != '-' {
				return false
			}
		default:
			if !isHex(rune(text[i])) {
				return false
			}
		}
	}
	return true
}
