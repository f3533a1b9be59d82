package app

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGuardCell(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "",
		"Anna":              "Anna",
		"O'Brien = us":      "O'Brien = us",
		"=1+1":              "'=1+1",
		"+79165550000":      "'+79165550000",
		"-5":                "'-5",
		"@SUM(A1)":          "'@SUM(A1)",
		"\t=1":              "'\t'=1",
		"＝cmd":              "'＝cmd",
		"'=1":               "''=1", // or an import would take the client's own apostrophe
		"''=1":              "'''=1",
		"'tis":              "'tis",
		"Works;=cmd|'/C'!A": "Works;'=cmd|'/C'!A", // a second cell where ; separates
		"line\n=2":          "line\n'=2",
		"a-b, c":            "a-b, c",
		"\xff=":             "\xff=",
	} {
		require.Equal(t, want, guardCell(text), "%q", text)
		require.Equal(t, text, unguardCell(want), "%q", want)
	}
	require.Equal(t, "=1", unguardCell("=1"), "what nobody has guarded stays")
}

func FuzzGuardCell(f *testing.F) {
	for _, seed := range []string{"=1", "'=", "a;'=\t\r@", "''\n+7,-", "＋;\xff="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		guarded := guardCell(text)
		require.Equal(t, text, unguardCell(guarded))
		for cell := range strings.FieldsFuncSeq(guarded, func(r rune) bool { return strings.ContainsRune(",;\n", r) }) {
			require.False(t, isFormula(cell), "%q in %q", cell, guarded)
		}
	})
}
