package rbac

import (
	"maps"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// Orphans are what is left without anybody once a person has left. Somebody else counts
// who has something without end; a job of the host does not.
type Orphans struct {
	// Rights are those that nobody else has, under these relations: nobody could grant
	// them any more either, but a job of the host.
	Rights []Right
	Roles  []string // of the person, that nobody else has, sorted
	// Kinds are those of records whose owner is the person that nobody else may view, be
	// it only those of one department of which the person is a member or head.
	Kinds []string
	Units []string // that nobody else heads, sorted
}

// lasting is a moment at which all grants that end have ended.
const lasting = noEnd - 1

// orphans are what only a leaver has. The rights are the leaver's, and changed.
func (s *snapshot) orphans(l *LeaverReview, rights map[right]relationSet, departments *tree) (o Orphans) {
	unseen := make(map[crmguard.Resource]bool)
	for _, records := range l.Records {
		places := slices.Concat(l.Units, l.Heads)
		if len(places) == 0 {
			places = []string{""}
		}
		for _, unit := range places {
			if records.Owned > 0 {
				unseen[crmguard.Resource{Kind: records.Kind, Owner: strings.TrimPrefix(l.Person, personPrefix), Unit: unit}] = true
			}
		}
	}
	for _, persons := range s.alike(l.Tenant, l.Person) {
		has := s.rights(l.Tenant, persons[0], lasting)
		for what := range rights {
			rights[what] &^= has[what]
		}
		maps.DeleteFunc(unseen, func(r crmguard.Resource, _ bool) bool {
			views := has[right{r.Kind, string(crmguard.View)}]
			return slices.ContainsFunc(persons, func(name string) bool {
				person := strings.TrimPrefix(name, personPrefix)
				place := departments.of(person)
				return views.has(relate(person, &place, &r))
			})
		})
	}
	o.Rights = rightsOf(rights)
	for r := range unseen {
		o.Kinds = append(o.Kinds, r.Kind)
	}
	slices.Sort(o.Kinds)
	o.Kinds = slices.Compact(o.Kinds)
	for _, unit := range l.Heads {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(departments.Heads)), func(person string) bool {
			return personPrefix+person != l.Person && slices.Contains(departments.Heads[person], unit)
		}) {
			o.Units = append(o.Units, unit)
		}
	}
	members := s.rows.members(l.Tenant, lasting)
	for _, way := range l.Roles {
		role := way[len(way)-1]
		if !slices.ContainsFunc(descend([]string{role}, func(name string) []string { return members[name] }), func(name string) bool {
			return name != l.Person && isColleague(name)
		}) {
			o.Roles = append(o.Roles, role)
		}
	}
	slices.Sort(o.Roles)
	return o
}

// isColleague reports whether a name of a row is a person's and not a job's.
func isColleague(name string) bool {
	person, ok := strings.CutPrefix(name, personPrefix)
	return ok && !strings.HasPrefix(person, systemPrefix)
}

// alike are the other persons of a tenant who have rights that last, each with those
// whose rights are the same.
func (s *snapshot) alike(tenant, but string) (groups [][]string) {
	by := make(map[*holder][]string)
	for w, h := range s.people {
		name := personPrefix + w.person
		if w.tenant != tenant || name == but || !isColleague(name) {
			continue
		}
		for h.then != nil {
			h = h.then
		}
		by[h] = append(by[h], name)
	}
	return slices.Collect(maps.Values(by))
}

// members are who has each role of a tenant by a row of its own, at a moment.
func (s *rowSet) members(tenant string, now int64) map[string][]string {
	members := make(map[string][]string)
	for _, l := range s.links {
		if s.names[l.tenant] == tenant && now < l.end {
			role := s.names[l.role]
			members[role] = append(members[role], s.names[l.subject])
		}
	}
	return members
}
