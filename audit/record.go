package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
)

// A record is a head of fixed size, which the committer writes when the entry
// gets its number, and a body, which is encoded and sealed before. The format is
// specified in docs/formats/audit.md.
const (
	recordVersion = 1
	headSize      = 1 + 16 + 8 + 8
	maxRecord     = 64 << 10
	maxBody       = maxRecord - headSize
	maxKey        = 200 // bytes; PostgreSQL's index rows hold 2,700
	maxText       = 1024
	maxHeadList   = 8 // roles, units and scopes each, of an event that does not fit
)

const (
	privateSealed byte = 1
	privateErased byte = 2
	privateDigest byte = 3
)

var errMalformed = errors.New("audit: malformed record")

// SealedValue is a private value of an entry as it is stored. Of an event that did
// not fit, the sealed bytes are not kept, only their digest and size.
type SealedValue struct {
	Client string
	Name   string
	Erased bool     // the client was erased before the entry was written, so there is no value
	Sealed []byte   // nil if Erased, or if there is a digest instead
	Digest [32]byte // SHA-256 of the sealed bytes
	Size   int64    // of the sealed bytes
}

// Cut says what is missing in the entry of an event that did not fit into 64 KiB.
// Who did what to what, when, why and with which outcome is there.
type Cut struct {
	Fields int64 // names that the event had; the entry has none of them
	Values int64 // private values that it had; the entry has the digests of all that fit
}

// content is what a body says.
type content struct {
	tenant string
	event  crmguard.Event // Private without values
	sealed []SealedValue
	cut    Cut
	isCut  bool
	timed  bool // the caller said when it happened; not part of the body

	pseudonyms []Pseudonym // beside the record
	addr       addrCache
}

// addrCache remembers the text of an address: neighbours often have the same one.
type addrCache struct {
	of netip.Addr
	s  string
}

func (c *addrCache) text(a netip.Addr) string {
	if a != c.of {
		c.of, c.s = a, addrText(a)
	}
	return c.s
}

func appendHead(b []byte, log [16]byte, seq int64, recorded time.Time) []byte {
	b = append(b, recordVersion)
	b = append(b, log[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(seq)) //nolint:gosec // never negative
	return appendTime(b, recorded)
}

// encodeBody returns false for what does not fit.
func encodeBody(c *content) ([]byte, bool) {
	e := &c.event
	w := writer{b: make([]byte, 0, 512)}
	w.text(c.tenant)
	w.text(e.ID)
	w.byte(byte(e.Outcome))
	w.time(e.Time)
	w.text(string(e.Action))
	w.subject(&e.Subject)
	w.resource(&e.Resource)
	w.text(e.Reason)
	w.texts(e.Fields)
	w.int64(int64(e.Count))
	w.text(e.Request)
	w.text(e.Policy)
	w.bool(c.isCut)
	if c.isCut {
		w.int64(c.cut.Fields)
		w.int64(c.cut.Values)
	}
	w.count(len(c.sealed))
	for i := range c.sealed {
		w.sealed(&c.sealed[i], c.isCut)
	}
	return w.b, !w.tooLarge
}

// fit encodes c, or if it is too large what is left of it when it is cut.
func (c *content) fit() []byte {
	body, ok := encodeBody(c)
	if ok {
		return body
	}
	c.isCut, c.cut = true, Cut{Fields: int64(len(c.event.Fields)), Values: int64(len(c.sealed))}
	c.event.Fields = nil
	for _, list := range []*[]string{&c.event.Subject.Roles, &c.event.Subject.Units, &c.event.Subject.Scopes} {
		*list = (*list)[:min(len(*list), maxHeadList)]
	}
	for i := range c.sealed {
		if v := &c.sealed[i]; !v.Erased {
			v.Digest, v.Size, v.Sealed = sha256.Sum256(v.Sealed), int64(len(v.Sealed)), nil
		}
	}
	for { // the rest of it is bounded: about twenty-five texts and three short lists
		if body, ok = encodeBody(c); ok {
			return body
		}
		c.sealed = c.sealed[:len(c.sealed)/2]
	}
}

// decodeBody accepts exactly what encodeBody returns.
func decodeBody(b []byte) (*content, error) {
	c := &content{}
	if err := c.decode(newReader(b)); err != nil {
		return nil, err
	}
	return c, nil
}

// decode overwrites all of c, and reuses its lists.
func (c *content) decode(r reader) error {
	if len(r.rest()) > maxBody {
		return errMalformed
	}
	e := &c.event
	c.tenant = r.key()
	e.ID = r.key()
	e.Outcome = crmguard.Outcome(r.byte())
	e.Time = r.time()
	e.Action = crmguard.Action(r.key())
	r.subject(&e.Subject)
	r.resource(&e.Resource)
	e.Reason = r.text()
	e.Fields = r.texts(e.Fields)
	e.Count = int(r.int64())
	e.Request = r.text()
	e.Policy = r.text()
	c.cut = Cut{}
	if c.isCut = r.bool(); c.isCut {
		c.cut = Cut{Fields: r.int64(), Values: r.int64()}
	}
	c.sealed, e.Private = c.sealed[:0], e.Private[:0]
	for range r.count() {
		v := r.sealed(c.isCut)
		if r.failed {
			return errMalformed
		}
		c.sealed = append(c.sealed, v)
		if !r.sparse {
			e.Private = append(e.Private, crmguard.Private{Client: v.Client, Name: v.Name})
		}
	}
	if r.failed || r.at != len(r.b) || c.tenant == "" || e.ID == "" || e.Time.IsZero() || e.Count < 0 ||
		e.Outcome < crmguard.Attempted || e.Outcome > crmguard.Undecided ||
		c.isCut && (c.cut.Fields < 0 || c.cut.Values < int64(len(c.sealed)) || len(e.Fields) > 0) {
		return errMalformed
	}
	return nil
}

// record is a decoded record.
type record struct {
	log      [16]byte
	seq      int64
	recorded time.Time
	content
}

func decodeRecord(b []byte) (*record, error) {
	rec := &record{}
	if err := rec.decode(newReader(b)); err != nil {
		return nil, err
	}
	return rec, nil
}

// decode overwrites all of rec, and reuses its lists.
func (rec *record) decode(r reader) error {
	if len(r.b) < headSize || len(r.b) > maxRecord {
		return errMalformed
	}
	if version := r.byte(); version != recordVersion {
		return fmt.Errorf("audit: record of version %d, this program knows %d", version, recordVersion)
	}
	rec.log = [16]byte(r.take(16))
	rec.seq = r.int64()
	rec.recorded = r.time()
	if r.failed || rec.seq < 0 || rec.seq > 1<<62 || rec.recorded.IsZero() {
		return errMalformed
	}
	return rec.content.decode(r)
}

func (r *record) entry() Entry {
	e := Entry{Seq: r.seq, Recorded: r.recorded, Tenant: r.tenant, Event: r.event, Sealed: r.sealed}
	if r.isCut {
		e.Cut = &r.cut
	}
	return e
}

// keys returns what the entry is found by.
func (c *content) keys() Keys { return c.keysInto(nil) }

// keysInto puts the clients into a list that is there.
func (c *content) keysInto(clients []string) Keys {
	k := Keys{
		Clients: clients,
		Tenant:  keyText(c.tenant),
		Event:   keyText(c.event.ID),
		Outcome: c.event.Outcome,
		Subject: keyText(c.event.Subject.ID),
		Kind:    keyText(c.event.Resource.Kind),
		Record:  keyText(c.event.Resource.ID),
		Action:  crmguard.Action(keyText(string(c.event.Action))),
		Addr:    c.addr.text(c.event.Subject.Addr),
		Time:    micros(c.event.Time),
	}
	for _, v := range c.sealed {
		if v.Client != "" {
			k.Clients = append(k.Clients, keyText(v.Client))
		}
	}
	slices.Sort(k.Clients)
	k.Clients = slices.Compact(k.Clients)
	return k
}

func (k *Keys) equal(o *Keys) bool {
	return k.Tenant == o.Tenant && k.Event == o.Event && k.Outcome == o.Outcome && k.Subject == o.Subject &&
		k.Kind == o.Kind && k.Record == o.Record && k.Action == o.Action && k.Addr == o.Addr && k.Time == o.Time &&
		slices.Equal(k.Clients, o.Clients)
}

// id is what makes a row unique.
func (k *Keys) id() [32]byte { return rowID(k.Tenant, k.Event, k.Outcome) }

func rowID(tenant, event string, outcome crmguard.Outcome) [32]byte {
	b := make([]byte, 0, 128)
	b = binary.BigEndian.AppendUint16(b, uint16(len(tenant))) //nolint:gosec // at most maxKey
	b = append(b, tenant...)
	b = append(b, byte(outcome))
	return sha256.Sum256(append(b, event...))
}

// same reports whether two contents say the same: sealed bytes differ each time,
// and a time counts only if the caller gave it.
func (c *content) same(o *content, times bool) bool {
	a, okA := encodeBody(c.bare(times))
	b, okB := encodeBody(o.bare(times))
	return okA && okB && bytes.Equal(a, b)
}

func (c *content) bare(times bool) *content {
	b := *c
	if !times {
		b.event.Time = time.Time{}
	}
	b.sealed = make([]SealedValue, len(c.sealed))
	for i, v := range c.sealed {
		b.sealed[i] = SealedValue{Client: v.Client, Name: v.Name, Erased: true}
	}
	return &b
}

func (c *content) conflict() error {
	return &ConflictError{Tenant: c.tenant, ID: c.event.ID, Outcome: c.event.Outcome}
}

const digestPrefix = "sha256:"

// keyText returns s, or a digest if s is too long for an index, or might be taken
// for a digest.
func keyText(s string) string {
	if len(s) <= maxKey && !strings.HasPrefix(s, digestPrefix) {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return digestPrefix + hex.EncodeToString(sum[:])
}

// clean makes s something that every database stores as text. Requests choose
// some of these texts, and one that PostgreSQL refuses would fail its whole batch.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// short returns s, or if it is longer than a text may be its beginning and a digest
// of all of it, so that two texts that begin alike stay two. It is clean if s is.
func short(s string) string {
	if len(s) <= maxText {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	end := "…" + digestPrefix + hex.EncodeToString(sum[:])
	n := maxText - len(end)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + end
}

func cleanAll(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	cleaned := make([]string, len(list))
	for i, s := range list {
		cleaned[i] = short(clean(s))
	}
	return cleaned
}

// lastMicro is the last microsecond of the year 9999.
var lastMicro = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() - 1

// writable reports whether t comes back as it was written.
func writable(t time.Time) bool {
	year := t.UTC().Year() // of times far away UnixMicro means nothing
	return year >= 1970 && year <= 9999 && t.UnixMicro() > 0
}

// stored is t as it comes back.
func stored(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(micros(t))) //nolint:gosec // two's complement, read back so
}
