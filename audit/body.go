package audit

import (
	"crypto/sha256"
	"net/netip"
)

// A body is numbers, then the lengths of all texts, then all texts, then what is kept
// of the private values; docs/formats/audit.md has the table. Who looks for something
// in a body, or compares it, thus needs to look at no other text than those before it,
// and all texts can be checked at once.

// Where the numbers are. Those of a cut come after them, if it is one.
const (
	atOutcome       = 0
	atKind          = 1
	atAssurance     = 2
	atShared        = 3
	atCut           = 4
	atTime          = 5
	atAuthenticated = atTime + 8
	atCount         = atAuthenticated + 8
	atLists         = atCount + 8        // how many texts each list has
	atPrivate       = atLists + 2*nLists // how many private values there are
	numbersSize     = atPrivate + 2
	cutSize         = 8 + 8
)

const (
	nTexts = 17
	nLists = 4
)

// texts are those of a body, after the address, in their order; those that entries are
// found by come first.
func (c *content) texts() [nTexts]*string {
	e := &c.event
	s, r := &e.Subject, &e.Resource
	return [...]*string{
		&c.tenant, &e.ID, (*string)(&e.Action), &s.ID, &r.Kind, &r.ID,
		&s.Tenant, &s.OnBehalfOf, &s.Session, &s.Device,
		&r.Tenant, &r.Field, &r.Owner, &r.Unit,
		&e.Reason, &e.Request, &e.Policy,
	}
}

// texts are the first ones of a body, as keys of rows.
func (k *Keys) texts() [6]*string {
	return [...]*string{&k.Tenant, &k.Event, (*string)(&k.Action), &k.Subject, &k.Kind, &k.Record}
}

// lists come after the texts, and after them client and name of each private value.
func (c *content) lists() [nLists]*[]string {
	s := &c.event.Subject
	return [...]*[]string{&s.Roles, &s.Units, &s.Scopes, &c.event.Fields}
}

// encodeBody returns false for what does not fit.
func encodeBody(c *content) ([]byte, bool) {
	e := &c.event
	texts, lists := c.texts(), c.lists()
	w := writer{b: make([]byte, 0, 512)}
	w.byte(byte(e.Outcome))
	w.byte(byte(e.Subject.Kind))
	w.byte(byte(e.Subject.Assurance))
	w.bool(e.Resource.Shared)
	w.bool(c.isCut)
	w.time(e.Time)
	w.time(e.Subject.AuthenticatedAt)
	w.int64(int64(e.Count))
	for _, list := range lists {
		w.count(len(*list))
	}
	w.count(len(c.sealed))
	if c.isCut {
		w.int64(c.cut.Fields)
		w.int64(c.cut.Values)
	}

	var room [64]byte
	addr := appendAddr(room[:0], e.Subject.Addr)
	w.count(len(addr))
	for _, s := range texts {
		w.count(len(*s))
	}
	for _, list := range lists {
		for _, s := range *list {
			w.count(len(s))
		}
	}
	for i := range c.sealed {
		w.count(len(c.sealed[i].Client))
		w.count(len(c.sealed[i].Name))
	}

	w.bytes(addr)
	for _, s := range texts {
		w.text(*s)
	}
	for _, list := range lists {
		for _, s := range *list {
			w.text(s)
		}
	}
	for i := range c.sealed {
		w.text(c.sealed[i].Client)
		w.text(c.sealed[i].Name)
	}

	for i := range c.sealed {
		w.sealed(&c.sealed[i], c.isCut)
	}
	return w.b, !w.tooLarge
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	return a.WithZone(short(clean(a.Zone()))).AppendTo(b)
}

// sealed writes the digest of a value in place of the value if the entry is cut.
func (w *writer) sealed(v *SealedValue, cut bool) {
	switch {
	case v.Erased:
		w.byte(privateErased)
	case cut:
		w.byte(privateDigest)
		w.bytes(v.Digest[:])
		w.int64(v.Size)
	default:
		w.byte(privateSealed)
		w.count(len(v.Sealed))
		w.bytes(v.Sealed)
	}
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
