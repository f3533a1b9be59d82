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
	headSize      = 1 + 16 + 8 + 8 + sha256.Size
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
}

func appendHead(b []byte, log [16]byte, seq int64, recorded time.Time, previous *[32]byte) []byte {
	b = append(b, recordVersion)
	b = append(b, log[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(seq)) //nolint:gosec // never negative
	return append(appendTime(b, recorded), previous[:]...)
}

func decodeBody(b []byte) (*content, error) {
	var o outline
	if err := o.read(b); err != nil {
		return nil, err
	}
	c := &content{}
	o.decode(c)
	return c, nil
}

// checkHead reports what keeps the head of a record from being read.
func checkHead(b []byte) error {
	if len(b) < headSize || len(b) > maxRecord {
		return errMalformed
	}
	if b[0] != recordVersion {
		return fmt.Errorf("audit: record of version %d, this program knows %d", b[0], recordVersion)
	}
	if seq := numberOf(b); seq < 0 || seq > 1<<62 || recordedAt(b) == 0 || !isTime(recordedAt(b)) {
		return errMalformed
	}
	return nil
}

// What is in the head of a record.

func logOf(rec []byte) [16]byte   { return [16]byte(rec[1:]) }
func numberOf(rec []byte) int64   { return int64At(rec, 1+16) }
func recordedAt(rec []byte) int64 { return int64At(rec, 1+16+8) } // microseconds since 1970

// previousOf is the leaf of the entry before, which makes a chain of the log.
func previousOf(rec []byte) [32]byte { return [32]byte(rec[1+16+8+8:]) }

// record is a decoded record.
type record struct {
	log      [16]byte
	seq      int64
	recorded time.Time
	content
}

func decodeRecord(b []byte) (*record, error) {
	if err := checkHead(b); err != nil {
		return nil, err
	}
	var o outline
	if err := o.read(b[headSize:]); err != nil {
		return nil, err
	}
	rec := &record{log: logOf(b), seq: numberOf(b), recorded: timeAt(b, 1+16+8)}
	o.decode(&rec.content)
	return rec, nil
}

func (r *record) entry() Entry {
	e := Entry{Seq: r.seq, Recorded: r.recorded, Tenant: r.tenant, Event: r.event, Sealed: r.sealed}
	if r.isCut {
		e.Cut = &r.cut
	}
	return e
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
		Addr:    addrText(c.event.Subject.Addr),
		Time:    micros(c.event.Time),
	}
	for _, v := range c.sealed {
		k.Clients = append(k.Clients, v.Client)
	}
	k.Clients = clientKeys(k.Clients)
	return k
}

// clientKeys makes keys of the clients of private values, in place.
func clientKeys(clients []string) []string {
	clients = slices.DeleteFunc(clients, func(client string) bool { return client == "" })
	for i, client := range clients {
		clients[i] = keyText(client)
	}
	slices.Sort(clients)
	return slices.Compact(clients)
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

// isKey reports whether s stands for itself.
func isKey(s string) bool { return len(s) <= maxKey && !strings.HasPrefix(s, digestPrefix) }

// keyText returns s, or a digest if s is too long for an index, or might be taken
// for a digest.
func keyText(s string) string {
	if isKey(s) {
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

// cleanAll replaces lists by copies, which share one piece of memory: the caller's
// stay as they are.
func cleanAll(lists ...*[]string) {
	n := 0
	for _, list := range lists {
		n += len(*list)
	}
	all := make([]string, 0, n)
	for _, list := range lists {
		if *list = moved(&all, *list); len(*list) == 0 {
			*list = nil
		}
		for i, s := range *list {
			(*list)[i] = short(clean(s))
		}
	}
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
