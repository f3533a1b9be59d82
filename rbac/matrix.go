package rbac

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// Matrix is what the roles and departments of a tenant may do, as a table. Rights of
// persons alone are not in it.
type Matrix struct {
	Holders []string // of the columns: role:NAME and unit:NAME, sorted
	Objects []MatrixObject
}

// MatrixObject is what there is a rule about, with a row for each action.
type MatrixObject struct {
	Object string // a kind, kind#field or section:name
	Rights []MatrixRight
}

// MatrixRight is one row of a [Matrix].
type MatrixRight struct {
	Action crmguard.Action // as in rows
	Cells  []MatrixCell    // one for each of the holders
}

// MatrixCell is on whose records a holder may do something, itself and through other
// roles.
type MatrixCell struct {
	Allow []Scope  // from narrow to wide, none part of another, none denied wholly; empty: not allowed
	Deny  []Scope  // likewise
	Rules []Reason // that say so, the nearest first; their paths begin at the holder
}

// String tells the scopes, such as "all, not shared", or "no".
func (c MatrixCell) String() string {
	if len(c.Allow) == 0 {
		return "no"
	}
	text := listed(c.Allow)
	if len(c.Deny) > 0 {
		text += ", not " + listed(c.Deny)
	}
	return text
}

func listed(scopes []Scope) string {
	words := make([]string, len(scopes))
	for i, scope := range scopes {
		words[i] = string(scope)
	}
	return strings.Join(words, ", ")
}

// Matrix shows the policy in force of a tenant as a table, for whoever administers
// rights. Who may look at it is a question of the host.
func (e *Engine) Matrix(ctx context.Context, tenant string) (Matrix, error) {
	if err := reaches(ctx, tenant); err != nil {
		return Matrix{}, err
	}
	policy, err := e.inForce()
	if err != nil {
		return Matrix{}, err
	}
	return policy.matrix(tenant), nil
}

func (s *snapshot) matrix(tenant string) Matrix {
	var m Matrix
	in, ok := s.rows.name(tenant)
	if !ok {
		return m
	}
	of := map[right][]rule{} // by whom they are for
	hold := func(name uint32) {
		if holder := s.rows.names[name]; !strings.HasPrefix(holder, personPrefix) {
			m.Holders = append(m.Holders, holder)
		}
	}
	for _, r := range s.rows.rules {
		if r.tenant == in {
			hold(r.subject)
			what := right{s.rows.names[r.object], string(actWords[r.act])}
			of[what] = append(of[what], r)
		}
	}
	for _, l := range s.rows.links {
		if l.tenant == in {
			hold(l.subject)
			hold(l.role)
		}
	}
	slices.Sort(m.Holders)
	m.Holders = slices.Compact(m.Holders)
	for _, what := range slices.SortedFunc(maps.Keys(of), compareRights) {
		row := MatrixRight{Action: crmguard.Action(what.action)}
		for _, holder := range m.Holders {
			row.Cells = append(row.Cells, s.rows.cell(in, holder, of[what]))
		}
		if n := len(m.Objects); n == 0 || m.Objects[n-1].Object != what.object {
			m.Objects = append(m.Objects, MatrixObject{Object: what.object})
		}
		last := &m.Objects[len(m.Objects)-1]
		last.Rights = append(last.Rights, row)
	}
	return m
}

// cell is what a holder has of some rules about one right.
func (s *rowSet) cell(tenant uint32, holder string, rules []rule) (c MatrixCell) {
	of, _ := s.name(holder)
	is, from := s.paths(tenant, of, 0) // what roles have does not end
	var m masks
	var allow, deny []Scope
	for i, identity := range is {
		for _, r := range rules {
			if r.subject != identity {
				continue
			}
			row := s.rule(r)
			c.Rules = append(c.Rules, Reason{row.rule(), row.where, s.path(is, from, i)})
			m = m.with(r)
			if r.effect == effectAllow {
				allow = append(allow, Scope(scopeWords[r.scope]))
			} else {
				deny = append(deny, Scope(scopeWords[r.scope]))
			}
		}
	}
	c.Allow = slices.DeleteFunc(widest(allow), func(scope Scope) bool { return within(scope)&^m.deny == 0 })
	c.Deny = widest(deny)
	return c
}

// widest leaves out scopes that are part of others, and orders the rest.
func widest(among []Scope) (wide []Scope) {
	for _, word := range scopes {
		scope := Scope(word)
		if slices.Contains(among, scope) && !slices.ContainsFunc(among, func(other Scope) bool {
			return other != scope && within(scope)&^within(other) == 0
		}) {
			wide = append(wide, scope)
		}
	}
	return wide
}

// within are the relations that a scope covers.
func within(scope Scope) relationSet {
	number, _ := scopeOf(string(scope))
	return relationsIn[number]
}
