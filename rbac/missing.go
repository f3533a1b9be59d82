package rbac

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"
)

// maxRoles is how many roles an explanation proposes.
const maxRoles = 3

// missing are the rows of which each would make the party's no a yes, and which the policy
// would take. Each is tried on the masks that decide.
func (q asked) missing(p *party, m masks, has []heldRule) (rows [][]string) {
	scope, ok := q.enough(p, m)
	if !ok || strings.Contains(q.resource.Kind, "#") { // which is no kind
		return nil
	}
	propose := func(subject string) {
		rule := []string{"p", subject, q.resource.Tenant, q.object(), string(q.action), scope, effectWords[effectAllow]}
		if slices.ContainsFunc(rows, func(r []string) bool { return slices.Equal(r, rule) }) {
			return
		}
		if _, err := lint([]row{rowOf("", rule)}); err == nil { // no row can say some questions
			rows = append(rows, rule)
		}
	}
	for _, r := range has {
		if r.rule.effect == effectAllow {
			propose(q.policy.rows.names[r.rule.subject])
		}
	}
	rows = append(rows, q.rolesWith(p, m)...)
	if len(rows) == 0 {
		propose(personPrefix + p.person)
	}
	return rows
}

// enough is the narrowest scope of one more rule with which the answer is yes.
func (q asked) enough(p *party, m masks) (scope string, ok bool) {
	order := slices.Clone(scopes)
	slices.SortStableFunc(order, func(a, b string) int {
		return cmp.Compare(bits.OnesCount16(uint16(within(Scope(a)))), bits.OnesCount16(uint16(within(Scope(b)))))
	})
	for _, word := range order {
		if isSection(q.resource.Kind) && word != "all" {
			continue
		}
		s, _ := scopeOf(word)
		if p.verdict(m.with(rule{scope: s, effect: effectAllow}), q.resource, 0) == allowed {
			return word, true
		}
	}
	return "", false
}

// rolesWith are the rows that give the person a role with which the answer is yes, those
// with fewest rights first.
func (q asked) rolesWith(p *party, m masks) (rows [][]string) {
	type candidate struct {
		role   string
		rights int
	}
	var found []candidate
	for _, name := range q.policy.knownRoles(q.resource.Tenant) {
		role := rolePrefix + name
		if q.policy.chain(q.resource.Tenant, role) >= maxHops {
			continue // one more link and Casbin would not follow
		}
		with := m
		for _, r := range q.rulesOf(role) {
			with = with.with(r.rule)
		}
		if p.verdict(with, q.resource, 0) == allowed {
			found = append(found, candidate{role, len(q.policy.rights(q.resource.Tenant, role, q.now))})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rights, b.rights), strings.Compare(a.role, b.role))
	})
	for _, c := range found {
		link := rowOf("", []string{"g", personPrefix + p.person, c.role, q.resource.Tenant})
		if _, err := lint([]row{link}); err != nil { // the person has no name in rows
			return nil
		}
		if q.policy.separates(link, q.now) != nil {
			continue
		}
		if rows = append(rows, link.rule()); len(rows) == maxRoles {
			break
		}
	}
	return rows
}

// chain is the number of links in the longest chain of roles from one upward.
func (s *snapshot) chain(tenant, role string) int {
	in, _ := s.rows.name(tenant)
	of, _ := s.rows.name(role)
	known := make(map[uint32]int)
	var length func(of uint32) int
	length = func(of uint32) int {
		if n, ok := known[of]; ok {
			return n
		}
		longest := 0
		for _, l := range s.rows.linksOf(in, of) {
			longest = max(longest, 1+length(l.role))
		}
		known[of] = longest
		return longest
	}
	return length(of)
}
