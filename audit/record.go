package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
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
)

const (
	privateSealed byte = 1
	privateErased byte = 2
)

var errMalformed = errors.New("audit: malformed record")

// SealedValue is a private value of an entry as it is stored.
type SealedValue struct {
	Client string
	Name   string
	Erased bool   // the client was erased before the entry was written, so there is no value
	Sealed []byte // nil if Erased
}

// content is what a body says.
type content struct {
	tenant string
	event  crmguard.Event // Private without values
	sealed []SealedValue
	timed  bool // the caller said when it happened; not part of the body
}

func appendHead(b []byte, log [16]byte, seq int64, recorded time.Time) []byte {
	b = append(b, recordVersion)
	b = append(b, log[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(seq)) //nolint:gosec // never negative
	return appendTime(b, recorded)
}

// encodeBody returns a *TooLargeError for what does not fit.
func encodeBody(c *content) ([]byte, error) {
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
	w.count(len(c.sealed))
	for _, v := range c.sealed {
		w.text(v.Client)
		w.text(v.Name)
		if v.Erased {
			w.byte(privateErased)
			continue
		}
		w.byte(privateSealed)
		w.bytes(v.Sealed)
	}
	if w.tooLarge || len(w.b) > maxBody {
		return nil, &TooLargeError{Size: w.size + headSize, Limit: maxRecord}
	}
	return w.b, nil
}

// decodeBody accepts exactly what encodeBody returns.
func decodeBody(b []byte) (*content, error) {
	if len(b) > maxBody {
		return nil, errMalformed
	}
	r := reader{b: b}
	c := &content{}
	e := &c.event
	c.tenant = r.text()
	e.ID = r.text()
	e.Outcome = crmguard.Outcome(r.byte())
	e.Time = r.time()
	e.Action = crmguard.Action(r.text())
	r.subject(&e.Subject)
	r.resource(&e.Resource)
	e.Reason = r.text()
	e.Fields = r.texts()
	e.Count = int(r.int64())
	e.Request = r.text()
	e.Policy = r.text()
	for range r.count() {
		v := SealedValue{Client: r.text(), Name: r.text()}
		switch state := r.byte(); {
		case state == privateSealed:
			v.Sealed = r.bytes()
		case state == privateErased:
			v.Erased = true
		default:
			r.failed = true
		}
		if r.failed {
			return nil, errMalformed
		}
		c.sealed = append(c.sealed, v)
		e.Private = append(e.Private, crmguard.Private{Client: v.Client, Name: v.Name})
	}
	if r.failed || len(r.b) != 0 || c.tenant == "" || e.ID == "" || e.Time.IsZero() || e.Count < 0 ||
		e.Outcome < crmguard.Attempted || e.Outcome > crmguard.Undecided {
		return nil, errMalformed
	}
	return c, nil
}

// record is a decoded record.
type record struct {
	log      [16]byte
	seq      int64
	recorded time.Time
	content
}

func decodeRecord(b []byte) (*record, error) {
	if len(b) < headSize || len(b) > maxRecord {
		return nil, errMalformed
	}
	if b[0] != recordVersion {
		return nil, fmt.Errorf("audit: record of version %d, this program knows %d", b[0], recordVersion)
	}
	rec := &record{log: [16]byte(b[1:17])}
	seq := binary.BigEndian.Uint64(b[17:])
	if seq > 1<<62 {
		return nil, errMalformed
	}
	rec.seq = int64(seq)
	r := reader{b: b[25:headSize]}
	rec.recorded = r.time()
	if r.failed || rec.recorded.IsZero() {
		return nil, errMalformed
	}
	body, err := decodeBody(b[headSize:])
	if err != nil {
		return nil, err
	}
	rec.content = *body
	return rec, nil
}

func (r *record) entry() Entry {
	return Entry{Seq: r.seq, Recorded: r.recorded, Tenant: r.tenant, Event: r.event, Sealed: r.sealed}
}

// keys returns what the entry is found by.
func (c *content) keys() Keys {
	k := Keys{
		Tenant:  keyText(c.tenant),
		Event:   keyText(c.event.ID),
		Outcome: c.event.Outcome,
		Subject: keyText(c.event.Subject.ID),
		Kind:    keyText(c.event.Resource.Kind),
		Record:  keyText(c.event.Resource.ID),
		Action:  crmguard.Action(keyText(string(c.event.Action))),
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
		k.Kind == o.Kind && k.Record == o.Record && k.Action == o.Action && k.Time == o.Time &&
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
	a, errA := encodeBody(c.bare(times))
	b, errB := encodeBody(o.bare(times))
	return errA == nil && errB == nil && bytes.Equal(a, b)
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

func cleanAll(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	cleaned := make([]string, len(list))
	for i, s := range list {
		cleaned[i] = clean(s)
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
