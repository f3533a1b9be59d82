package rbac

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// The names of random universes: look-alikes, Cyrillic, separators of Casbin that
// are harmless alone, persons called like roles.
var (
	someTenants = []string{"acme", "Ромашка"}
	somePersons = []string{"anna", "Олег", "seller", "o'$1\\0", "system:import"}
	someRoles   = []string{"seller", "head", "Бухгалтер", "anna", "r$1"}
	someUnits   = []string{"north", "Юг", "seller", "north-1", "north-1-a"}
	someKinds   = []string{"contacts", "Сделки"}
	someFields  = []string{"", "phone"}
	someActions = []crmguard.Action{crmguard.View, crmguard.Export}
)

// kindOf is what a subject of this name must be.
func kindOf(id string) crmguard.SubjectKind {
	if strings.HasPrefix(id, "system:") {
		return crmguard.KindSystem
	}
	return crmguard.KindEmployee
}

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

// randomPolicy makes rows that lint accepts, with a chain of roles of the given
// length in each tenant; one rule in denyOneIn denies. Every role of the chain has an object of its own, or a
// fault in following the chain would stay unseen.
func randomPolicy(rnd *rand.Rand, rules, chain, denyOneIn int) []row {
	var rows []row
	subjects := func() string {
		switch rnd.IntN(4) {
		case 0:
			return personPrefix + pick(rnd, somePersons)
		case 1:
			return unitPrefix + pick(rnd, someUnits)
		}
		return rolePrefix + pick(rnd, someRoles)
	}
	for range rules {
		object, action := pick(rnd, someKinds), string(pick(rnd, someActions))
		if field := pick(rnd, someFields); field != "" {
			object += "#" + field
			action = pick(rnd, []string{"read", "export"})
		}
		effect := "allow"
		if rnd.IntN(denyOneIn) == 0 {
			effect = "deny"
		}
		rows = append(rows, row{"", "p", []string{subjects(), pick(rnd, someTenants), object, action, pick(rnd, scopes), effect}})
	}
	for _, tenant := range someTenants {
		for i, role := range someRoles { // links go upward only, so that there is no cycle
			if i > 0 && rnd.IntN(2) == 0 {
				rows = append(rows, row{"", "g", []string{rolePrefix + someRoles[rnd.IntN(i)], rolePrefix + role, tenant}})
			}
		}
		for _, unit := range someUnits[:2] {
			rows = append(rows, row{"", "g", []string{unitPrefix + unit, rolePrefix + pick(rnd, someRoles), tenant}})
		}
		for _, person := range somePersons {
			for range rnd.IntN(3) {
				rows = append(rows, row{"", "g", []string{personPrefix + person, rolePrefix + pick(rnd, someRoles), tenant}})
			}
			if rnd.IntN(3) == 0 {
				rows = append(rows, row{"", "g", []string{personPrefix + person, unitPrefix + pick(rnd, someUnits), tenant}})
			}
		}
		below := personPrefix + "anna"
		for i := range chain {
			role := fmt.Sprintf("%schain%d", rolePrefix, i+1)
			rows = append(rows, row{"", "g", []string{below, role, tenant}},
				row{"", "p", []string{role, tenant, fmt.Sprintf("chained%d", i+1), "view", pick(rnd, scopes), "allow"}})
			below = role
		}
	}
	rnd.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return rows
}

// withDeputies adds who stands in for whom, most of them now.
func withDeputies(rnd *rand.Rand, rows []row) []row {
	for _, tenant := range someTenants {
		for range rnd.IntN(5) {
			pair := shuffled(rnd, somePersons[:4]) // not the job
			period := pick(rnd, [][2]string{
				{"2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"}, {"2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"},
				{"2001-01-01T00:00:00Z", "2001-01-02T00:00:00Z"}, {"2998-01-01T00:00:00Z", "2999-01-01T00:00:00Z"},
			})
			rows = append(rows, row{"", "p3", []string{personPrefix + pair[0], personPrefix + pair[1], tenant, period[0], period[1]}})
		}
	}
	return rows
}

// randomQuestion starts from a rule half of the time, or nearly all would be denied.
func randomQuestion(rnd *rand.Rand, o oracle) question {
	q := question{
		tenant: pick(rnd, someTenants), person: pick(rnd, somePersons), kind: pick(rnd, someKinds),
		action: pick(rnd, someActions), relation: relation(rnd.IntN(relations)),
	}
	if q.field = pick(rnd, someFields); q.field != "" {
		q.action = pick(rnd, []crmguard.Action{fieldRead, crmguard.Export})
	}
	if rnd.IntN(5) == 0 {
		return q
	}
	rules := slices.DeleteFunc(slices.Clone(o.rows), func(r row) bool { return r.kind != "p" })
	r := pick(rnd, rules)
	q.tenant, q.action = r.fields[1], crmguard.Action(r.fields[3])
	q.kind, q.field = r.fields[2], ""
	for _, person := range shuffled(rnd, somePersons) {
		if slices.Contains(o.identities(q.tenant, personPrefix+person), r.fields[0]) {
			q.person = person
		}
	}
	for range 4 { // a relation that the rule covers, most of the time
		if contains[r.fields[4]](factsIn(q.relation)) {
			break
		}
		q.relation = relation(rnd.IntN(relations))
	}
	return q
}

func asItIs[T any](v T) T { return v }

func shuffled[T any](rnd *rand.Rand, from []T) []T {
	s := slices.Clone(from)
	rnd.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	return s
}

// randomUnits is a forest over someUnits, sometimes with a cycle, with empty names
// and persons in several units.
func randomUnits(rnd *rand.Rand) Units {
	u := Units{Parent: map[string]string{}, Members: map[string][]string{}, Heads: map[string][]string{}}
	for i, unit := range someUnits {
		if i > 0 && rnd.IntN(4) > 0 {
			u.Parent[unit] = someUnits[rnd.IntN(i)]
		}
	}
	if rnd.IntN(5) == 0 {
		u.Parent[someUnits[0]] = pick(rnd, someUnits)
	}
	for _, person := range somePersons {
		for range rnd.IntN(3) {
			u.Members[person] = append(u.Members[person], pick(rnd, append([]string{""}, someUnits...)))
		}
		for range rnd.IntN(3) {
			u.Heads[person] = append(u.Heads[person], pick(rnd, append([]string{""}, someUnits...)))
		}
	}
	return u
}
