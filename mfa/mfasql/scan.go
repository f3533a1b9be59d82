package mfasql

import (
	"cmp"
	"slices"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/mfa"
)

// Columns are read without errors. A value that this package would not have
// written was put there by somebody else; an error about it would keep a person
// with such a row from being revoked. Instead it becomes a value that the MAC
// does not fit, so that it is refused as forged.

type scanPerson struct {
	tenant               sqldb.Text // NULL: no row
	version, empty, last sqldb.Number
	mac                  sqldb.Blob
}

func (s *scanPerson) targets() []any { return []any{&s.tenant, &s.version, &s.mac, &s.empty, &s.last} }

func (s *scanPerson) into(p *mfa.Person) {
	if !s.tenant.Valid {
		return
	}
	p.Version, p.MAC = s.version.Int64, mfa.Opaque(s.mac)
	if p.Version <= 0 { // no version that this package writes, and 0 would say that there is no row
		p.Version = -1
	}
	p.Budget = mfa.Budget{Empty: sqldb.Time(s.empty.Int64), Last: sqldb.Time(s.last.Int64)}
}

type scanRow struct {
	id, kind              sqldb.Text
	active, step, created sqldb.Number
	sealed                sqldb.Blob
}

func (s *scanRow) targets() []any {
	return []any{&s.id, &s.kind, &s.active, &s.step, &s.created, &s.sealed}
}

func (s *scanRow) value() mfa.Row {
	r := mfa.Row{
		ID: s.id.String, Kind: mfa.Kind(s.kind.String), Active: s.active == sqldb.Number{Int64: 1, Valid: true}, Step: s.step.Int64,
		Created: sqldb.Time(s.created.Int64), Sealed: mfa.Opaque(s.sealed),
	}
	if !s.kind.Valid || !s.created.Valid || !s.active.Valid || s.active.Int64>>1 != 0 {
		r.Kind = "" // which no MAC is made of
	}
	return r
}

// sortByID does not leave the order to the collation of the database.
func sortByID(rows []mfa.Row) {
	slices.SortFunc(rows, func(a, b mfa.Row) int { return cmp.Compare(a.ID, b.ID) })
}
