package rbac

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"

	"github.com/crmguard/crmguard"
)

// Model is the Casbin model in which every policy is read. A policy that the
// engine accepts gives the same answers in any Casbin enforcer with this model
// and [ScopeRows].
const Model = `[request_definition]
r = sub, dom, obj, act, rel

[policy_definition]
p = sub, dom, obj, act, scope, eft

[role_definition]
g = _, _, _
g2 = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = r.dom == p.dom && r.obj == p.obj && r.act == p.act && g2(r.rel, p.scope) && g(r.sub, p.sub, r.dom)
`

// row is one line of a policy.
type row struct {
	where  string
	kind   string // p, g, g2
	fields []string
}

// key is the row as something to compare. It is for rows of at most six fields.
func (r row) key() [7]string {
	key := [7]string{r.kind}
	copy(key[1:], r.fields)
	return key
}

// denies reports whether the row, which passed lint, is a rule that denies.
func (r row) denies() bool { return r.kind == "p" && r.fields[5] == "deny" }

// distinct leaves each row once, the first time.
func distinct(rows []row) []row {
	seen := make(map[[7]string]bool, len(rows))
	return slices.DeleteFunc(rows, func(r row) bool {
		known := seen[r.key()]
		seen[r.key()] = true
		return known
	})
}

// question is what is asked of Casbin. It is a key with one field per part, so
// that no two questions can share an answer.
type question struct {
	tenant, person string // without prefix
	kind, field    string
	action         crmguard.Action
	relation       relation
}

func (q question) object() string {
	if q.field == "" {
		return q.kind
	}
	return q.kind + "#" + q.field
}

// verdict is the answer to a question. The zero value is no answer.
type verdict uint8

const (
	noRule   verdict = iota + 1 // nothing allows it
	denyRule                    // a rule denies it
	allowed
)

// maxAnswers bounds what a snapshot remembers: about 12 MB of keys, and the names
// in them, which are at most 1.3 KB for each. When it is full, all is forgotten:
// what is asked again and again is soon there again.
const maxAnswers = 1 << 16

// snapshot is one version of the policy. Its rows and its enforcer never change
// after it was built, so no decision can mix two versions, and what it remembers
// cannot be stale.
type snapshot struct {
	version  string
	rows     []row
	enforcer *casbin.Enforcer // nil when there is no rule: Casbin would match the empty one

	mu      sync.RWMutex
	answers map[question]verdict
}

// newSnapshot builds a policy from rows that passed lint.
func newSnapshot(rows []row) (*snapshot, error) {
	s := &snapshot{version: digest(rows), rows: rows, answers: make(map[question]verdict)}
	if !slices.ContainsFunc(rows, func(r row) bool { return r.kind == "p" }) {
		return s, nil
	}
	m, err := model.NewModelFromString(Model)
	if err != nil {
		return nil, fmt.Errorf("rbac: model: %w", err)
	}
	for _, r := range rows {
		if err := m.AddPolicy(r.kind[:1], r.kind, slices.Clone(r.fields)); err != nil {
			return nil, fmt.Errorf("rbac: %s: %w", r.where, err)
		}
	}
	for _, r := range ScopeRows() {
		if err := m.AddPolicy("g", "g2", r); err != nil {
			return nil, fmt.Errorf("rbac: graph of scopes: %w", err)
		}
	}
	if s.enforcer, err = casbin.NewEnforcer(m); err != nil {
		return nil, fmt.Errorf("rbac: casbin: %w", err)
	}
	if err := s.enforcer.BuildRoleLinks(); err != nil {
		return nil, fmt.Errorf("rbac: casbin: %w", err)
	}
	return s, nil
}

// decide answers from memory or from Casbin. Names longer than those of rules
// meet none; they are not remembered, so that nobody can fill the memory with them.
func (s *snapshot) decide(q question) (verdict, error) {
	if max(len(q.tenant), len(q.person), len(q.kind), len(q.field), len(q.action)) > maxName {
		return noRule, nil
	}
	s.mu.RLock()
	v := s.answers[q]
	s.mu.RUnlock()
	if v != 0 {
		return v, nil
	}
	v, err := s.enforce(q)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answers) >= maxAnswers {
		clear(s.answers)
	}
	s.answers[q] = v
	return v, nil
}

func (s *snapshot) enforce(q question) (verdict, error) {
	if s.enforcer == nil {
		return noRule, nil
	}
	ok, rule, err := s.enforcer.EnforceEx(personPrefix+q.person, q.tenant, q.object(), string(q.action), q.relation.String())
	switch {
	case err != nil:
		return 0, fmt.Errorf("rbac: casbin: %w", err)
	case ok:
		return allowed, nil
	case len(rule) > 0: // Casbin names the rule that denied
		return denyRule, nil
	}
	return noRule, nil
}

// decideAll is yes if every relation in set is.
func (s *snapshot) decideAll(q question, set relationSet) (verdict, error) {
	for q.relation = range relations {
		if !set.has(q.relation) {
			continue
		}
		if v, err := s.decide(q); err != nil || v != allowed {
			return v, err
		}
	}
	return allowed, nil
}

// decideKind is yes if the party may do it under all relations in need, and under any.
func (s *snapshot) decideKind(q question, p party, need relationSet) (verdict, error) {
	set, why, err := s.reach(q)
	if err != nil {
		return 0, err
	}
	set = p.certain(set)
	if set == 0 || set&need != need {
		return why, nil
	}
	return allowed, nil
}

// reach returns the relations under which q is allowed, whatever its own is, and
// what to say when there are none.
func (s *snapshot) reach(q question) (relationSet, verdict, error) {
	var set relationSet
	why := noRule
	for q.relation = range relations {
		v, err := s.decide(q)
		if err != nil {
			return 0, 0, err
		}
		switch v {
		case allowed:
			set |= 1 << q.relation
		case denyRule:
			why = denyRule
		}
	}
	return set, why, nil
}

// roles lists the roles of a person, those that come through other roles too.
func (s *snapshot) roles(tenant, person string) ([]string, error) {
	if s.enforcer == nil {
		return nil, nil
	}
	names, err := s.enforcer.GetImplicitRolesForUser(personPrefix+person, tenant)
	if err != nil {
		return nil, fmt.Errorf("rbac: casbin: %w", err)
	}
	var roles []string
	for _, name := range names {
		if role, ok := strings.CutPrefix(name, rolePrefix); ok {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles, nil
}

// digest names a policy by its rows, in whatever order they come: the first 16
// bytes of SHA-256, in hex. docs/formats/rbac.md gives the bytes.
func digest(rows []row) string {
	encoded := make([]string, 0, len(rows))
	for _, r := range rows {
		b := appendField(nil, r.kind)
		for _, field := range r.fields {
			b = appendField(b, field)
		}
		encoded = append(encoded, string(b))
	}
	slices.Sort(encoded)
	h := sha256.New()
	h.Write([]byte("crmguard rbac policy v1\n"))
	for _, e := range encoded {
		h.Write(appendField(nil, e))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func appendField(b []byte, field string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(field))) //nolint:gosec // lint bounds names far below 4 GB
	return append(b, field...)
}
