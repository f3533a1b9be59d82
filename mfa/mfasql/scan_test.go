package mfasql

import (
	"database/sql"
	"testing"
	"time"

	"github.com/crmguard/crmguard/mfa"
)

// Whatever a column holds, reading it is no error and no panic, and what this
// package would not have written is of no kind, or of no version.
func FuzzScan(f *testing.F) {
	f.Add(uint8(0), int64(1), "totp", []byte("x"))
	f.Add(uint8(1), int64(-1<<63), "", []byte(nil))
	f.Add(uint8(5), int64(1<<62), "recovery", []byte{0xff})
	f.Fuzz(func(t *testing.T, choice uint8, n int64, text string, blob []byte) {
		values := []any{n, text, blob, nil, float64(n) / 3, n != 0, time.Unix(n%(1<<40), 0)}
		pick := func(i int) any { return values[(int(choice)+i)%len(values)] }
		scan := func(targets []any) {
			for i, target := range targets {
				if err := target.(sql.Scanner).Scan(pick(i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		var r scanRow
		scan(r.targets())
		row := r.value()
		if _, isNumber := pick(2).(int64); !isNumber && row.Kind != "" {
			t.Fatalf("active %v: %+v", pick(2), row)
		}
		var s scanPerson
		scan(s.targets())
		p := mfa.Person{Tenant: "acme", ID: "anna"}
		s.into(&p)
		if s.tenant.Valid && p.Version == 0 {
			t.Fatalf("version %v: a row that looks like none", pick(1))
		}
	})
}
