package mfa

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
)

// Opaque is a sealed secret or a MAC in a row. Neither helps whoever reads it,
// but they have no place in logs, and redact themselves.
type Opaque []byte

// Format hides the bytes, whatever the verb.
func (Opaque) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[redacted]") }

// LogValue hides the bytes.
func (Opaque) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalJSON hides the bytes.
func (Opaque) MarshalJSON() ([]byte, error) { return []byte(`"[redacted]"`), nil }

// Kind says what a [Row] is.
type Kind string

// The kinds of rows.
const (
	KindApp      Kind = "totp"     // an authenticator app, RFC 6238
	KindRecovery Kind = "recovery" // one recovery code
)

// Row is an app or a recovery code as a [Store] keeps it. Times are UTC in whole
// microseconds.
type Row struct {
	ID      string // 26 characters, base32
	Kind    Kind
	Active  bool  // false: an app that was not confirmed yet
	Step    int64 // last step whose code was used, 0: none; a recovery code: 1 when used
	Created time.Time
	Sealed  Opaque // the app's secret, sealed; of a recovery code its MAC
}

// Person is what a [Store] keeps of a person besides the rows.
type Person struct {
	Tenant  string
	ID      string
	Version int64  // larger after each change of the rows; 0: there is no row
	MAC     Opaque // of the version and of all rows, without their Step
	Budget  Budget
}

// exists reports whether the store has a row of the person.
func (p *Person) exists() bool { return p.Version != 0 || len(p.MAC) != 0 }

var errForeignSecret = errors.New("mfa: a sealed secret that is not of this person, or of no known version")

// Kinds of places. The secret's is fixed by what is stored; the others separate
// the uses of the tenant's MAC keys.
const (
	kindFactor = "factor"
	kindPerson = "factor-person"
)

func secretPlace(tenant, id string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: kindFactor, Record: id, Field: "secret"}
}

func recoveryPlace(tenant, id string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: kindFactor, Record: id, Field: "recovery"}
}

func (p *Person) place() crmguard.Place {
	return crmguard.Place{Tenant: p.Tenant, Kind: kindPerson, Record: p.ID, Field: "factors"}
}

// personBytes is what the MAC of a person authenticates; docs/formats/mfa.md
// specifies it. Two different persons or sets of rows never give the same bytes.
func personBytes(p *Person, rows []Row) []byte {
	b := make([]byte, 0, 128+160*len(rows))
	b = appendString(b, "crmguard factors v1")
	b = appendString(b, p.Tenant)
	b = appendString(b, p.ID)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Version)) //nolint:gosec // the same 64 bits
	b = binary.BigEndian.AppendUint32(b, uint32(len(rows))) //nolint:gosec // a person has no 2^32 rows
	for _, r := range rows {
		b = appendString(b, r.ID)
		b = appendString(b, string(r.Kind))
		active := byte(0)
		if r.Active {
			active = 1
		}
		b = append(b, active)
		b = binary.BigEndian.AppendUint64(b, uint64(r.Created.UnixMicro())) //nolint:gosec // the same 64 bits
		b = appendString(b, r.Sealed)
	}
	return b
}

// secretBytes is what is sealed of an app: the secret, and whose it is,
// because the place names the tenant and the row only.
func secretBytes(person string, secret []byte) []byte {
	b := make([]byte, 0, 128)
	b = appendString(b, "crmguard totp v1")
	b = appendString(b, person)
	return appendString(b, secret)
}

// parseSecret returns the secret in what secretBytes made for the person. It
// shares memory with b.
func parseSecret(person string, b []byte) (secret []byte, err error) {
	domain, b, ok := cutString(b)
	if !ok || string(domain) != "crmguard totp v1" {
		return nil, errForeignSecret
	}
	whose, b, ok := cutString(b)
	if !ok || string(whose) != person {
		return nil, errForeignSecret
	}
	secret, rest, ok := cutString(b)
	if !ok || len(rest) > 0 {
		return nil, errForeignSecret
	}
	return secret, nil
}

func cutString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := uint64(binary.BigEndian.Uint32(b))
	if b = b[4:]; uint64(len(b)) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// recoveryBytes is what the MAC of a recovery code authenticates.
func recoveryBytes(tenant, person, id, code string) []byte {
	b := make([]byte, 0, 160)
	b = appendString(b, "crmguard recovery v1")
	b = appendString(b, tenant)
	b = appendString(b, person)
	b = appendString(b, id)
	return appendString(b, code)
}

func appendString[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // rows hold no 4 GiB
	return append(b, s...)
}

// changed is rows as they are after a [Store.Change].
func changed(rows, put []Row, remove []string) []Row {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r Row) bool {
		return slices.Contains(remove, r.ID) || slices.ContainsFunc(put, func(p Row) bool { return p.ID == r.ID })
	})
	rows = append(rows, put...)
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Compare(a.ID, b.ID) })
	return rows
}

// Equal reports whether p and q are the same but for their budget.
func (p Person) Equal(q Person) bool {
	return p.Tenant == q.Tenant && p.ID == q.ID && p.Version == q.Version && bytes.Equal(p.MAC, q.MAC)
}
