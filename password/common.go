package password

import (
	"slices"
	"strings"
	"sync"
	"unicode"
)

// lookAt is how many characters of a password are searched for what is common.
// A longer password that is common so far is refused as well.
const lookAt = 64

// rows are runs of keys: digits, English, German, Russian.
var rows = [][]rune{
	[]rune("1234567890"), []rune("qwertyuiop"), []rune("asdfghjkl"), []rune("zxcvbnm"),
	[]rune("qwertzuiop"), []rune("yxcvbnm"),
	[]rune("йцукенгшщзхъ"), []rune("фывапролджэ"), []rune("ячсмитьбю"),
}

// common are the words of common.txt by their first character, as typed and as
// they look when digits and signs stand for letters.
var common = sync.OnceValue(func() map[rune][][]rune {
	byFirst := map[rune][][]rune{}
	for line := range strings.Lines(commonText) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "# ") {
			word := []rune(line)
			byFirst[word[0]] = append(byFirst[word[0]], word)
		}
	}
	return byFirst
})

// unknown counts the characters of a folded password that are left when all that
// is common is taken away, in the way that leaves fewest: words of the list, rows
// of keys, three or more characters that are the same or follow each other (aaa,
// 123, dcb), and what repeats what stands before it. Any row of digits counts as
// one character, because years, dates and phones are digits.
func unknown(folded string) int {
	s := []rune(folded)
	s = s[:min(len(s), lookAt)]
	// left[i] is the least that is left of the first i characters.
	left := make([]int, len(s)+1)
	for i := range left {
		left[i] = i
	}
	for i := range s {
		take := func(n, costs int) { left[i+n] = min(left[i+n], left[i]+costs) }
		take(1, 1)
		for _, word := range common()[s[i]] {
			if len(word) <= len(s)-i && slices.Equal(word, s[i:i+len(word)]) {
				take(len(word), 0)
			}
		}
		for n := 1; i+n <= len(s) && unicode.IsDigit(s[i+n-1]); n++ {
			take(n, 1)
		}
		for n := 3; i+n <= len(s) && isRun(s[i:i+n]); n++ {
			take(n, 0)
		}
		for n := 2; n <= i && i+n <= len(s); n++ {
			if slices.Equal(s[i-n:i], s[i:i+n]) {
				take(n, 0)
			}
		}
	}
	return left[len(s)]
}

// isRun reports whether characters are the same, follow each other in Unicode,
// or lie beside each other on a keyboard, in either direction.
func isRun(s []rune) bool {
	step := s[1] - s[0]
	same := step >= -1 && step <= 1
	for i := 1; same && i < len(s); i++ {
		same = s[i]-s[i-1] == step
	}
	return same || slices.ContainsFunc(rows, func(row []rune) bool { return inRow(row, s) })
}

func inRow(row, s []rune) bool {
	at := slices.Index(row, s[0])
	if at < 0 {
		return false
	}
	forward, backward := true, true
	for i, r := range s {
		forward = forward && at+i < len(row) && row[at+i] == r
		backward = backward && at-i >= 0 && row[at-i] == r
	}
	return forward || backward
}
