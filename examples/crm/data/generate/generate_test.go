package main

import (
	"bytes"
	"encoding/csv"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

func generated(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The committed file is what the generator writes.
func TestCommitted(t *testing.T) {
	committed, err := os.ReadFile("../contacts.csv")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(generated(t), committed) {
		t.Fatal("contacts.csv differs; run: go run ./crm/data/generate > crm/data/contacts.csv")
	}
	if len(committed) >= 2<<20 {
		t.Fatalf("contacts.csv has %d bytes, want less than 2 MiB", len(committed))
	}
}

func TestRows(t *testing.T) {
	r := csv.NewReader(bytes.NewReader(generated(t)))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(rows), 1+people+copies+otherShapes+len(dirt); got != want {
		t.Fatalf("%d rows, want %d", got, want)
	}
	belongs := map[string]string{}
	for _, s := range sellers {
		belongs[s.login] = s.department
	}
	countryRows, shapes, notes := map[string]int{}, map[string]bool{}, 0
	refused, repeated, nobodys := 0, 0, 0
	seen := map[string]bool{}
	for _, row := range rows[1:] {
		line := strings.Join(row, "\x00")
		if seen[line] {
			repeated++
		}
		seen[line] = true
		if !importable(row) {
			refused++
			continue
		}
		countryRows[row[8]]++
		shapes[row[8]+strings.Map(shapeOf, row[1])] = true
		if strings.ContainsAny(row[5], "0123456789") {
			notes++
		}
		switch {
		case row[6] == "":
			nobodys++
		case belongs[row[6]] != row[7]:
			t.Fatalf("%s is of %s, not of %s", row[6], belongs[row[6]], row[7])
		}
	}
	if refused != len(dirt) {
		t.Errorf("%d rows are to be refused, want %d", refused, len(dirt))
	}
	if repeated < copies*9/10 {
		t.Errorf("%d rows repeated, want about %d", repeated, copies)
	}
	if share := nobodys * 100 / len(rows); share < 6 || share > 10 {
		t.Errorf("%d%% unassigned", share)
	}
	if len(countryRows) != len(countries) || len(shapes) < 50 || notes < 1000 {
		t.Errorf("countries %v, %d shapes of phones, %d notes with digits", countryRows, len(shapes), notes)
	}
}

// importable says what an import would accept, more roughly than a real one.
func importable(row []string) bool {
	if len(row) != len(header) || strings.TrimSpace(row[0]) == "" || len(row[5]) >= tooLongNote {
		return false
	}
	for _, cell := range row {
		if !utf8.ValidString(cell) {
			return false
		}
	}
	known := false
	for _, d := range departments {
		known = known || d == row[7]
	}
	local, domain, ok := strings.Cut(strings.ToLower(row[2]), "@")
	mail := row[2] == "" || ok && local != "" && !strings.Contains(local, " ") && strings.HasPrefix(domain, "example.") && strings.Count(domain, ".") == 1
	phone := strings.NewReplacer("тел.", "", "доб.", "", "ext", "").Replace(row[1])
	return known && mail && strings.Trim(phone, "+0123456789 ()-./–\u00a0") == ""
}

func shapeOf(r rune) rune {
	if '0' <= r && r <= '9' {
		return '#'
	}
	return r
}

// Check digits of published test cards.
func TestLuhn(t *testing.T) {
	for _, number := range []string{"4111111111111111", "5555555555554444", "4242424242424242", "5105105105105100", "378282246310005"} {
		last := len(number) - 1
		if got := luhn(number[:last]); got != number[last] {
			t.Errorf("%s: %c", number, got)
		}
	}
}
