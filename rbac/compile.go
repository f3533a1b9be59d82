package rbac

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"time"
)

// compiled is what the rows of a policy come to. A question is a look-up of the person,
// one of the kind, and for each thing that the person is, itself and its roles, as far
// as rules name them, a search by halving in the objects that it has rights on. How many
// rules and people there are makes no difference, nor whether it was asked before.
type compiled struct {
	people map[who]*holder // who has no rights is not in it
	kinds  map[string]*kind

	standIns map[who][]standIn // by deputy; by their ends

	// What each identity has lies together, by ascending number of the object.
	objects []uint32
	cells   [][acts]masks // of the object at the same index
}

// who is a person of a tenant, without prefix.
type who struct{ tenant, person string }

// holder is what a person is until a moment: itself and its roles. People who are the
// same share one.
type holder struct {
	is   []part
	end  int64   // in Unix seconds; noEnd
	then *holder // from the end on; nil with noEnd
}

// part is what an identity has: from, up to and without to.
type part struct{ from, to uint32 }

// at is what the person is at a moment. Grants that end make a chain of holders, so
// that nothing has to happen when one does.
func (h *holder) at(clock func() time.Time) *holder {
	if h == nil || h.then == nil {
		return h
	}
	return h.on(clock().Unix())
}

func (h *holder) on(moment int64) *holder {
	for h != nil && h.then != nil && moment >= h.end {
		h = h.then
	}
	return h
}

// kind is a kind of records. The numbers are those of names.
type kind struct {
	number uint32
	fields map[string]uint32
}

// noObject is no number of an object.
const noObject = 1<<32 - 1

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
// field is empty. A nil holder is somebody unknown.
func (c *compiled) ask(h *holder, of, field string, a act) (m masks) {
	if h == nil || a == 0 {
		return masks{}
	}
	k := c.kinds[of]
	if k == nil {
		return masks{}
	}
	number := k.number
	if field != "" {
		var ok bool
		if number, ok = k.fields[field]; !ok {
			return masks{}
		}
	}
	for _, p := range h.is {
		low, high := p.from, p.to
		for low < high {
			if middle := (low + high) / 2; c.objects[middle] < number {
				low = middle + 1
			} else {
				high = middle
			}
		}
		if low < p.to && c.objects[low] == number {
			rule := c.cells[low][a]
			m.allow |= rule.allow
			m.deny |= rule.deny
		}
	}
	return m
}

// compiler makes a compiled policy of rows.
type compiler struct {
	compiled
	rows     *rowSet
	parts    map[node]part      // by identity, as far as it has rules
	closures map[node][]part    // by role: what it is
	holders  map[string]*holder // by what they are
}

func compileRows(rows *rowSet) compiled {
	c := &compiler{
		compiled: compiled{people: make(map[who]*holder), kinds: make(map[string]*kind)},
		rows:     rows, parts: make(map[node]part), closures: make(map[node][]part), holders: make(map[string]*holder),
	}
	c.rules()
	c.persons()
	c.deputies()
	return c.compiled
}

// rules relies on their order: by subject, tenant, object.
func (c *compiler) rules() {
	rules := c.rows.rules
	cells := 0
	for i, r := range rules {
		if i == 0 || !sameCell(r, rules[i-1]) {
			cells++
		}
	}
	c.objects, c.cells = make([]uint32, 0, cells), make([][acts]masks, 0, cells)
	for i, r := range rules {
		if i == 0 || !sameCell(r, rules[i-1]) {
			c.object(r.object)
			c.objects = append(c.objects, r.object)
			c.cells = append(c.cells, [acts]masks{})
			of, n := node{r.tenant, r.subject}, uint32(len(c.objects)) // #nosec G115 -- as in rowBuilder.id
			p, known := c.parts[of]
			if !known {
				p.from = n - 1
			}
			c.parts[of] = part{p.from, n}
		}
		last := &c.cells[len(c.cells)-1][r.act]
		*last = last.with(r)
	}
}

func sameCell(a, b rule) bool {
	return a.subject == b.subject && a.tenant == b.tenant && a.object == b.object
}

func (c *compiler) object(name uint32) {
	of, field, isField := strings.Cut(c.rows.names[name], "#")
	k := c.kinds[of]
	if k == nil {
		k = &kind{number: noObject}
		c.kinds[of] = k
	}
	if !isField {
		k.number = name
		return
	}
	if k.fields == nil {
		k.fields = make(map[string]uint32)
	}
	k.fields[field] = name
}

// persons makes a holder for each person who has rules or links to some.
func (c *compiler) persons() {
	links := c.rows.links
	for i := 0; i < len(links); {
		from := i
		for i < len(links) && links[i].subject == links[from].subject && links[i].tenant == links[from].tenant {
			i++
		}
		c.person(node{links[from].tenant, links[from].subject}, links[from:i])
	}
	for of := range c.parts {
		if len(c.rows.linksOf(of.tenant, of.name)) == 0 {
			c.person(of, nil)
		}
	}
}

func (c *compiler) person(of node, links []link) {
	id, ok := strings.CutPrefix(c.rows.names[of.name], personPrefix)
	if !ok {
		return
	}
	if h := c.holder(of, links); len(h.is) > 0 || h.then != nil {
		c.people[who{c.rows.names[of.tenant], id}] = h
	}
}

// holder is the chain of what a person is, from the beginning of time until the last end
// of its links. It is made from its end, and of what a person has of one role counts the
// last end alone, so that it is no longer than there are roles, however many grants the
// person had.
func (c *compiler) holder(of node, links []link) *holder {
	var last []link
	for i, l := range links { // by role, and then by end
		if i+1 == len(links) || links[i+1].role != l.role {
			last = append(last, l)
		}
	}
	slices.SortStableFunc(last, func(a, b link) int { return cmp.Compare(b.end, a.end) })
	is, then := c.own(of), (*holder)(nil)
	for end := int64(noEnd); ; end = last[0].end {
		for len(last) > 0 && last[0].end == end {
			is = append(is, c.closure(node{last[0].tenant, last[0].role})...)
			last = last[1:]
		}
		is = each(is)
		switch {
		case then == nil:
			then = c.shared(is)
		case !slices.Equal(is, then.is): // else nothing ends
			then = &holder{is, end, then}
		}
		if len(last) == 0 {
			return then
		}
	}
}

// shared is the holder of all who are the same and do not end.
func (c *compiler) shared(is []part) *holder {
	key := make([]byte, 0, 4*len(is))
	for _, p := range is { // where it begins tells it from all others
		key = binary.NativeEndian.AppendUint32(key, p.from)
	}
	h := c.holders[string(key)]
	if h == nil {
		h = &holder{is, noEnd, nil}
		c.holders[string(key)] = h
	}
	return h
}

func (c *compiler) own(of node) []part {
	if p, ok := c.parts[of]; ok {
		return []part{p}
	}
	return nil
}

// closure is all that a role is. Links between roles have no ends and no cycles.
func (c *compiler) closure(role node) []part {
	if is, ok := c.closures[role]; ok {
		return is
	}
	is := c.own(role)
	for _, l := range c.rows.linksOf(role.tenant, role.name) {
		is = append(is, c.closure(node{l.tenant, l.role})...)
	}
	c.closures[role] = each(is)
	return c.closures[role]
}

// each has every part once, in order.
func each(is []part) []part {
	slices.SortFunc(is, func(a, b part) int { return int(int64(a.from) - int64(b.from)) })
	return slices.Clip(slices.Compact(is))
}
