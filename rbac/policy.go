package rbac

import (
	"slices"
	"strings"
)

// Model is the Casbin model in which every policy is read. A policy that the
// engine accepts gives the same answers in any Casbin enforcer with this model
// and [ScopeRows], but for p2 and p3 rows, grants and deputies that end: no matcher of
// Casbin's asks for them, so there it is as if all of them had ended, and for p4 rows,
// which say what no policy may give.
const Model = `[request_definition]
r = sub, dom, obj, act, rel

[policy_definition]
p = sub, dom, obj, act, scope, eft
p2 = sub, role, dom, end
p3 = deputy, sub, dom, from, end
p4 = dom, role, other

[role_definition]
g = _, _, _
g2 = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = r.dom == p.dom && r.obj == p.obj && r.act == p.act && g2(r.rel, p.scope) && g(r.sub, p.sub, r.dom)
`

// verdict is an answer.
type verdict uint8

const (
	noRule     verdict = iota // nothing allows it
	denyRule                  // a rule denies it
	allowed                   //
	outOfScope                // the credential's scopes do not reach it
	noRecord                  // a question about one record names none
)

// snapshot is one version of the policy, compiled. It never changes, so no decision
// can mix two versions.
type snapshot struct {
	version string
	rows    *rowSet
	compiled
}

// newSnapshot compiles rows that passed lint.
func newSnapshot(rows *rowSet) *snapshot {
	return &snapshot{version: rows.version(), rows: rows, compiled: compileRows(rows)}
}

// roles lists the roles of a person at a moment, those that come through other roles
// too.
func (s *snapshot) roles(tenant, person string, now int64) []string {
	var roles []string
	for _, name := range s.rows.is(tenant, personPrefix+person, now) {
		if role, ok := strings.CutPrefix(name, rolePrefix); ok {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles
}

// is names the identities of a subject at a moment.
func (s *rowSet) is(tenant, subject string, now int64) (names []string) {
	in, ok := s.name(tenant)
	of, known := s.name(subject)
	if ok && known {
		for _, identity := range s.identities(in, of, now) {
			names = append(names, s.names[identity])
		}
	}
	return names
}
