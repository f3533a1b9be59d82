package main

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Words come back as they were written, and whatever is not understood is an error.
func FuzzExpectations(f *testing.F) {
	for _, seed := range []string{
		"policy p.csv\ntenant acme\nanna view contacts own allow\n", "policy p.csv\n\"Anna \\u0041\" list contacts deny",
		"# nothing\n\"", "policy p.csv\na \"b\"c d allow", "tenant\nanna view contacts#a#b tree+shared deny",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		test, err := parseExpectations(text)
		if err != nil {
			return
		}
		require.NotEmpty(t, test.policy)
		require.NotEmpty(t, test.list)
		lines := strings.Split(text, "\n")
		for _, x := range test.list {
			words, err := splitWords(lines[x.line-1])
			require.NoError(t, err)
			quoted := make([]string, len(words))
			for i, word := range words {
				quoted[i] = strconv.Quote(word)
			}
			again, err := splitWords(strings.Join(quoted, "\t"))
			require.NoError(t, err)
			require.Equal(t, words, again)
			require.Equal(t, words[len(words)-1] == "allow", x.allow)
		}
	})
}
