package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/crmguard/crmguard"
)

// MAC is the proof in a row that the [Manager] wrote it. It is not a secret as a
// token is, but it has no place in logs either, and redacts itself.
type MAC []byte

// Format hides the bytes, whatever the verb.
func (MAC) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[redacted]") }

// LogValue hides the bytes.
func (MAC) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalJSON hides the bytes.
func (MAC) MarshalJSON() ([]byte, error) { return []byte(`"[redacted]"`), nil }

// Row is a session as a [Store] keeps it. Times are UTC in whole microseconds.
type Row struct {
	ID     string // 20 characters, base64url
	Tenant string
	Person string

	OnBehalfOf      string
	Kind            crmguard.SubjectKind
	Assurance       crmguard.Assurance
	AuthenticatedAt time.Time
	Device          string
	Addr            netip.Addr // at the start; may be invalid
	Scopes          []string   // nil and empty are different

	Started  time.Time
	Used     time.Time // last use, in steps of a minute
	End      time.Time
	Epoch    int64 // of the person at the start, plus that of OnBehalfOf if it is another
	Verifier MAC   // changes with Used, and with the token
}

// Person is the state of a person as a [Store] keeps it, or that of a tenant.
type Person struct {
	Tenant string
	ID     string // empty: the tenant itself; closed then means locked down
	Closed bool
	Epoch  int64 // larger after each change; 0: there is no row
	MAC    MAC
}

// Equal reports whether p and q are the same in every field.
func (p Person) Equal(q Person) bool {
	return p.Tenant == q.Tenant && p.ID == q.ID && p.Closed == q.Closed && p.Epoch == q.Epoch && bytes.Equal(p.MAC, q.MAC)
}

// Kinds of places, which separate the uses of the tenant's MAC key.
const (
	kindSession = "session"
	kindPerson  = "session-person"
	kindTenant  = "session-tenant"
)

func (r *Row) place() crmguard.Place {
	return crmguard.Place{Tenant: r.Tenant, Kind: kindSession, Record: r.ID, Field: "verifier"}
}

func (p *Person) place() crmguard.Place {
	if p.ID == "" {
		return crmguard.Place{Tenant: p.Tenant, Kind: kindTenant, Field: "state"}
	}
	return crmguard.Place{Tenant: p.Tenant, Kind: kindPerson, Record: p.ID, Field: "state"}
}

// sessionBytes is what a verifier authenticates; docs/formats/session.md
// specifies it. Every field of the row but the verifier is in it, and two
// different rows or digests never give the same bytes.
func sessionBytes(r *Row, digest [32]byte) []byte {
	b := make([]byte, 0, 512)
	b = appendString(b, "crmguard session v1")
	b = append(b, digest[:]...)
	b = appendString(b, r.ID)
	b = appendString(b, r.Tenant)
	b = appendString(b, r.Person)
	b = appendString(b, r.OnBehalfOf)
	b = append(b, byte(r.Kind), byte(r.Assurance))
	b = appendTime(b, r.AuthenticatedAt)
	b = appendString(b, r.Device)
	b = appendString(b, addrText(r.Addr))
	if r.Scopes == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = binary.BigEndian.AppendUint32(b, uint32(len(r.Scopes))) //nolint:gosec // at most maxScopes
		for _, s := range r.Scopes {
			b = appendString(b, s)
		}
	}
	b = appendTime(b, r.Started)
	b = appendTime(b, r.Used)
	b = appendTime(b, r.End)
	return binary.BigEndian.AppendUint64(b, uint64(r.Epoch)) //nolint:gosec // the same 64 bits
}

// personBytes is what the MAC of a person's or a tenant's state authenticates.
func personBytes(p *Person) []byte {
	b := make([]byte, 0, 128)
	if p.ID == "" {
		b = appendString(b, "crmguard tenant v1")
		b = appendString(b, p.Tenant)
	} else {
		b = appendString(b, "crmguard person v1")
		b = appendString(b, p.Tenant)
		b = appendString(b, p.ID)
	}
	closed := byte(0)
	if p.Closed {
		closed = 1
	}
	b = append(b, closed)
	return binary.BigEndian.AppendUint64(b, uint64(p.Epoch)) //nolint:gosec // the same 64 bits
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // rows hold no 4 GiB
	return append(b, s...)
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixMicro())) //nolint:gosec // the same 64 bits
}

// addrText is empty for an invalid address, where String would say so in words.
func addrText(a netip.Addr) string {
	text, _ := a.MarshalText() //nolint:errcheck // has no way to fail
	return string(text)
}
