package rbac

import (
	"slices"
	"strconv"
	"strings"
)

// predicate is a condition on rows, simplified while it is built: constants are
// left only at its root.
type predicate struct {
	op     predicateOp
	column string // opIn, opNotIn
	values []string
	person string      // opShared, opNotShared
	parts  []predicate // opAnd, opOr: two or more, none of the same op
}

type predicateOp uint8

const (
	opNever predicateOp = iota
	opAlways
	opIn
	opNotIn // true for NULL too, which belongs to nobody
	opShared
	opNotShared
	opAnd
	opOr
)

var (
	never  = predicate{op: opNever}
	always = predicate{op: opAlways}
)

func in(column string, values []string) predicate {
	if column == "" || len(values) == 0 {
		return never
	}
	return predicate{op: opIn, column: column, values: values}
}

func notIn(column string, values []string) predicate {
	p := in(column, values)
	if p.op == opNever {
		return always
	}
	p.op = opNotIn
	return p
}

func and(a, b predicate) predicate { return join(opAnd, opAlways, opNever, a, b) }
func or(a, b predicate) predicate  { return join(opOr, opNever, opAlways, a, b) }

func join(op, neutral, absorbing predicateOp, a, b predicate) predicate {
	switch {
	case a.op == neutral || b.op == absorbing:
		return b
	case b.op == neutral || a.op == absorbing:
		return a
	}
	joined := predicate{op: op}
	for _, p := range []predicate{a, b} {
		if p.op == op {
			joined.parts = append(joined.parts, p.parts...)
		} else {
			joined.parts = append(joined.parts, p)
		}
	}
	return joined
}

// alternatives are predicates of which at least one holds where p does.
func (p predicate) alternatives() []predicate {
	if p.op == opOr {
		return p.parts
	}
	return []predicate{p}
}

// predicate chooses the rows that one person may reach, as a deputy too.
func (p filterPart) predicate(c Columns) predicate {
	own := p.own(c)
	if len(p.whom) == 0 {
		return own
	}
	others := never
	for _, whom := range p.whom {
		others = or(others, whom.own(c))
	}
	return or(own, and(p.undenied.own(c), others))
}

// own chooses those that the person may reach without being a deputy.
func (p filterPart) own(c Columns) predicate {
	plain := p.ladder(c, p.plain)
	if c.Shares == nil || p.plain == p.shared {
		return plain
	}
	shared := predicate{op: opShared, person: p.person}
	whenShared := and(shared, p.ladder(c, p.shared))
	if p.plain&^p.shared == 0 { // sharing only adds, as it does without rules that deny
		return or(plain, whenShared)
	}
	shared.op = opNotShared
	return or(whenShared, and(shared, plain))
}

// ladder chooses the rows whose relation, leaving sharing aside, is in set.
func (p filterPart) ladder(c Columns, set relationSet) predicate {
	var wanted, others []string
	for r, units := range p.units {
		if set.has(relation(r)) { // #nosec G115 -- a few
			wanted = append(wanted, units...)
		} else {
			others = append(others, units...)
		}
	}
	rest := in(c.Unit, wanted)
	if set.has(relNone) {
		rest = notIn(c.Unit, others)
	}
	own := []string{p.person} // asked first, as relate does
	if set.has(relOwn) {
		return or(in(c.Owner, own), rest)
	}
	return and(notIn(c.Owner, own), rest)
}

// sqlWriter writes a predicate and numbers the parameters as they come.
type sqlWriter struct {
	columns Columns
	tenant  string
	next    int
	text    strings.Builder
	args    []any
}

func (w *sqlWriter) write(p predicate) {
	switch p.op {
	case opNever:
		w.text.WriteString("1=0")
	case opAlways:
		w.text.WriteString("1=1")
	case opIn:
		w.in(p)
	case opNotIn:
		w.text.WriteString("(" + p.column + " IS NULL OR NOT ")
		w.in(p)
		w.text.WriteByte(')')
	case opShared, opNotShared:
		w.shared(p)
	case opAnd:
		w.join(" AND ", p.parts)
	case opOr:
		w.join(" OR ", p.parts)
	}
}

func (w *sqlWriter) in(p predicate) {
	if len(p.values) == 1 {
		w.text.WriteString(p.column + " = ")
		w.param(p.values[0])
		return
	}
	w.text.WriteString(p.column + " IN (")
	w.text.Grow(len("$100, ") * len(p.values))
	w.args = slices.Grow(w.args, len(p.values))
	for i, value := range p.values {
		if i > 0 {
			w.text.WriteString(", ")
		}
		w.param(value)
	}
	w.text.WriteByte(')')
}

// shared looks for the ID among what was shared with a person: a list that databases make
// once, and by which they find rows. NULL in it would make NOT IN true for none. Each name says its table,
// or one that is missing there would be a column of the query around it.
func (w *sqlWriter) shared(p predicate) {
	s := w.columns.Shares
	w.text.WriteString(w.columns.ID)
	if p.op == opNotShared {
		w.text.WriteString(" NOT")
	}
	record := sharesAlias + "." + s.Record
	w.text.WriteString(" IN (SELECT " + record + " FROM " + s.Table + " AS " + sharesAlias + " WHERE " + sharesAlias + "." + s.Tenant + " = ")
	w.param(w.tenant)
	w.text.WriteString(" AND " + sharesAlias + "." + s.Person + " = ")
	w.param(p.person)
	if p.op == opNotShared {
		w.text.WriteString(" AND " + record + " IS NOT NULL")
	}
	w.text.WriteByte(')')
}

func (w *sqlWriter) join(word string, parts []predicate) {
	w.text.WriteByte('(')
	for i, p := range parts {
		if i > 0 {
			w.text.WriteString(word)
		}
		w.write(p)
	}
	w.text.WriteByte(')')
}

func (w *sqlWriter) param(value string) {
	w.text.WriteString("$" + strconv.Itoa(w.next))
	w.args = append(w.args, value)
	w.next++
}
