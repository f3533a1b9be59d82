package calltoken

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
)

// Claims are what a token says: who may ring whom, from which telephone, until
// when.
type Claims struct {
	CallID string

	Kind   string // of the record, such as "contacts"
	Record string // its id
	Field  string // that holds the number
	Client string // whose data it is

	// Subject is who calls, as when the token was made, without Roles and Units.
	Subject crmguard.Subject
	Leg     string // the person's telephone
	End     time.Time
}

const (
	claimsDomain = "crmguard call token v1"
	maxClaims    = 4096 // bytes
	maxText      = 256  // bytes of each text
	maxScopes    = 64
)

var errClaims = errors.New("calltoken: not the claims of a call token")

// resource is what the token is about, as far as the token knows it.
func (c *Claims) resource() crmguard.Resource {
	return crmguard.Resource{Tenant: c.Subject.Tenant, Kind: c.Kind, ID: c.Record, Field: c.Field}
}

// check refuses claims that are incomplete or too large.
func (c *Claims) check() error {
	s := &c.Subject
	switch {
	case !validID(c.CallID) || c.Kind == "" || c.Record == "" || c.Field == "" || c.Client == "":
		return errors.New("calltoken: a call needs an id, kind, record, field and client")
	case !validLeg(c.Leg):
		return errors.New("calltoken: a leg is up to 64 letters, digits and . _ - + : @")
	case crmguard.CheckTenant(*s, s.Tenant) != nil:
		return errors.New("calltoken: the subject is incomplete")
	case len(s.Scopes) > maxScopes:
		return fmt.Errorf("calltoken: more than %d scopes", maxScopes)
	}
	for _, text := range c.texts() {
		if len(text) > maxText || !utf8.ValidString(text) {
			return fmt.Errorf("calltoken: each text is valid UTF-8 of at most %d bytes", maxText)
		}
	}
	return nil
}

func (c *Claims) texts() []string {
	s := &c.Subject
	return append([]string{c.Kind, c.Record, c.Field, c.Client, s.Tenant, s.ID, s.OnBehalfOf, s.Session, s.Device, s.Addr.Zone()}, s.Scopes...)
}

// encode returns what is sealed; docs/formats/calltoken.md specifies it.
func (c *Claims) encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &c.Subject
	addr, err := s.Addr.MarshalText()
	if err != nil {
		return nil, fmt.Errorf("calltoken: %w", err)
	}
	b := make([]byte, 0, 512)
	for _, text := range []string{claimsDomain, c.CallID, c.Kind, c.Record, c.Field, c.Client, c.Leg,
		s.Tenant, s.ID, s.OnBehalfOf, s.Session, s.Device, string(addr)} {
		b = appendString(b, text)
	}
	b = append(b, byte(s.Kind), byte(s.Assurance))
	authenticated := int64(0)
	if !s.AuthenticatedAt.IsZero() {
		authenticated = s.AuthenticatedAt.UnixMicro()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(authenticated))     //nolint:gosec // the same 64 bits
	b = binary.BigEndian.AppendUint64(b, uint64(c.End.UnixMicro())) //nolint:gosec // the same 64 bits
	if s.Scopes == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = binary.BigEndian.AppendUint32(b, uint32(len(s.Scopes))) //nolint:gosec // at most maxScopes
		for _, scope := range s.Scopes {
			b = appendString(b, scope)
		}
	}
	if len(b) > maxClaims {
		return nil, fmt.Errorf("calltoken: the claims have %d bytes, at most %d fit", len(b), maxClaims)
	}
	return b, nil
}

// decode is the inverse of encode.
func decode(b []byte) (Claims, error) {
	if len(b) > maxClaims {
		return Claims{}, errClaims
	}
	r := reader{b: b}
	if r.text() != claimsDomain {
		return Claims{}, errClaims
	}
	var c Claims
	var addr string
	s := &c.Subject
	for _, text := range []*string{&c.CallID, &c.Kind, &c.Record, &c.Field, &c.Client, &c.Leg,
		&s.Tenant, &s.ID, &s.OnBehalfOf, &s.Session, &s.Device, &addr} {
		*text = r.text()
	}
	s.Kind, s.Assurance = crmguard.SubjectKind(r.byte()), crmguard.Assurance(r.byte())
	if at := r.time(); at.UnixMicro() != 0 {
		s.AuthenticatedAt = at
	}
	c.End = r.time()
	switch r.byte() {
	case 0:
	case 1:
		n := r.uint32()
		if n > maxScopes {
			return Claims{}, errClaims
		}
		s.Scopes = make([]string, n)
		for i := range s.Scopes {
			s.Scopes[i] = r.text()
		}
	default:
		return Claims{}, errClaims
	}
	if r.bad || len(r.b) > 0 {
		return Claims{}, errClaims
	}
	var err error
	if addr != "" {
		s.Addr, err = netip.ParseAddr(addr)
	}
	if err != nil || s.Addr.IsValid() && s.Addr.String() != addr || c.check() != nil {
		return Claims{}, errClaims
	}
	return c, nil
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // texts are short
	return append(b, s...)
}

// reader takes values from the front of b. When one is not there it is bad, and
// what it returns is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) time() time.Time {
	if b := r.take(8); b != nil {
		return time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC() //nolint:gosec // the same 64 bits
	}
	return time.Time{}
}

func (r *reader) text() string {
	n := r.uint32()
	if n > maxText {
		r.bad = true
	}
	return string(r.take(int(n)))
}
