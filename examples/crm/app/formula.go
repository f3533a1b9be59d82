package app

import (
	"strings"
	"unicode/utf8"
)

// A cell that begins with one of these is a formula to spreadsheets, some of which
// take the full-width ones for the same.
const formulaSigns = "=+-@\t\r＝＋－＠"

// cellEnds are what ends a cell or a row: besides the comma what a spreadsheet
// takes for a separator in another country, where quotes do not hold either.
const cellEnds = ",;\t\r\n"

// guardCell puts an apostrophe before what a spreadsheet would run as a formula, so
// that no client writes a program for whoever opens an export.
func guardCell(text string) string {
	return mapCellStarts(text, func(out *strings.Builder, _ string) (skip int) {
		out.WriteByte('\'')
		return 0
	})
}

// unguardCell takes out what guardCell, or another program, has put in.
func unguardCell(text string) string {
	return mapCellStarts(text, func(_ *strings.Builder, rest string) (skip int) {
		if rest[0] == '\'' {
			return 1
		}
		return 0
	})
}

// mapCellStarts calls at wherever a formula, or one that was guarded, may begin.
func mapCellStarts(text string, at func(out *strings.Builder, rest string) (skip int)) string {
	if !strings.ContainsAny(text, formulaSigns) {
		return text
	}
	var out strings.Builder
	start := true
	for i := 0; i < len(text); {
		if start && isFormula(strings.TrimLeft(text[i:], "'")) {
			i += at(&out, text[i:])
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		out.WriteString(text[i : i+size])
		start = strings.ContainsRune(cellEnds, r)
		i += size
	}
	return out.String()
}

func isFormula(text string) bool {
	r, size := utf8.DecodeRuneInString(text)
	return size > 0 && strings.ContainsRune(formulaSigns, r)
}
