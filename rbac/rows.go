package rbac

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

// row is one line of a policy, as it is read and as it is shown.
type row struct {
	where  string
	kind   string // p, g, p2, p3, p4, g2
	fields []string
}

// key is the row as something to compare. It is for rows of at most six fields.
func (r row) key() [7]string {
	key := [7]string{r.kind}
	copy(key[1:], r.fields)
	return key
}

// keysOf are those of rows, without longer ones, which lint refuses.
func keysOf(rows []row) map[[7]string]bool {
	keys := make(map[[7]string]bool, len(rows))
	for _, r := range rows {
		if len(r.fields) <= 6 {
			keys[r.key()] = true
		}
	}
	return keys
}

// denies reports whether the row, which passed lint, is a rule that denies.
func (r row) denies() bool { return r.kind == "p" && r.fields[5] == "deny" }

// rowSet is the rows of one policy, each once, as numbers and without pointers, so
// that a million of them take the room of a picture and no time of the garbage
// collector. It never changes.
//
// Names are in the order of their encoding, and so are the rules and the links:
// what one subject has in one tenant lies together and is found by halving.
type rowSet struct {
	names      []string
	rules      []rule
	links      []link // g and p2
	deputies   []deputy
	exclusions []exclusion
}

// rule is a p row. Names are indexes into rowSet.names.
type rule struct {
	subject, tenant, object uint32
	act                     act
	scope, effect           uint8
	place                   place
}

// link is a g row, or a p2 row if it has an end.
type link struct {
	subject, tenant, role uint32
	end                   int64 // in Unix seconds; noEnd for g rows
	place                 place
}

const noEnd = math.MaxInt64

// place is where a row stands: a name and, if that ends with one, the number.
type place struct{ name, number uint32 }

func compareRules(a, b rule) int {
	return cmp.Or(
		cmp.Compare(a.subject, b.subject), cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.object, b.object),
		cmp.Compare(a.act, b.act), cmp.Compare(a.scope, b.scope), cmp.Compare(a.effect, b.effect))
}

// compareLinks has what one subject has in one tenant together. It is not the order
// of the encoding, in which the role comes before the tenant.
func compareLinks(a, b link) int {
	return cmp.Or(
		cmp.Compare(a.subject, b.subject), cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.role, b.role), cmp.Compare(a.end, b.end))
}

func compareNames(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// rowBuilder takes rows that are sound and makes a rowSet of them.
type rowBuilder struct {
	ids map[string]uint32
	set rowSet
}

func newRowBuilder(rows int) *rowBuilder {
	return &rowBuilder{ids: make(map[string]uint32), set: rowSet{rules: make([]rule, 0, rows)}}
}

// id numbers a name. It keeps a copy: what it is given may be a piece of a whole
// file.
func (b *rowBuilder) id(name string) uint32 {
	id, ok := b.ids[name]
	if !ok {
		name = strings.Clone(name)
		id = uint32(len(b.set.names)) // #nosec G115 -- four billion names do not fit into memory
		b.ids[name] = id
		b.set.names = append(b.set.names, name)
	}
	return id
}

// place splits the number off, so that a million places are a few names.
func (b *rowBuilder) place(where string) place {
	digits := len(where)
	for digits > 0 && where[digits-1] >= '0' && where[digits-1] <= '9' {
		digits--
	}
	if number, err := strconv.ParseUint(where[digits:], 10, 32); err == nil && number > 0 && where[digits] != '0' {
		return place{b.id(where[:digits]), uint32(number)}
	}
	return place{b.id(where), 0}
}

func (b *rowBuilder) add(r row) {
	switch r.kind {
	case "p":
		scope, _ := scopeOf(r.fields[4])
		effect := effectDeny
		if r.fields[5] == effectWords[effectAllow] {
			effect = effectAllow
		}
		b.set.rules = append(b.set.rules, rule{
			b.id(r.fields[0]), b.id(r.fields[1]), b.id(r.fields[2]), actOf(crmguard.Action(r.fields[3])), scope, effect, b.place(r.where)})
	case "g":
		b.set.links = append(b.set.links, link{b.id(r.fields[0]), b.id(r.fields[2]), b.id(r.fields[1]), noEnd, b.place(r.where)})
	case "p2":
		end, _ := parseEnd(r.fields[3])
		b.set.links = append(b.set.links, link{b.id(r.fields[0]), b.id(r.fields[2]), b.id(r.fields[1]), end.Unix(), b.place(r.where)})
	case "p3":
		b.set.deputies = append(b.set.deputies, b.deputy(r))
	case "p4":
		b.set.exclusions = append(b.set.exclusions, exclusion{b.id(r.fields[0]), b.id(r.fields[1]), b.id(r.fields[2]), b.place(r.where)})
	}
}

// build brings everything into its order and leaves each row once, the first time.
func (b *rowBuilder) build() *rowSet {
	s := &b.set
	order := make([]uint32, len(s.names))
	for i := range order {
		order[i] = uint32(i) // #nosec G115 -- as in id
	}
	slices.SortFunc(order, func(x, y uint32) int { return compareNames(s.names[x], s.names[y]) })
	names, now := make([]string, len(order)), make([]uint32, len(order))
	for i, old := range order {
		names[i], now[old] = s.names[old], uint32(i) // #nosec G115 -- as in id
	}
	s.names = names
	for i := range s.rules {
		r := &s.rules[i]
		r.subject, r.tenant, r.object, r.place.name = now[r.subject], now[r.tenant], now[r.object], now[r.place.name]
	}
	renumber := func(l *link) {
		l.subject, l.tenant, l.role, l.place.name = now[l.subject], now[l.tenant], now[l.role], now[l.place.name]
	}
	for i := range s.links {
		renumber(&s.links[i])
	}
	for i := range s.deputies {
		renumber(&s.deputies[i].link)
	}
	for i := range s.exclusions {
		x := &s.exclusions[i]
		x.tenant, x.role, x.other, x.place.name = now[x.tenant], now[x.role], now[x.other], now[x.place.name]
	}
	slices.SortStableFunc(s.rules, compareRules)
	slices.SortStableFunc(s.links, compareLinks)
	s.rules = slices.Clip(slices.CompactFunc(s.rules, func(a, b rule) bool { return compareRules(a, b) == 0 }))
	s.links = slices.Clip(slices.CompactFunc(s.links, func(a, b link) bool { return compareLinks(a, b) == 0 }))
	slices.SortStableFunc(s.deputies, compareDeputies)
	s.deputies = slices.Clip(slices.CompactFunc(s.deputies, func(a, b deputy) bool { return compareDeputies(a, b) == 0 }))
	slices.SortStableFunc(s.exclusions, compareExclusions)
	s.exclusions = slices.Clip(slices.CompactFunc(s.exclusions, func(a, b exclusion) bool { return compareExclusions(a, b) == 0 }))
	b.ids = nil
	return s
}

// rowSetOf makes a set of sound rows.
func rowSetOf(rows []row) *rowSet {
	b := newRowBuilder(len(rows))
	for _, r := range rows {
		b.add(r)
	}
	return b.build()
}

func (s *rowSet) len() int { return len(s.rules) + len(s.links) + len(s.deputies) + len(s.exclusions) }

// all returns the rows as text: the links, the deputies, the rules, then the exclusions.
func (s *rowSet) all() []row {
	rows := make([]row, 0, s.len())
	for _, l := range s.links {
		rows = append(rows, s.link(l))
	}
	for _, d := range s.deputies {
		rows = append(rows, s.deputy(d))
	}
	for _, r := range s.rules {
		rows = append(rows, s.rule(r))
	}
	for _, x := range s.exclusions {
		rows = append(rows, s.exclusion(x))
	}
	return rows
}

func (s *rowSet) link(l link) row {
	fields := []string{s.names[l.subject], s.names[l.role], s.names[l.tenant]}
	if l.end == noEnd {
		return row{s.where(l.place), "g", fields}
	}
	return row{s.where(l.place), "p2", append(fields, formatEnd(l.end))}
}

func (s *rowSet) rule(r rule) row {
	return row{s.where(r.place), "p", []string{
		s.names[r.subject], s.names[r.tenant], s.names[r.object], string(actWords[r.act]), scopeWords[r.scope], effectWords[r.effect]}}
}

func (s *rowSet) where(p place) string {
	if p.number == 0 {
		return s.names[p.name]
	}
	return s.names[p.name] + strconv.FormatUint(uint64(p.number), 10)
}

// name finds the number of a name.
func (s *rowSet) name(name string) (uint32, bool) {
	i, ok := slices.BinarySearchFunc(s.names, name, compareNames)
	return uint32(i), ok // #nosec G115 -- as in id
}

// rulesOf are the rules of one subject in one tenant.
func (s *rowSet) rulesOf(tenant, subject uint32) []rule {
	return span(s.rules, func(r rule) int { return cmp.Or(cmp.Compare(r.subject, subject), cmp.Compare(r.tenant, tenant)) })
}

// linksOf are the role links of one subject in one tenant.
func (s *rowSet) linksOf(tenant, subject uint32) []link {
	return span(s.links, func(l link) int { return cmp.Or(cmp.Compare(l.subject, subject), cmp.Compare(l.tenant, tenant)) })
}

// span returns the elements of an ordered slice that are equal to what is sought.
func span[T any](of []T, compare func(T) int) []T {
	from := sort.Search(len(of), func(i int) bool { return compare(of[i]) >= 0 })
	to := sort.Search(len(of), func(i int) bool { return compare(of[i]) > 0 })
	return of[from:to]
}

// identities are what a subject is at a moment: itself, and whatever it has through
// links.
func (s *rowSet) identities(tenant, subject uint32, now int64) []uint32 {
	is := []uint32{subject}
	for i := 0; i < len(is); i++ {
		for _, l := range s.linksOf(tenant, is[i]) {
			if now < l.end && !slices.Contains(is, l.role) {
				is = append(is, l.role)
			}
		}
	}
	return is
}

// version is [Digest] of the rows, which are in its order already.
func (s *rowSet) version() string {
	w := rowHasher{h: newDigest()}
	links := slices.Clone(s.links)
	slices.SortFunc(links, func(a, b link) int {
		return cmp.Or(cmp.Compare(a.subject, b.subject), cmp.Compare(a.role, b.role), cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.end, b.end))
	})
	for _, l := range links {
		if l.end == noEnd {
			w.write("g", s.names[l.subject], s.names[l.role], s.names[l.tenant])
		}
	}
	for _, r := range s.rules {
		w.write("p", s.names[r.subject], s.names[r.tenant], s.names[r.object], string(actWords[r.act]), scopeWords[r.scope], effectWords[r.effect])
	}
	for _, l := range links { // p2 is the longer word
		if l.end != noEnd {
			w.write("p2", s.names[l.subject], s.names[l.role], s.names[l.tenant], formatEnd(l.end))
		}
	}
	for _, d := range s.deputiesInOrder() {
		w.write("p3", s.deputy(d).fields...)
	}
	for _, x := range s.exclusions {
		w.write("p4", s.names[x.tenant], s.names[x.role], s.names[x.other])
	}
	return sumOf(w.h)
}

func newDigest() hash.Hash {
	h := sha256.New()
	h.Write([]byte("crmguard rbac policy v1\n"))
	return h
}

func sumOf(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// rowHasher writes encoded rows.
type rowHasher struct {
	h   hash.Hash
	buf []byte
}

func (w *rowHasher) write(kind string, fields ...string) {
	b := appendField(append(w.buf[:0], 0, 0, 0, 0), kind)
	for _, field := range fields {
		b = appendField(b, field)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4)) // #nosec G115 -- lint bounds names far below 4 GB
	w.h.Write(b)
	w.buf = b
}

func appendField(b []byte, field string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(field))) // #nosec G115 -- lint bounds names far below 4 GB
	return append(b, field...)
}

// parseEnd reads the end of a grant, which has one form: UTC, whole seconds.
func parseEnd(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, s)
	return t, err == nil && formatEnd(t.Unix()) == s
}

func formatEnd(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }
