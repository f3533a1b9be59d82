package rbac

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// links are the role links of a policy: what each subject has directly.
type links map[node][]string

func linksOf(rows []row) links {
	l := make(links)
	for _, r := range rows {
		if r.kind == "g" {
			from := node{r.fields[2], r.fields[0]}
			l[from] = append(l[from], r.fields[1])
		}
	}
	return l
}

// identities are what a subject is: itself, and whatever it has through links.
func (l links) identities(n node) map[string]bool {
	is := map[string]bool{n.name: true}
	for todo := []string{n.name}; len(todo) > 0; todo = todo[1:] {
		for _, role := range l[node{n.tenant, todo[0]}] {
			if !is[role] {
				is[role] = true
				todo = append(todo, role)
			}
		}
	}
	return is
}

// right is what a rule gives or takes.
type right struct{ object, action string }

// rights are the relations under which a subject has each right, rules that deny
// taken off.
func (s *snapshot) rights(n node) map[right]relationSet {
	is := linksOf(s.rows).identities(n)
	allow, deny := make(map[right]relationSet), make(map[right]relationSet)
	for _, r := range s.rows {
		if r.kind != "p" || r.fields[1] != n.tenant || !is[r.fields[0]] {
			continue
		}
		what := right{r.fields[2], r.fields[3]}
		if r.denies() {
			deny[what] |= relationsIn[r.fields[4]]
		} else {
			allow[what] |= relationsIn[r.fields[4]]
		}
	}
	for what, set := range deny {
		allow[what] &^= set
	}
	return allow
}

// lacks names a right that a role gives and a granter does not have under all the
// same relations. A granter who acts for somebody needs the rights of both, and
// one with scopes needs those too. Jobs of the host lack nothing.
func (s *snapshot) lacks(granter crmguard.Subject, role string) (right, bool) {
	holders := holdersOf(granter)
	gives := s.rights(node{granter.Tenant, rolePrefix + role})
	order := slices.SortedFunc(maps.Keys(gives), compareRights) // so that the same lack is named each time
	for _, holder := range holders {
		has := s.rights(node{granter.Tenant, personPrefix + holder})
		for _, what := range order {
			kind, _, _ := strings.Cut(what.object, "#")
			narrowed := granter.Scopes != nil && !inScopes(granter.Scopes, kind, crmguard.Action(what.action))
			if gives[what]&^has[what] != 0 || gives[what] != 0 && narrowed {
				return what, true
			}
		}
	}
	return right{}, false
}

// holdersOf are those who must hold what a subject gives: jobs of the host lack nothing.
func holdersOf(s crmguard.Subject) (holders []string) {
	if s.Kind != crmguard.KindSystem {
		holders = append(holders, s.ID)
	}
	if s.OnBehalfOf != "" {
		holders = append(holders, s.OnBehalfOf)
	}
	return holders
}

func compareRights(a, b right) int {
	return cmp.Or(strings.Compare(a.object, b.object), strings.Compare(a.action, b.action))
}

// narrowed are the rows that stay in force when what is stored now was refused:
// of those that give something, the ones that are still stored; and all that deny,
// also those that went with a role link, because the row that was to take their
// place may be the refused one.
func (s *snapshot) narrowed(stored []row) []row {
	there := make(map[[7]string]bool, len(stored))
	for _, r := range stored {
		if len(r.fields) <= 6 {
			there[r.key()] = true
		}
	}
	l := linksOf(s.rows)
	var kept []row
	for _, r := range s.rows {
		switch {
		case there[r.key()] || r.denies():
			kept = append(kept, r)
		case r.kind == "g":
			lost := l.identities(node{r.fields[2], r.fields[1]})
			for _, rule := range s.rows {
				if rule.denies() && rule.fields[1] == r.fields[2] && lost[rule.fields[0]] {
					fields := slices.Clone(rule.fields)
					fields[0] = r.fields[0]
					kept = append(kept, row{rule.where, "p", fields})
				}
			}
		}
	}
	return distinct(kept)
}
