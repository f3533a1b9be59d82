package audit

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
)

// writer appends length-prefixed values. After one that does not fit it appends
// none.
type writer struct {
	b        []byte
	tooLarge bool
}

func (w *writer) grow(n int) bool {
	if len(w.b)+n > maxBody {
		w.tooLarge = true
	}
	return !w.tooLarge
}

func (w *writer) byte(v byte) {
	if w.grow(1) {
		w.b = append(w.b, v)
	}
}

func (w *writer) bool(v bool) {
	if v {
		w.byte(1)
		return
	}
	w.byte(0)
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
		addr = s.Addr.WithZone(short(clean(s.Addr.Zone()))).String()
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
	w.bool(r.Shared)
}

// sealed writes the digest of a value in place of the value if the entry is cut.
func (w *writer) sealed(v *SealedValue, cut bool) {
	w.text(v.Client)
	w.text(v.Name)
	switch {
	case v.Erased:
		w.byte(privateErased)
	case cut:
		w.byte(privateDigest)
		if w.grow(len(v.Digest)) {
			w.b = append(w.b, v.Digest[:]...)
		}
		w.int64(v.Size)
	default:
		w.byte(privateSealed)
		w.bytes(v.Sealed)
	}
}

// reader takes values off b. After a failure it returns zero values.
// Texts share the memory of s, lists are read into those of the values that are
// there: whoever decodes many records of a page converts it once, and reuses one
// record.
type reader struct {
	b      []byte
	s      string // the same bytes
	at     int
	sparse bool // check all, return only what entries are found by
	failed bool
	known  *knownAddr // may be nil
}

// knownAddr is an address that was read before: neighbours often have the same one.
type knownAddr struct {
	text string
	addr netip.Addr
}

func newReader(b []byte) reader { return reader{b: b, s: string(b)} }

func (r *reader) rest() []byte { return r.b[r.at:] }

func (r *reader) fail() {
	r.failed = true
	r.at = len(r.b)
}

func (r *reader) take(n int) []byte {
	if len(r.b)-r.at < n || r.failed {
		r.fail()
		return nil
	}
	v := r.b[r.at : r.at+n : r.at+n]
	r.at += n
	return v
}

func (r *reader) byte() byte {
	if r.at >= len(r.b) {
		r.fail()
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *reader) bool() bool {
	v := r.byte()
	if v > 1 {
		r.fail()
	}
	return v == 1
}

func (r *reader) int64() int64 {
	if len(r.b)-r.at < 8 {
		r.fail()
		return 0
	}
	r.at += 8
	return int64(binary.BigEndian.Uint64(r.b[r.at-8:])) //nolint:gosec // two's complement
}

func (r *reader) time() time.Time {
	v := r.int64()
	if v < 0 || v > lastMicro {
		r.fail()
	}
	if r.failed || v == 0 {
		return time.Time{}
	}
	return time.UnixMicro(v).UTC()
}

func (r *reader) count() int {
	if len(r.b)-r.at < 2 {
		r.fail()
		return 0
	}
	r.at += 2
	return int(binary.BigEndian.Uint16(r.b[r.at-2:]))
}

// text returns nothing if the reader is sparse.
func (r *reader) text() string {
	if r.sparse {
		r.skip(1)
		return ""
	}
	return r.key()
}

// skip passes over texts, which are checked as if they were read.
func (r *reader) skip(texts int) {
	b, at := r.b, r.at
	for range texts {
		if len(b)-at < 2 {
			r.fail()
			return
		}
		from := at + 2
		at = from + int(binary.BigEndian.Uint16(b[at:]))
		if at > len(b) || !plain(b[from:at]) && !isClean(b[from:at]) {
			r.fail()
			return
		}
	}
	r.at = at
}

func isClean(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// key is a text that entries are found by.
func (r *reader) key() string {
	n := r.count()
	if n > len(r.b)-r.at {
		r.fail()
		return ""
	}
	from := r.at
	r.at += n
	s := r.s[from:r.at]
	if !plain(r.b[from:r.at]) && clean(s) != s {
		r.fail()
	}
	return s
}

// plain reports whether b holds ASCII without NUL alone, which is clean.
func plain(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		v := binary.LittleEndian.Uint64(b)
		// No byte has its highest bit, and none borrows it when 1 is taken away.
		if (v|(v-0x0101010101010101))&0x8080808080808080 != 0 {
			return false
		}
	}
	for _, c := range b {
		if c == 0 || c >= 0x80 {
			return false
		}
	}
	return true
}

// bytes returns a value that is not nil, so that an empty one is not taken for an
// erased one.
func (r *reader) bytes() []byte {
	if v := r.take(r.count()); v != nil {
		return v
	}
	return []byte{}
}

func (r *reader) texts(list []string) []string {
	list = list[:0]
	if r.sparse {
		r.skip(r.count())
		return list
	}
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
	s.ID = r.key()
	if r.sparse {
		r.skip(3)
	} else {
		s.OnBehalfOf, s.Session, s.Device = r.text(), r.text(), r.text()
	}
	s.Addr = r.addr()
	s.Assurance = crmguard.Assurance(r.byte())
	s.AuthenticatedAt = r.time()
	s.Roles = r.texts(s.Roles)
	s.Units = r.texts(s.Units)
	s.Scopes = r.texts(s.Scopes)
}

func (r *reader) addr() netip.Addr {
	text := r.key()
	if text == "" {
		return netip.Addr{}
	}
	if r.known != nil && r.known.text == text {
		return r.known.addr
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.String() != text {
		r.fail()
		return netip.Addr{}
	}
	if r.known != nil {
		r.known.text, r.known.addr = text, addr
	}
	return addr
}

func (r *reader) resource(v *crmguard.Resource) {
	v.Tenant = r.text()
	v.Kind = r.key()
	v.ID = r.key()
	if r.sparse {
		r.skip(3)
	} else {
		v.Field, v.Owner, v.Unit = r.text(), r.text(), r.text()
	}
	v.Shared = r.bool()
}

func (r *reader) sealed(cut bool) SealedValue {
	v := SealedValue{Client: r.key(), Name: r.text()}
	switch state := r.byte(); {
	case state == privateErased:
		v.Erased = true
	case state == privateDigest && cut:
		if digest := r.take(len(v.Digest)); digest != nil {
			v.Digest = [32]byte(digest)
		}
		v.Size = r.int64()
		if v.Size < 0 {
			r.fail()
		}
	case state == privateSealed && !cut:
		v.Sealed = r.bytes()
	default:
		r.fail()
	}
	return v
}
