package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"

	"github.com/crmguard/crmguard/rbac"
)

// row is a row of a policy that rbac accepts.
type row struct {
	line   int
	kind   string // p, g, p2, p3, p4 or g2
	fields []string
}

// The fields of p rows; those of g and p2 rows begin with subject, role, tenant.
func (r row) subject() string { return r.fields[0] }
func (r row) tenant() string  { return r.fields[1] }
func (r row) object() string  { return r.fields[2] }
func (r row) action() string  { return r.fields[3] }
func (r row) scope() string   { return r.fields[4] }
func (r row) allows() bool    { return r.fields[5] == "allow" }

// of is whose row it is, of whatever type; empty if it says nothing of that.
func (r row) of() string {
	at, ok := map[string]int{"p": 1, "g": 2, "p2": 2, "p3": 2, "p4": 0}[r.kind]
	if !ok || len(r.fields) <= at {
		return ""
	}
	return r.fields[at]
}

func (r row) rule() []string { return append([]string{r.kind}, r.fields...) }

func (r row) equal(other row) bool {
	return r.kind == other.kind && slices.Equal(r.fields, other.fields)
}

// tenantsOf lists whose rows they are, sorted.
func tenantsOf(rows []row) (tenants []string) {
	for _, r := range rows {
		if tenant := r.of(); tenant != "" {
			tenants = append(tenants, tenant)
		}
	}
	slices.Sort(tenants)
	return slices.Compact(tenants)
}

// holder is a subject within a tenant.
type holder struct{ tenant, name string }

// right is what a rule is about, for whom.
type right struct {
	holder
	object, action string
}

// policy is a policy that rbac accepts, with what is asked of it.
type policy struct {
	rows      []row // as they stand in the file
	rules     map[right][]row
	ruled     map[holder]bool     // who has rules
	elsewhere map[string]bool     // names that have rules in some tenant
	roles     map[holder][]string // of a subject, by g and p2 rows
}

// readPolicy reads rows with Casbin's own parser, a line at a time, to know where
// each stands.
func readPolicy(text string) (*policy, error) {
	m, err := model.NewModelFromString(rbac.Model)
	if err != nil {
		return nil, err
	}
	p := &policy{rules: map[right][]row{}, ruled: map[holder]bool{}, elsewhere: map[string]bool{}, roles: map[holder][]string{}}
	number := 0
	for line := range strings.Lines(text) {
		number++
		m.ClearPolicy()
		if err := persist.LoadPolicyLine(strings.TrimSpace(line), m); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		for _, kind := range []string{"p", "p2", "p3", "p4", "g", "g2"} {
			for _, fields := range m[kind[:1]][kind].Policy {
				p.rows = append(p.rows, row{number, kind, fields})
			}
		}
	}
	for _, r := range p.rows {
		switch r.kind {
		case "p":
			h := holder{r.tenant(), r.subject()}
			about := right{h, r.object(), r.action()}
			p.rules[about] = append(p.rules[about], r)
			p.ruled[h] = true
			p.elsewhere[h.name] = true
		case "g", "p2":
			h := holder{r.fields[2], r.fields[0]}
			p.roles[h] = append(p.roles[h], r.fields[1])
		}
	}
	return p, nil
}

// suspicion is something that is accepted and hardly meant.
type suspicion struct {
	line int
	text string
}

// suspicions returns what can be told from the policy alone, in the order of lines.
func (p *policy) suspicions() []suspicion {
	var found []suspicion
	add := func(r row, format string, args ...any) {
		found = append(found, suspicion{r.line, fmt.Sprintf(format, args...)})
	}
	allowed := p.allowed()
	first := map[string]int{}
	for _, r := range p.rows {
		key := r.kind + "\x00" + strings.Join(r.fields, "\x00")
		if line := first[key]; line != 0 {
			add(r, "the same row as in line %d", line)
			continue
		}
		first[key] = r.line
		switch r.kind {
		case "p":
			p.judgeRule(r, allowed, add)
		case "g", "p2":
			p.judgeLink(r, add)
		case "p4":
			p.judgeExclusion(r, add)
		}
	}
	p.unheld(add)
	slices.SortStableFunc(found, func(a, b suspicion) int { return cmp.Compare(a.line, b.line) })
	return found
}

// allowed are the tenants and objects that some row allows something on.
func (p *policy) allowed() map[holder]bool {
	objects := map[holder]bool{}
	for _, r := range p.rows {
		if r.kind == "p" && r.allows() {
			objects[holder{r.tenant(), r.object()}] = true
		}
	}
	return objects
}

func (p *policy) judgeRule(r row, allowed map[holder]bool, add func(row, string, ...any)) {
	kind, _, isField := strings.Cut(r.object(), "#")
	switch {
	case !r.allows() && !allowed[holder{r.tenant(), r.object()}]:
		add(r, "denies what nobody is allowed: no row of tenant %s allows anything on %s; is the name right?", r.tenant(), r.object())
		return
	case isField && r.allows() && !allowed[holder{r.tenant(), kind}]:
		add(r, "gives a field of records that nobody may reach: no row of tenant %s allows anything on %s; is the name right?", r.tenant(), kind)
		return
	}
	if over, ok := p.over(r, false); ok && r.allows() {
		add(r, "allows nothing: line %d denies it to all whom it is for", over.line)
	} else if over, ok := p.over(r, r.allows()); ok {
		add(r, "changes nothing: line %d says as much or more for all whom it is for", over.line)
	}
}

// over returns another row of this effect that holds for everybody for whom r
// does, and on every record.
func (p *policy) over(r row, allow bool) (row, bool) {
	for _, h := range p.with(holder{r.tenant(), r.subject()}) {
		for _, other := range p.rules[right{h, r.object(), r.action()}] {
			same := h.name == r.subject() && other.scope() == r.scope() && other.allows() == r.allows()
			if !same && other.allows() == allow && covers(other.scope(), r.scope()) {
				return other, true
			}
		}
	}
	return row{}, false
}

func (p *policy) judgeLink(r row, add func(row, string, ...any)) {
	tenant, role := r.fields[2], r.fields[1]
	if slices.ContainsFunc(p.with(holder{tenant, role}), func(h holder) bool { return p.ruled[h] }) {
		return
	}
	if p.elsewhere[role] {
		add(r, "%s gives nothing: it has no rules in tenant %s, though it has in others", role, tenant)
		return
	}
	add(r, "%s gives nothing: it has no rules in tenant %s; is the name right?", role, tenant)
}

// judgeExclusion finds names that no other row has, which exclude nothing.
func (p *policy) judgeExclusion(r row, add func(row, string, ...any)) {
	tenant := r.fields[0]
	for _, role := range r.fields[1:] {
		if !slices.ContainsFunc(p.rows, func(other row) bool {
			switch other.kind {
			case "p":
				return other.tenant() == tenant && other.subject() == role
			case "g", "p2":
				return other.fields[2] == tenant && slices.Contains(other.fields[:2], role)
			}
			return false
		}) {
			add(r, "excludes %s, which no other row of tenant %s knows; is the name right?", role, tenant)
		}
	}
}

// unheld finds roles and units that nobody has, in tenants in which somebody has
// one: elsewhere people get their roles from another place than this file.
func (p *policy) unheld(add func(row, string, ...any)) {
	peopled := map[string]bool{}
	held := map[holder]bool{}
	for h := range p.roles {
		if isPerson(h.name) {
			peopled[h.tenant] = true
			for _, role := range p.with(h) {
				held[role] = true
			}
		}
	}
	for _, r := range p.rows {
		var h holder
		switch r.kind {
		case "p":
			h = holder{r.tenant(), r.subject()}
		case "g", "p2":
			h = holder{r.fields[2], r.fields[0]}
		}
		if peopled[h.tenant] && !isPerson(h.name) && !held[h] {
			held[h] = true // told once
			add(r, "nobody in tenant %s has %s", h.tenant, h.name)
		}
	}
}

func isPerson(name string) bool { return strings.HasPrefix(name, "u:") }

// with returns a subject and all the roles that it has. Rbac refuses cycles.
func (p *policy) with(h holder) []holder {
	all := []holder{h}
	for i := 0; i < len(all); i++ {
		for _, role := range p.roles[all[i]] {
			if next := (holder{h.tenant, role}); !slices.Contains(all, next) {
				all = append(all, next)
			}
		}
	}
	return all
}

// covers reports whether one scope is part of another.
func covers(wide, narrow string) bool {
	if wide == narrow {
		return true
	}
	return slices.ContainsFunc(rbac.ScopeRows(), func(part []string) bool {
		return part[0] == narrow && covers(wide, part[1])
	})
}
