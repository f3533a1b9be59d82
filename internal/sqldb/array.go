package sqldb

import (
	"slices"
	"strconv"
	"strings"
)

// Array is a value for a parameter that is an array of PostgreSQL's, as text, which
// every driver sends as it is: name the type in the statement, as in $1::TEXT[]. The
// zero value is an empty array.
type Array struct{ b []byte }

// Grow makes room for n more bytes of text.
func (a *Array) Grow(n int) { a.b = slices.Grow(a.b, n) }

func (a *Array) next() {
	if len(a.b) == 0 {
		a.b = append(a.b, '{')
		return
	}
	a.b = append(a.b, ',')
}

// Number adds an element of an array of integers.
func (a *Array) Number(n int64) {
	a.next()
	a.b = strconv.AppendInt(a.b, n, 10)
}

// Text adds an element of an array of texts.
func (a *Array) Text(s string) {
	a.next()
	a.b = append(a.b, '"')
	for {
		i := strings.IndexAny(s, `"\`)
		if i < 0 {
			break
		}
		a.b = append(append(a.b, s[:i]...), '\\', s[i])
		s = s[i+1:]
	}
	a.b = append(append(a.b, s...), '"')
}

// String is the array.
func (a *Array) String() string {
	if len(a.b) == 0 {
		return "{}"
	}
	return string(a.b) + "}"
}
