package sessionsql

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"math"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/session"
)

// Columns are read without errors. A value that this package would not have
// written was put there by somebody else; an error about it would keep a person
// with such a row from being closed. Instead the row loses its verifier, so that
// it is refused as forged.

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

type scanRow struct {
	id, tenant, person, onBehalfOf, device, addr                      text
	scopes                                                            sql.Null[text]
	kind, assurance, authenticatedAt, startedAt, usedAt, endAt, epoch number
	verifier                                                          blob
}

func (s *scanRow) targets() []any {
	return []any{
		&s.id, &s.tenant, &s.person, &s.onBehalfOf, &s.kind, &s.assurance, &s.authenticatedAt,
		&s.device, &s.addr, &s.scopes, &s.startedAt, &s.usedAt, &s.endAt, &s.epoch, &s.verifier,
	}
}

func (s *scanRow) value() session.Row {
	r := session.Row{
		ID: s.id.string, Tenant: s.tenant.string, Person: s.person.string, OnBehalfOf: s.onBehalfOf.string,
		AuthenticatedAt: sqldb.Time(s.authenticatedAt.int64), Device: s.device.string,
		Started: sqldb.Time(s.startedAt.int64), Used: sqldb.Time(s.usedAt.int64), End: sqldb.Time(s.endAt.int64),
		Epoch: s.epoch.int64, Verifier: session.MAC(s.verifier),
	}
	fits := s.id.valid && s.tenant.valid && s.person.valid && s.onBehalfOf.valid && s.device.valid && s.addr.valid &&
		s.kind.fits() && s.assurance.fits() && s.authenticatedAt.valid && s.startedAt.valid && s.usedAt.valid &&
		s.endAt.valid && s.epoch.valid
	if fits {
		r.Kind = crmguard.SubjectKind(s.kind.int64)         //nolint:gosec // it fits
		r.Assurance = crmguard.Assurance(s.assurance.int64) //nolint:gosec // it fits
	}
	fits = r.Addr.UnmarshalText([]byte(s.addr.string)) == nil && fits
	if s.scopes.Valid {
		r.Scopes = []string{}
		err := json.Unmarshal([]byte(s.scopes.V.string), &r.Scopes)
		fits = fits && err == nil && r.Scopes != nil
	}
	if !fits {
		r.Verifier = nil
	}
	return r
}

func (n number) fits() bool { return n.valid && n.int64 >= 0 && n.int64 <= math.MaxUint8 }

type scanPerson struct {
	tenant        text // NULL: no row
	closed, epoch number
	mac           blob
}

func (s *scanPerson) targets() []any { return []any{&s.tenant, &s.closed, &s.epoch, &s.mac} }

func (s *scanPerson) value(tenant, id string) session.Person {
	p := session.Person{Tenant: tenant, ID: id}
	if !s.tenant.valid {
		return p
	}
	p.Closed = s.closed != number{0, true}
	p.Epoch, p.MAC = s.epoch.int64, session.MAC(s.mac)
	return p
}

func encodeScopes(scopes []string) (sql.NullString, error) {
	if scopes == nil {
		return sql.NullString{}, nil
	}
	encoded, err := json.Marshal(scopes)
	return sql.NullString{String: string(encoded), Valid: true}, err
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
