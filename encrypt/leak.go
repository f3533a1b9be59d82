package encrypt

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Leak is what an index of so many rows tells. Whoever sees its table without the key sees
// which rows are equal, and how often each value occurs; whoever holds the key as well
// can try values until one fits. See [LeakOf].
type Leak struct {
	Index string
	Rows  int

	// Values is how many values there are to try; 0: nobody can list them, though whoever
	// has a list, of leaked addresses say, can try those.
	Values float64

	// RowsPerValue is how many rows share a value with a row, itself included, where all
	// values are about equally frequent; 1 is a row that stands out from all others. 0: not known.
	RowsPerValue float64

	// Bits is the most that the table alone tells about the value of a row: the
	// logarithm of how many values can be told apart in it.
	Bits float64

	Skewed bool // frequent values betray themselves by how often they occur, without any key

	// Guess is how long one core needs to try all Values with the key; 0: not known.
	Guess time.Duration
}

// What the planner knows about indexes. Phones are those of one country's mobile
// network, 10^9 (the numbers behind +7 9); domains are the names registered in all
// top-level domains at the end of June 2024 by the Domain Name Industry Brief (Verisign),
// 362.4 million.
var domains = map[string]struct {
	values float64
	skewed bool
}{
	"phone":  {values: 1e9},
	"last4":  {values: 1e4},
	"domain": {values: 362.4e6, skewed: true},
	"email":  {},
	"exact":  {skewed: true},
}

// guess is how long it takes to compute one index value: two runs of SHA-256's
// compression behind the states that a key prepares, on a core that has instructions for it.
const guess = 83 * time.Nanosecond

// LeakOf plans an index (phone, email, exact, last4 or domain) for a number of rows; an
// unknown index is an error.
//
// The numbers follow the planner of CipherSweet (Paragon Initiative Enterprises,
// "Blind Index Planning"): with d possible values, of N rows about N/d coincide; an
// index hides its rows if that is at least 2, and still narrows a search if it is
// less than √N. That rows of equal value are seen, and that frequent values are
// recognised by their frequency, is the attack of Naveed, Kamara and Wright ("Inference
// Attacks on Property-Preserving Encrypted Databases", CCS 2015). Pseudonyms have 128
// bits: two different values share one with a probability below N²/2^129, the birthday
// bound, which is nothing for any CRM.
func LeakOf(index string, rows int) (Leak, error) {
	domain, ok := domains[index]
	if !ok {
		return Leak{}, fmt.Errorf("encrypt: unknown index %q", index)
	}
	n := float64(max(rows, 1))
	leak := Leak{Index: index, Rows: rows, Values: domain.values, Skewed: domain.skewed, Bits: math.Log2(n)}
	if d := domain.values; d > 0 {
		if !domain.skewed {
			leak.RowsPerValue = 1 + (n-1)/d
		}
		leak.Bits = math.Log2(max(1, -d*math.Expm1(-n/d))) // how many of d values n rows are expected to have
		leak.Guess = time.Duration(d * float64(guess))
	}
	return leak, nil
}

// Hides says whether a row is expected to be lost among others with the same value:
// CipherSweet's lower bound. Skewed values hide the frequent ones only.
func (l Leak) Hides() bool { return l.RowsPerValue >= 3 } // itself and two coincidences

// String says it to a person who decides whether to have the index.
func (l Leak) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "index %s of %s rows: the table shows which rows are equal", l.Index, count(float64(l.Rows)))
	switch {
	case l.Hides():
		fmt.Fprintf(&b, ", about %s each", count(l.RowsPerValue))
	case l.RowsPerValue > 0:
		b.WriteString(", nearly all differ")
	}
	fmt.Fprintf(&b, " (at most %.1f bits a row)", l.Bits)
	if l.Skewed {
		b.WriteString("; frequent values are recognised by their frequency")
	}
	if l.Values == 0 {
		b.WriteString("; who also has the key can test whatever list of values they have, " +
			strconv.Itoa(int(time.Second/guess/1e6)) + " million a second on a core")
	} else {
		fmt.Fprintf(&b, "; who also has the key tests all %s values in %s", count(l.Values), about(l.Guess))
	}
	return b.String()
}

// count writes large numbers with spaces between thousands.
func count(n float64) string {
	s := strconv.FormatFloat(math.Round(n), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

func about(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "under a millisecond"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 0, 64) + " seconds"
}
