package mfasql

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/mfa"
)

// Columns are read without errors. A value that this package would not have
// written was put there by somebody else; an error about it would keep a person
// with such a row from being revoked. Instead it becomes a value that the MAC
// does not fit, so that it is refused as forged.

type text struct {
	string
	valid bool // not NULL and of this type
}

// Scan implements sql.Scanner.
func (t *text) Scan(value any) error {
	switch v := value.(type) {
	case string:
		*t = text{v, true}
	case []byte:
		*t = text{string(v), true}
	default:
		*t = text{}
	}
	return nil
}

type number struct {
	int64
	valid bool
}

// Scan implements sql.Scanner.
func (n *number) Scan(value any) error {
	v, ok := value.(int64)
	*n = number{v, ok}
	return nil
}

type blob []byte

// Scan implements sql.Scanner.
func (b *blob) Scan(value any) error {
	v, _ := value.([]byte)
	*b = bytes.Clone(v)
	return nil
}

type scanPerson struct {
	tenant               text // NULL: no row
	version, empty, last number
	mac                  blob
}

func (s *scanPerson) targets() []any { return []any{&s.tenant, &s.version, &s.mac, &s.empty, &s.last} }

func (s *scanPerson) into(p *mfa.Person) {
	if !s.tenant.valid {
		return
	}
	p.Version, p.MAC = s.version.int64, mfa.Opaque(s.mac)
	if p.Version <= 0 { // no version that this package writes, and 0 would say that there is no row
		p.Version = -1
	}
	p.Budget = mfa.Budget{Empty: sqldb.Time(s.empty.int64), Last: sqldb.Time(s.last.int64)}
}

type scanRow struct {
	id, kind              text
	active, step, created number
	sealed                blob
}

func (s *scanRow) targets() []any {
	return []any{&s.id, &s.kind, &s.active, &s.step, &s.created, &s.sealed}
}

func (s *scanRow) value() mfa.Row {
	r := mfa.Row{
		ID: s.id.string, Kind: mfa.Kind(s.kind.string), Active: s.active == number{1, true}, Step: s.step.int64,
		Created: sqldb.Time(s.created.int64), Sealed: mfa.Opaque(s.sealed),
	}
	if !s.kind.valid || !s.created.valid || !s.active.valid || s.active.int64>>1 != 0 {
		r.Kind = "" // which no MAC is made of
	}
	return r
}

// sortByID does not leave the order to the collation of the database.
func sortByID(rows []mfa.Row) {
	slices.SortFunc(rows, func(a, b mfa.Row) int { return cmp.Compare(a.ID, b.ID) })
}
