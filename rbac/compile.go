package rbac

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"
)

// tenant is what one tenant's rows come to. It holds nothing of another's, so that
// no look-up in it can reach there.
//
// A question is three look-ups of names, and one of numbers for each thing that the
// person is: itself and its roles, as far as rules name them. How many rules and
// people there are makes no difference, nor whether it was asked before.
type tenant struct {
	people  map[string]*holder // by ID, without prefix; who has no rights is not in it
	objects map[string]*object // by kind
	rights  map[cell]masks
}

// holder is what a person is, as numbers that cells have, until a moment. People who
// are the same share one.
type holder struct {
	is   []uint32
	end  int64   // in Unix seconds; noEnd
	then *holder // from the end on; nil with noEnd
}

// at is what the person is at a moment. Grants that end make a chain of holders, so
// that nothing has to happen when one does.
func (h *holder) at(clock func() time.Time) *holder {
	if h == nil || h.then == nil {
		return h
	}
	for moment := clock().Unix(); h.then != nil && moment >= h.end; {
		h = h.then
	}
	return h
}

// object is a kind of records. The numbers are those that cells have.
type object struct {
	number uint32
	fields map[string]uint32
}

// cell is an identity, an object and an action in one number.
type cell uint64

const (
	actBits    = 5 // acts < 1<<actBits
	objectBits = 27
)

func cellOf(identity, object uint32, a act) cell {
	return cell(identity)<<(actBits+objectBits) | cell(object)<<actBits | cell(a)
}

// masks are the relations under which rules allow and deny something.
type masks struct{ allow, deny relationSet }

// yes are the relations under which it is allowed.
func (m masks) yes() relationSet { return m.allow &^ m.deny }

// with are the masks and what one more rule says.
func (m masks) with(r rule) masks {
	if r.effect == effectAllow {
		m.allow |= relationsIn[r.scope]
	} else {
		m.deny |= relationsIn[r.scope]
	}
	return m
}

// verdict is what the first relation in set that is not allowed is denied for, or
// that all are.
func (m masks) verdict(set relationSet) verdict {
	no := set &^ m.yes()
	switch {
	case no == 0:
		return allowed
	case no&-no&m.deny != 0:
		return denyRule
	}
	return noRule
}

// ask returns what rules say about a field of a kind, or about records of it if
// field is empty. A nil tenant is one without rows, a nil holder somebody unknown.
func (t *tenant) ask(h *holder, kind, field string, a act) (m masks) {
	if h == nil || a == 0 {
		return masks{}
	}
	o := t.objects[kind]
	if o == nil {
		return masks{}
	}
	number := o.number
	if field != "" {
		if number = o.fields[field]; number == 0 {
			return masks{}
		}
	}
	for _, identity := range h.is {
		rule := t.rights[cellOf(identity, number, a)]
		m.allow |= rule.allow
		m.deny |= rule.deny
	}
	return m
}

// compiler makes tenants of rows.
type compiler struct {
	rows    *rowSet
	tenants map[uint32]*tenantCompiler // by number of the name
}

type tenantCompiler struct {
	tenant
	number     uint32
	cells      int
	identities map[uint32]uint32   // subject → its number in cells
	objects    map[uint32]uint32   // object → its number in cells
	closures   map[uint32][]uint32 // role → the numbers of all that it is
	holders    map[string]*holder  // by what they are
}

func compileTenants(rows *rowSet) map[string]*tenant {
	c := &compiler{rows, make(map[uint32]*tenantCompiler)}
	c.count()
	c.rules()
	c.people()
	tenants := make(map[string]*tenant, len(c.tenants))
	for number, t := range c.tenants {
		made := t.tenant
		tenants[rows.names[number]] = &made
	}
	return tenants
}

func (c *compiler) tenant(number uint32) *tenantCompiler {
	t := c.tenants[number]
	if t == nil {
		t = &tenantCompiler{
			number: number, identities: make(map[uint32]uint32), objects: make(map[uint32]uint32),
			closures: make(map[uint32][]uint32), holders: make(map[string]*holder),
		}
		t.tenant.objects = make(map[string]*object)
		t.tenant.people = make(map[string]*holder)
		c.tenants[number] = t
	}
	return t
}

// count finds how many cells each tenant has, so that no map grows.
func (c *compiler) count() {
	for i, r := range c.rows.rules {
		if i > 0 {
			if last := c.rows.rules[i-1]; r.subject == last.subject && r.tenant == last.tenant && r.object == last.object && r.act == last.act {
				continue
			}
		}
		c.tenant(r.tenant).cells++
	}
}

func (c *compiler) rules() {
	var t *tenantCompiler
	var identity uint32
	for i, r := range c.rows.rules {
		if i == 0 || r.subject != c.rows.rules[i-1].subject || r.tenant != c.rows.rules[i-1].tenant {
			t = c.tenant(r.tenant)
			identity = uint32(len(t.identities)) // #nosec G115 -- as in rowBuilder.id
			t.identities[r.subject] = identity
		}
		if t.rights == nil {
			t.rights = make(map[cell]masks, t.cells)
		}
		key := cellOf(identity, t.object(c.rows.names, r.object), r.act)
		t.rights[key] = t.rights[key].with(r)
	}
}

// object numbers kinds and fields from 1 on.
func (t *tenantCompiler) object(names []string, name uint32) uint32 {
	if number, ok := t.objects[name]; ok {
		return number
	}
	number := uint32(len(t.objects)) + 1 // #nosec G115 -- as in rowBuilder.id
	t.objects[name] = number
	kind, field, isField := strings.Cut(names[name], "#")
	o := t.tenant.objects[kind]
	if o == nil {
		o = &object{}
		t.tenant.objects[kind] = o
	}
	if !isField {
		o.number = number
		return number
	}
	if o.fields == nil {
		o.fields = make(map[string]uint32)
	}
	o.fields[field] = number
	return number
}

// people makes a holder for each person who has rules or links to some.
func (c *compiler) people() {
	links := c.rows.links
	for i := 0; i < len(links); {
		from := i
		for i < len(links) && links[i].subject == links[from].subject && links[i].tenant == links[from].tenant {
			i++
		}
		c.person(links[from].tenant, links[from].subject, links[from:i])
	}
	for _, t := range c.tenants {
		for subject := range t.identities {
			if len(c.rows.linksOf(t.number, subject)) == 0 {
				c.person(t.number, subject, nil)
			}
		}
	}
}

func (c *compiler) person(tenantNumber, subject uint32, links []link) {
	id, ok := strings.CutPrefix(c.rows.names[subject], personPrefix)
	if !ok {
		return
	}
	t := c.tenant(tenantNumber)
	if h := c.holder(t, subject, links); len(h.is) > 0 || h.then != nil {
		t.people[id] = h
	}
}

// holder is the chain of what a person is from now until the last end of its links.
func (c *compiler) holder(t *tenantCompiler, subject uint32, links []link) *holder {
	end := int64(noEnd)
	var is []uint32
	if own, ok := t.identities[subject]; ok {
		is = append(is, own)
	}
	for _, l := range links {
		is = append(is, c.closure(t, l.role)...)
		end = min(end, l.end)
	}
	slices.Sort(is)
	is = slices.Compact(is)
	if end != noEnd {
		left := slices.DeleteFunc(slices.Clone(links), func(l link) bool { return l.end == end })
		return &holder{slices.Clip(is), end, c.holder(t, subject, left)}
	}
	key := make([]byte, 0, 4*len(is))
	for _, identity := range is {
		key = binary.NativeEndian.AppendUint32(key, identity)
	}
	h := t.holders[string(key)]
	if h == nil {
		h = &holder{slices.Clip(is), noEnd, nil}
		t.holders[string(key)] = h
	}
	return h
}

// closure is all that a role is. Links between roles have no ends and no cycles.
func (c *compiler) closure(t *tenantCompiler, role uint32) []uint32 {
	if is, ok := t.closures[role]; ok {
		return is
	}
	var is []uint32
	if own, ok := t.identities[role]; ok {
		is = append(is, own)
	}
	for _, l := range c.rows.linksOf(t.number, role) {
		is = append(is, c.closure(t, l.role)...)
	}
	slices.Sort(is)
	is = slices.Compact(is)
	t.closures[role] = is
	return is
}
