package audit

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/crmguard/crmguard"
)

// writer appends length-prefixed values. It goes on counting after a value that
// does not fit, so that the error can name the size.
type writer struct {
	b        []byte
	size     int
	tooLarge bool
}

func (w *writer) grow(n int) bool {
	w.size += n
	if w.size > maxBody {
		w.tooLarge = true
	}
	return !w.tooLarge
}

func (w *writer) byte(v byte) {
	if w.grow(1) {
		w.b = append(w.b, v)
	}
}

func (w *writer) int64(v int64) {
	if w.grow(8) {
		w.b = binary.BigEndian.AppendUint64(w.b, uint64(v)) //nolint:gosec // two's complement, read back so
	}
}

func (w *writer) time(t time.Time) { w.int64(micros(t)) }

func (w *writer) count(n int) {
	if w.grow(2) && n < 1<<16 {
		w.b = binary.BigEndian.AppendUint16(w.b, uint16(n)) //nolint:gosec // checked
		return
	}
	w.tooLarge = true
}

func (w *writer) text(s string) {
	w.count(len(s))
	if w.grow(len(s)) {
		w.b = append(w.b, s...)
	}
}

func (w *writer) bytes(s []byte) {
	w.count(len(s))
	if w.grow(len(s)) {
		w.b = append(w.b, s...)
	}
}

func (w *writer) texts(list []string) {
	w.count(len(list))
	for _, s := range list {
		w.text(s)
	}
}

func (w *writer) subject(s *crmguard.Subject) {
	w.byte(byte(s.Kind))
	w.text(s.Tenant)
	w.text(s.ID)
	w.text(s.OnBehalfOf)
	w.text(s.Session)
	w.text(s.Device)
	addr := ""
	if s.Addr.IsValid() {
		addr = s.Addr.WithZone(clean(s.Addr.Zone())).String()
	}
	w.text(addr)
	w.byte(byte(s.Assurance))
	w.time(s.AuthenticatedAt)
	w.texts(s.Roles)
	w.texts(s.Units)
	w.texts(s.Scopes)
}

func (w *writer) resource(r *crmguard.Resource) {
	w.text(r.Tenant)
	w.text(r.Kind)
	w.text(r.ID)
	w.text(r.Field)
	w.text(r.Owner)
	w.text(r.Unit)
	shared := byte(0)
	if r.Shared {
		shared = 1
	}
	w.byte(shared)
}

// reader takes values off the front of b. After a failure it returns zero values.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || len(r.b) < n {
		r.failed = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) int64() int64 {
	if v := r.take(8); v != nil {
		return int64(binary.BigEndian.Uint64(v)) //nolint:gosec // two's complement
	}
	return 0
}

func (r *reader) time() time.Time {
	v := r.int64()
	if v < 0 || v > lastMicro {
		r.failed = true
	}
	if r.failed || v == 0 {
		return time.Time{}
	}
	return time.UnixMicro(v).UTC()
}

func (r *reader) count() int {
	if v := r.take(2); v != nil {
		return int(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (r *reader) text() string {
	s := string(r.take(r.count()))
	if clean(s) != s {
		r.failed = true
	}
	return s
}

// bytes returns a copy that is not nil, so that an empty value is not taken for
// an erased one.
func (r *reader) bytes() []byte { return append([]byte{}, r.take(r.count())...) }

func (r *reader) texts() []string {
	var list []string
	for range r.count() {
		s := r.text()
		if r.failed {
			return nil
		}
		list = append(list, s)
	}
	return list
}

func (r *reader) subject(s *crmguard.Subject) {
	s.Kind = crmguard.SubjectKind(r.byte())
	s.Tenant = r.text()
	s.ID = r.text()
	s.OnBehalfOf = r.text()
	s.Session = r.text()
	s.Device = r.text()
	if text := r.text(); text != "" {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.String() != text {
			r.failed = true
		}
		s.Addr = addr
	}
	s.Assurance = crmguard.Assurance(r.byte())
	s.AuthenticatedAt = r.time()
	s.Roles = r.texts()
	s.Units = r.texts()
	s.Scopes = r.texts()
}

func (r *reader) resource(v *crmguard.Resource) {
	v.Tenant = r.text()
	v.Kind = r.text()
	v.ID = r.text()
	v.Field = r.text()
	v.Owner = r.text()
	v.Unit = r.text()
	switch r.byte() {
	case 0:
	case 1:
		v.Shared = true
	default:
		r.failed = true
	}
}
