// Command generate writes the contacts of the example CRM: invented people with
// the mess that real client bases have. The same program writes the same bytes,
// everywhere and always.
//
//	go run ./crm/data/generate > crm/data/contacts.csv
package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"os"
)

// How many rows of each sort there are.
const (
	people       = 10_000
	copies       = 120 // rows that appear twice
	otherShapes  = 180 // people who appear again, typed differently
	seed         = 20260101
	tooLongNote  = 5_000 // letters
	unassigned   = 8     // percent
	withoutEmail = 6     // percent
)

var header = []string{"name", "phone", "email", "company", "city", "note", "owner", "department", "country"}

func main() {
	w := bufio.NewWriter(os.Stdout)
	if err := write(w); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// write writes the whole file.
func write(to io.Writer) error {
	g := newGenerator(seed)
	clean := make([]person, people)
	for i := range clean {
		clean[i] = g.person()
	}
	rows := make([][]string, 0, people+copies+otherShapes+len(dirt))
	for _, p := range clean {
		rows = append(rows, p.row())
	}
	for range copies {
		rows = append(rows, rows[g.n(people)])
	}
	for range otherShapes {
		rows = append(rows, g.again(clean[g.n(people)]).row())
	}
	for _, spoil := range dirt {
		rows = append(rows, spoil(g, g.person()))
	}
	for i := len(rows) - 1; i > 0; i-- { // Fisher and Yates
		j := g.n(i + 1)
		rows[i], rows[j] = rows[j], rows[i]
	}

	w := csv.NewWriter(to)
	if err := w.Write(header); err != nil {
		return err
	}
	return w.WriteAll(rows)
}

// generator is SplitMix64 (Steele, Lea, Flood 2014), spelled out so that no
// other version of Go draws other people.
type generator struct {
	state  uint64
	phones map[string]bool // taken
	emails map[string]bool // taken
}

func newGenerator(seed uint64) *generator {
	return &generator{state: seed, phones: map[string]bool{}, emails: map[string]bool{}}
}

// n returns a number below limit.
func (g *generator) n(limit int) int {
	g.state += 0x9e3779b97f4a7c15
	z := g.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return int((z >> 33) % uint64(limit)) //nolint:gosec // 31 bits fit
}

func (g *generator) percent(p int) bool { return g.n(100) < p }

func (g *generator) pick(from []string) string { return from[g.n(len(from))] }

// digits returns n random digits.
func (g *generator) digits(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789"[g.n(10)]
	}
	return string(b)
}
