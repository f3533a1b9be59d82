package sessionsql

import (
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

type scanRow struct {
	id, tenant, person, onBehalfOf, device, addr                      sqldb.Text
	scopes                                                            sql.Null[sqldb.Text]
	kind, assurance, authenticatedAt, startedAt, usedAt, endAt, epoch sqldb.Number
	verifier                                                          sqldb.Blob
}

func (s *scanRow) targets() []any {
	return []any{
		&s.id, &s.tenant, &s.person, &s.onBehalfOf, &s.kind, &s.assurance, &s.authenticatedAt,
		&s.device, &s.addr, &s.scopes, &s.startedAt, &s.usedAt, &s.endAt, &s.epoch, &s.verifier,
	}
}

func (s *scanRow) value() session.Row {
	r := session.Row{
		ID: s.id.String, Tenant: s.tenant.String, Person: s.person.String, OnBehalfOf: s.onBehalfOf.String,
		AuthenticatedAt: sqldb.Time(s.authenticatedAt.Int64), Device: s.device.String,
		Started: sqldb.Time(s.startedAt.Int64), Used: sqldb.Time(s.usedAt.Int64), End: sqldb.Time(s.endAt.Int64),
		Epoch: s.epoch.Int64, Verifier: session.MAC(s.verifier),
	}
	typed := s.id.Valid && s.tenant.Valid && s.person.Valid && s.onBehalfOf.Valid && s.device.Valid && s.addr.Valid &&
		fits(s.kind) && fits(s.assurance) && s.authenticatedAt.Valid && s.startedAt.Valid && s.usedAt.Valid &&
		s.endAt.Valid && s.epoch.Valid
	if typed {
		r.Kind = crmguard.SubjectKind(s.kind.Int64)         //nolint:gosec // it fits
		r.Assurance = crmguard.Assurance(s.assurance.Int64) //nolint:gosec // it fits
	}
	typed = r.Addr.UnmarshalText([]byte(s.addr.String)) == nil && typed
	if s.scopes.Valid {
		r.Scopes = []string{}
		err := json.Unmarshal([]byte(s.scopes.V.String), &r.Scopes)
		typed = typed && err == nil && r.Scopes != nil
	}
	if !typed {
		r.Verifier = nil
	}
	return r
}

// fits reports whether a number is one of those types that are bytes.
func fits(n sqldb.Number) bool { return n.Valid && n.Int64 >= 0 && n.Int64 <= math.MaxUint8 }

type scanPerson struct {
	tenant        sqldb.Text // NULL: no row
	closed, epoch sqldb.Number
	mac           sqldb.Blob
}

func (s *scanPerson) targets() []any { return []any{&s.tenant, &s.closed, &s.epoch, &s.mac} }

func (s *scanPerson) value(tenant, id string) session.Person {
	p := session.Person{Tenant: tenant, ID: id}
	if !s.tenant.Valid {
		return p
	}
	p.Closed = s.closed != sqldb.Number{Int64: 0, Valid: true}
	p.Epoch, p.MAC = s.epoch.Int64, session.MAC(s.mac)
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
