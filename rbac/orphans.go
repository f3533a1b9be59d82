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
func (s *snapshot) orphans(l *LeaverReview, rights map[right]relationSet, departments *tree) Orphans {
	unseen := l.owned()
	for _, persons := range s.alike(l.Tenant, l.Person) {
		has := s.rights(l.Tenant, persons[0], lasting)
		for what := range rights {
			rights[what] &^= has[what]
		}
		unseen = slices.DeleteFunc(unseen, func(r crmguard.Resource) bool {
			views := has[right{r.Kind, string(crmguard.View)}]
			return slices.ContainsFunc(persons, func(name string) bool {
				person := strings.TrimPrefix(name, personPrefix)
				place := departments.of(person)
				return views.has(relate(person, &place, &r))
			})
		})
	}
	o := Orphans{Rights: rightsOf(rights), Roles: s.rows.rolesOnlyOf(l)}
	for _, r := range unseen {
		o.Kinds = append(o.Kinds, r.Kind)
	}
	o.Kinds = sorted(o.Kinds)
	o.Units = slices.DeleteFunc(slices.Clone(l.Heads), func(unit string) bool {
		for person, heads := range departments.Heads {
			if personPrefix+person != l.Person && slices.Contains(heads, unit) {
				return true
			}
		}
		return false
	})
	return o
}

// lost are the rights that somebody has for good by one policy and nobody by another one.
func lost(before, after *snapshot, tenant string) []Right {
	had, has := before.lastingRights(tenant), after.lastingRights(tenant)
	for what := range had {
		had[what] &^= has[what]
	}
	return rightsOf(had)
}

// lastingRights are what the persons of a tenant have for good, all of them together.
func (s *snapshot) lastingRights(tenant string) map[right]relationSet {
	all := make(map[right]relationSet)
	for _, persons := range s.alike(tenant, "") {
		for what, set := range s.rights(tenant, persons[0], lasting) {
			all[what] |= set
		}
	}
	return all
}

// owned are records of the leaver: one of each kind in each department of theirs.
func (l *LeaverReview) owned() (records []crmguard.Resource) {
	places := slices.Concat(l.Units, l.Heads)
	if len(places) == 0 {
		places = []string{""}
	}
	for _, r := range l.Records {
		for _, unit := range places {
			if r.Owned > 0 {
				records = append(records, crmguard.Resource{Kind: r.Kind, Owner: strings.TrimPrefix(l.Person, personPrefix), Unit: unit})
			}
		}
	}
	return records
}

// rolesOnlyOf are the leaver's roles that nobody else has for good.
func (s *rowSet) rolesOnlyOf(l *LeaverReview) (only []string) {
	members := s.members(l.Tenant, lasting)
	for _, way := range l.Roles {
		role := way[len(way)-1]
		have := descend([]string{role}, func(name string) []string { return members[name] })
		if !slices.ContainsFunc(have, func(name string) bool { return name != l.Person && isColleague(name) }) {
			only = append(only, role)
		}
	}
	slices.Sort(only)
	return only
}

// isColleague reports whether a name of a row is a person's and not a job's.
func isColleague(name string) bool {
	person, ok := strings.CutPrefix(name, personPrefix)
	return ok && !strings.HasPrefix(person, systemPrefix)
}

// alike are the persons of a tenant, but for one, who have rights that last, each with
// those whose rights are the same.
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
