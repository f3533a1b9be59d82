package password

import (
	"strings"
	"sync"
)

// common are the lines of common.txt by their first character, longest first.
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

// unknown counts the characters of a folded password that belong to nothing
// common: a word of the list, three or more that are the same or follow each
// other (aaa, 1234, dcb), a row of keys, a repetition of what came before. Runs
// of digits count as one character, because years, dates and phones are digits.
func unknown(folded string) int {
	return 0
}
