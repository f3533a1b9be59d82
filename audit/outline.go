package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/crmguard/crmguard"
)

// outline is a body that was looked over: nothing in it can be refused any more, so
// that what is decoded of it and what is compared with it are of the same bodies. One
// that is used again remembers the last address: neighbours often have the same one.
type outline struct {
	b       []byte
	lengths int // where the lengths of the texts begin
	texts   int // where the texts begin
	values  int // where what is kept of the private values begins
	private int // how many there are
	addr    address
}

// address is one as it was written, and what rows are found by.
type address struct {
	text string
	addr netip.Addr
	key  string
}

// read looks over a body. It accepts exactly what encodeBody returns.
func (o *outline) read(b []byte) error {
	if len(b) < numbersSize || len(b) > maxBody ||
		crmguard.Outcome(b[atOutcome]) < crmguard.Attempted || crmguard.Outcome(b[atOutcome]) > crmguard.Undecided ||
		b[atShared] > 1 || b[atCut] > 1 || int64At(b, atCount) < 0 ||
		!isTime(int64At(b, atTime)) || int64At(b, atTime) == 0 || !isTime(int64At(b, atAuthenticated)) {
		return errMalformed
	}
	o.b, o.private, o.lengths = b, countAt(b, atPrivate), numbersSize
	if b[atCut] == 1 {
		o.lengths += cutSize
		if len(b) < o.lengths || o.cut().Fields < 0 || o.cut().Values < int64(o.private) || o.list(nLists-1) > 0 {
			return errMalformed
		}
	}
	n := 1 + nTexts + 2*o.private
	for at := atLists; at < atPrivate; at += 2 {
		n += countAt(b, at)
	}
	texts := o.lengths + 2*n
	if texts > len(b) {
		return errMalformed
	}
	values := texts
	lengths := b[o.lengths:texts]
	for ; len(lengths) >= 8; lengths = lengths[8:] {
		four := binary.BigEndian.Uint64(lengths)
		values += int(four>>48 + four>>32&0xffff + four>>16&0xffff + four&0xffff) //nolint:gosec // 18 bits
	}
	for ; len(lengths) >= 2; lengths = lengths[2:] {
		values += countAt(lengths, 0)
	}
	o.texts, o.values = texts, values
	if values > len(b) || !isPlain(b[texts:values]) && !o.isClean(n) ||
		o.length(1) == 0 || o.length(2) == 0 || // tenant and event id
		!o.addr.is(b[texts:texts+o.length(0)]) || !o.areValues(b[values:]) {
		return errMalformed
	}
	return nil
}

// list is how many texts the list i has.
func (o *outline) list(i int) int { return countAt(o.b, atLists+2*i) }

// length is that of text i.
func (o *outline) length(i int) int { return countAt(o.b, o.lengths+2*i) }

// cut must be there.
func (o *outline) cut() Cut {
	return Cut{Fields: int64At(o.b, numbersSize), Values: int64At(o.b, numbersSize+8)}
}

// isClean reports whether each of n texts is.
func (o *outline) isClean(n int) bool {
	at := o.texts
	for i := range n {
		end := at + o.length(i)
		if !isClean(o.b[at:end]) {
			return false
		}
		at = end
	}
	return true
}

// is reports whether text is an address in canonical form, or none.
func (a *address) is(text []byte) bool {
	if string(text) == a.text {
		return true
	}
	var room [64]byte
	s := string(text)
	addr, err := netip.ParseAddr(s)
	if err == nil && string(addr.AppendTo(room[:0])) == s {
		*a = address{s, addr, addrText(addr)}
		return true
	}
	*a = address{}
	return len(s) == 0
}

// areValues reports whether b is what is kept of the private values, and nothing else.
func (o *outline) areValues(b []byte) bool {
	for range o.private {
		n := o.valueSize(b)
		if n == 0 {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}

// valueSize is how many bytes of b are the first value, 0 if it is none.
func (o *outline) valueSize(b []byte) int {
	n := 0
	switch {
	case len(b) > 0 && b[0] == privateErased:
		n = 1
	case len(b) > 2 && b[0] == privateSealed && o.b[atCut] == 0:
		n = 3 + countAt(b, 1)
	case len(b) >= 1+sha256.Size+8 && b[0] == privateDigest && o.b[atCut] == 1 && int64At(b, 1+sha256.Size) >= 0:
		n = 1 + sha256.Size + 8
	}
	if n > len(b) {
		return 0
	}
	return n
}

// walk goes through the texts of an outline.
type walk struct {
	lengths []byte
	texts   string
}

// walk begins with text i.
func (o *outline) walk(i int) walk {
	at := o.texts
	for k := range i {
		at += o.length(k)
	}
	return walk{o.b[o.lengths+2*i : o.texts], string(o.b[at:o.values])}
}

func (w *walk) next() string {
	n := countAt(w.lengths, 0)
	s := w.texts[:n]
	w.lengths, w.texts = w.lengths[2:], w.texts[n:]
	return s
}

// decode sets c, which is new, to what the body says. Its texts share memory of their
// own, its values that of the body.
func (o *outline) decode(c *content) {
	e := &c.event
	e.Outcome = crmguard.Outcome(o.b[atOutcome])
	e.Time = timeAt(o.b, atTime)
	e.Count = int(int64At(o.b, atCount))
	e.Subject.Kind = crmguard.SubjectKind(o.b[atKind])
	e.Subject.Assurance = crmguard.Assurance(o.b[atAssurance])
	e.Subject.AuthenticatedAt = timeAt(o.b, atAuthenticated)
	e.Subject.Addr = o.addr.addr
	e.Resource.Shared = o.b[atShared] == 1
	if c.isCut = o.b[atCut] == 1; c.isCut {
		c.cut = o.cut()
	}
	texts := o.walk(1)
	for _, s := range c.texts() {
		*s = texts.next()
	}
	for i, list := range c.lists() {
		if n := o.list(i); n > 0 {
			*list = make([]string, n)
			for k := range n {
				(*list)[k] = texts.next()
			}
		}
	}
	if o.private == 0 {
		return
	}
	c.sealed, e.Private = make([]SealedValue, o.private), make([]crmguard.Private, o.private)
	values := o.b[o.values:]
	for i := range c.sealed {
		v := &c.sealed[i]
		v.Client, v.Name = texts.next(), texts.next()
		e.Private[i] = crmguard.Private{Client: v.Client, Name: v.Name}
		n := o.valueSize(values)
		switch values[0] {
		case privateErased:
			v.Erased = true
		case privateSealed:
			v.Sealed = values[3:n:n]
		case privateDigest:
			v.Digest, v.Size = [32]byte(values[1:]), int64At(values, 1+sha256.Size)
		}
		values = values[n:]
	}
}

// says reports whether these are the keys of the body: those of its content, which is
// not decoded for that.
func (o *outline) says(k *Keys) bool {
	if crmguard.Outcome(o.b[atOutcome]) != k.Outcome || int64At(o.b, atTime) != k.Time || o.addr.key != k.Addr {
		return false
	}
	lengths, texts := o.b[o.lengths+2:o.texts], o.b[o.texts+len(o.addr.text):o.values]
	for _, key := range k.texts() {
		n := countAt(lengths, 0)
		if text := texts[:n]; string(text) != *key || !isKey(*key) {
			if keyText(string(text)) != *key {
				return false
			}
		}
		lengths, texts = lengths[2:], texts[n:]
	}
	if o.private == 0 {
		return len(k.Clients) == 0
	}
	return slices.Equal(o.clients(), k.Clients)
}

func (o *outline) clients() []string {
	n := 1 + nTexts
	for i := range nLists {
		n += o.list(i)
	}
	texts := o.walk(n)
	clients := make([]string, 0, o.private)
	for range o.private {
		clients = append(clients, texts.next())
		texts.next() // the name
	}
	return clientKeys(clients)
}
