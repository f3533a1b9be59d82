package rbac

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/crmguard/crmguard"
)

// PolicyError says why a policy was refused: everything that is wrong with it.
type PolicyError struct {
	Findings []Finding
}

// Finding is one reason to refuse a policy.
type Finding struct {
	Where  string   // "policy.csv:12", or which row of which type; empty: the whole policy
	Rule   []string // the row, its type first; nil if it could not be read
	Reason string
}

// String returns one line.
func (f Finding) String() string {
	var b strings.Builder
	if f.Where != "" {
		b.WriteString(f.Where + ": ")
	}
	if f.Rule != nil {
		fmt.Fprintf(&b, "%q: ", f.Rule)
	}
	b.WriteString(f.Reason)
	return b.String()
}

// Error lists the first findings.
func (e *PolicyError) Error() string {
	const shown = 10
	lines := make([]string, 0, shown+1)
	for _, f := range e.Findings[:min(shown, len(e.Findings))] {
		lines = append(lines, f.String())
	}
	if more := len(e.Findings) - shown; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return "rbac: policy refused: " + strings.Join(lines, "; ")
}

// maxHops is how far Casbin follows role links. What lies beyond it denies in silence.
const maxHops = 10

const maxName = 256 // bytes

const (
	personPrefix  = "u:"
	rolePrefix    = "role:"
	unitPrefix    = "unit:"
	sectionPrefix = "section:"
)

// Rights on a field of a record. The other actions of rows are those of the root package.
const (
	fieldRead  crmguard.Action = "read"
	fieldWrite crmguard.Action = "write"
)

var recordActions = []crmguard.Action{
	crmguard.View, crmguard.List, crmguard.Search, crmguard.Reveal, crmguard.Unmask, crmguard.Call,
	crmguard.Create, crmguard.Update, crmguard.Delete, crmguard.Import, crmguard.Export, crmguard.Access,
	crmguard.SignIn, crmguard.Grant, crmguard.Revoke, crmguard.Erase, crmguard.Configure,
}

// fieldActions are all that a question about a field can ask for, see
// fieldAction. Other actions would look like rights there and give none.
var fieldActions = []crmguard.Action{
	fieldRead, fieldWrite, crmguard.Search, crmguard.Reveal, crmguard.Unmask, crmguard.Call, crmguard.Export, crmguard.Erase,
}

// The same by number, for a policy has many rows.
var recordActs, fieldActs = actsIn(recordActions), actsIn(fieldActions)

func actsIn(actions []crmguard.Action) (in [acts]bool) {
	for _, a := range actions {
		in[actOf(a)] = true
	}
	return in
}

// linter collects what is wrong with rows, and keeps those that are sound.
type linter struct {
	findings []Finding
	rows     *rowBuilder
	reasons  []string // by number of the name: why it cannot be one
}

func (l *linter) add(r row, format string, args ...any) {
	l.findings = append(l.findings, Finding{Where: r.where, Rule: append([]string{r.kind}, r.fields...), Reason: fmt.Sprintf(format, args...)})
}

// lint refuses what Casbin would read otherwise than its author meant, or not at
// all. It returns the rows that count, each once, without those that the engine
// supplies itself.
func lint(rows []row) (*rowSet, error) {
	l := &linter{rows: newRowBuilder(len(rows))}
	for _, r := range rows {
		if l.row(r) && r.kind != "g2" {
			l.rows.add(r)
		}
	}
	kept := l.rows.build()
	l.links(kept)
	if len(l.findings) > 0 {
		return nil, &PolicyError{l.findings}
	}
	return kept, nil
}

// badName is why a name cannot be one. Each is looked at once, however many rows
// have it.
func (l *linter) badName(name string) string {
	id := int(l.rows.id(name))
	for len(l.reasons) <= id { // numbers are given in turn
		l.reasons = append(l.reasons, badName(l.rows.set.names[len(l.reasons)]))
	}
	return l.reasons[id]
}

var rowShape = map[string]string{
	"p":  "subject, tenant, object, action, scope, effect",
	"g":  "subject, role, tenant",
	"p2": "person, role, tenant, end",
	"p3": "deputy, whom, tenant, from, end",
	"p4": "tenant, role, role",
	"g2": "relation, scope",
}

// row checks one row by itself and reports whether it is sound.
func (l *linter) row(r row) bool {
	before := len(l.findings)
	shape, ok := rowShape[r.kind]
	if !ok {
		l.add(r, "unknown type of row; want p, g, p2, p3 or p4")
		return false
	}
	if want := strings.Count(shape, ",") + 1; len(r.fields) != want {
		l.add(r, "%d fields; want %d: %s", len(r.fields), want, shape)
		return false
	}
	for _, field := range r.fields {
		if reason := l.badName(field); reason != "" {
			l.add(r, "%q %s", field, reason)
		}
	}
	if len(l.findings) > before {
		return false
	}
	switch r.kind {
	case "p":
		l.rule(r)
	case "g":
		l.identity(r, r.fields[0], personPrefix, rolePrefix, unitPrefix)
		l.identity(r, r.fields[1], rolePrefix, unitPrefix)
	case "p2":
		l.identity(r, r.fields[0], personPrefix) // what roles give one another has no end
		l.identity(r, r.fields[1], rolePrefix, unitPrefix)
		l.moment(r, "end", r.fields[3])
	case "p3":
		l.deputy(r)
	case "p4":
		l.identity(r, r.fields[1], rolePrefix, unitPrefix)
		l.identity(r, r.fields[2], rolePrefix, unitPrefix)
		if r.fields[1] == r.fields[2] {
			l.add(r, "%q excludes itself", r.fields[1])
		}
	case "g2":
		if !slices.ContainsFunc(scopeRows, func(s []string) bool { return slices.Equal(s, r.fields) }) {
			l.add(r, "the graph of scopes is built in; leave g2 rows out")
		}
	}
	return len(l.findings) == before
}

// moment reads a time of a row.
func (l *linter) moment(r row, what, text string) time.Time {
	t, ok := parseEnd(text)
	if !ok {
		l.add(r, "the %s %q: want a time in UTC such as 2026-12-31T18:00:00Z", what, text)
	}
	return t
}

func (l *linter) rule(r row) {
	subject, object, action, scope, effect := r.fields[0], r.fields[2], crmguard.Action(r.fields[3]), r.fields[4], r.fields[5]
	l.identity(r, subject, personPrefix, rolePrefix, unitPrefix)
	kind, field, isField := strings.Cut(object, "#")
	switch {
	case strings.Contains(field, "#"):
		l.add(r, "object %q has more than one #", object)
	case kind == sectionPrefix:
		l.add(r, "object %q: want a name behind %q", object, sectionPrefix)
	case isField && (kind == "" || field == ""):
		l.add(r, "object %q: want kind#field", object)
	case isField && !fieldActs[actOf(action)]:
		l.add(r, "action %q is no right on a field; want one of %q", action, fieldActions)
	case !isField && !recordActs[actOf(action)]:
		l.add(r, "unknown action %q; want one of %q", action, recordActions)
	}
	_, known := scopeOf(scope)
	switch {
	case !known:
		l.add(r, "unknown scope %q; want one of %q", scope, scopes)
	case isSection(kind) && scope != "all":
		l.add(r, "a section has no owner and no unit; its scope is \"all\"")
	}
	if effect != "allow" && effect != "deny" {
		l.add(r, "effect %q is neither \"allow\" nor \"deny\"; Casbin would ignore the row", effect)
	}
}

// identity wants a name behind one of the prefixes, and no prefix in the name:
// in Casbin a person called like a role is that role.
func (l *linter) identity(r row, name string, prefixes ...string) {
	for _, prefix := range prefixes {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		if rest == "" || startsLikeIdentity(rest) {
			l.add(r, "%q: want a name behind %q, and no other prefix", name, prefix)
		}
		return
	}
	l.add(r, "%q: want a name that starts with one of %q", name, prefixes)
}

func startsLikeIdentity(s string) bool {
	return strings.HasPrefix(s, personPrefix) || strings.HasPrefix(s, rolePrefix) || strings.HasPrefix(s, unitPrefix)
}

func isSection(kind string) bool { return strings.HasPrefix(kind, sectionPrefix) }

// badName returns why a field of a row cannot be a name, or "".
func badName(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > maxName:
		return fmt.Sprintf("is longer than %d bytes", maxName)
	case !utf8.ValidString(s):
		return "is not UTF-8"
	case strings.TrimSpace(s) != s:
		return "begins or ends with a space"
	case strings.ContainsFunc(s, invisible):
		return "has an invisible character"
	case strings.Contains(s, ","):
		return "has a comma; Casbin joins fields with it"
	case strings.Contains(s, "$$"):
		return "has $$; Casbin's cache joins fields with it"
	case strings.Contains(s, "*"):
		return "has a *; there are no wildcards, write each row"
	case !norm.NFC.IsNormalString(s):
		return "is not in Unicode form NFC; it would differ from the same name in that form"
	}
	return ""
}

// invisible reports characters that show nothing, or that change nothing visible:
// those that Unicode lets a display leave out, and the Braille pattern without dots.
func invisible(r rune) bool {
	return !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) || r == '\u2800'
}

// node is a subject within a tenant.
type node struct{ tenant, name uint32 }

// links refuses cycles and chains that are longer than Casbin follows. It goes upward
// without calling itself: what is stored may be a chain of millions.
func (l *linter) links(rows *rowSet) {
	type step struct {
		of      node
		links   []link // that it has not followed yet
		longest int    // chain of those that it has
	}
	var path []step
	depth := make(map[node]int) // of roles: the longest chain upward, +1; 0: not visited, -1: on the path
	enter := func(n node) {
		if depth[n] == 0 {
			depth[n] = -1
			path = append(path, step{of: n, links: rows.linksOf(n.tenant, n.name)})
		}
	}
	check := func(link link) int {
		refuse := func(format string, args ...any) {
			l.add(row{rows.where(link.place), "g", []string{rows.names[link.subject], rows.names[link.role], rows.names[link.tenant]}}, format, args...)
		}
		d := depth[node{link.tenant, link.role}]
		switch {
		case d < 0:
			refuse("closes a cycle of roles")
			return 0
		case d == maxHops+1: // longer ones contain this one
			refuse("makes a chain of %d role links; Casbin follows %d and then denies in silence", d, maxHops)
		}
		return d
	}
	visit := func(n node) {
		for enter(n); len(path) > 0; {
			top := &path[len(path)-1]
			if len(top.links) == 0 {
				depth[top.of] = top.longest + 1
				path = path[:len(path)-1]
				continue
			}
			link := top.links[0]
			if up := (node{link.tenant, link.role}); depth[up] == 0 {
				enter(up)
				continue
			}
			top.longest = max(top.longest, check(link))
			top.links = top.links[1:]
		}
	}
	for _, link := range rows.links { // in order, so that the same policy gives the same findings
		if strings.HasPrefix(rows.names[link.subject], personPrefix) { // nothing leads to a person
			visit(node{link.tenant, link.role})
			check(link)
		} else {
			visit(node{link.tenant, link.subject})
		}
	}
}
