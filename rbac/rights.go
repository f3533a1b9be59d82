package rbac

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// right is what a rule gives or takes.
type right struct{ object, action string }

// rights are the relations under which a subject has each right at a moment, rules
// that deny taken off.
func (s *snapshot) rights(tenant, subject string, now int64) map[right]relationSet {
	in, ok := s.rows.name(tenant)
	of, known := s.rows.name(subject)
	if !ok || !known {
		return nil
	}
	found := make(map[right]masks)
	for _, identity := range s.rows.identities(in, of, now) {
		for _, r := range s.rows.rulesOf(in, identity) {
			what := right{s.rows.names[r.object], string(actWords[r.act])}
			found[what] = found[what].with(r)
		}
	}
	rights := make(map[right]relationSet, len(found))
	for what, m := range found {
		rights[what] = m.yes()
	}
	return rights
}

// beyond are the relations under which somebody has each right more than before.
func beyond(has, had map[right]relationSet) map[right]relationSet {
	more := make(map[right]relationSet)
	for what, set := range has {
		if set = set &^ had[what] & possible(what.object); set != 0 {
			more[what] = set
		}
	}
	return more
}

// lacks names a right that a role gives to a name of a row and a granter does not have under
// all the same relations, from now until the end of the grant; under all that there are if
// somebody stands in for that name. A granter who acts for
// somebody needs the rights of both, and one with scopes needs those too. Jobs of
// the host lack nothing.
func (s *snapshot) lacks(granter crmguard.Subject, name, role string, now, end int64) (right, bool) {
	gives := beyond(s.rights(granter.Tenant, rolePrefix+role, now), nil) // what roles give one another has no end
	if s.hasDeputy(granter.Tenant, name, now, end) {
		for what := range gives {
			gives[what] = possible(what.object)
		}
	}
	order := slices.SortedFunc(maps.Keys(gives), compareRights)
	holders := holdersOf(granter)
	for _, moment := range s.moments(now, end, granter.Tenant, holders...) {
		held := s.heldBy(granter, holders, moment)
		for _, what := range order { // so that the same lack is named each time
			if !held.cover(what, gives[what]) {
				return what, true
			}
		}
	}
	return right{}, false
}

// held is what a subject can give: what it may do itself, and whom it acts for.
type held struct {
	scopes []string
	by     []map[right]relationSet
}

func (s *snapshot) heldBy(subject crmguard.Subject, holders []string, now int64) held {
	h := held{scopes: subject.Scopes}
	for _, holder := range holders {
		h.by = append(h.by, s.rights(subject.Tenant, personPrefix+holder, now))
	}
	return h
}

// cover reports whether a right is held under all of some relations.
func (h held) cover(what right, under relationSet) bool {
	kind, _, _ := strings.Cut(what.object, "#")
	if h.scopes != nil && !inScopes(h.scopes, kind, crmguard.Action(what.action)) {
		return false
	}
	return !slices.ContainsFunc(h.by, func(has map[right]relationSet) bool { return under&^has[what] != 0 })
}

// moments are now and those before an end at which roles of some persons end.
func (s *snapshot) moments(now, end int64, tenant string, persons ...string) []int64 {
	moments := []int64{now}
	in, _ := s.rows.name(tenant)
	for _, person := range persons {
		of, _ := s.rows.name(personPrefix + person)
		links := s.rows.linksOf(in, of)
		for i, l := range links {
			lasts := i+1 == len(links) || links[i+1].role != l.role // of several it is the last end that counts
			if lasts && now < l.end && l.end < end {
				moments = append(moments, l.end)
			}
		}
	}
	slices.Sort(moments)
	return slices.Compact(moments)
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

// holdersBut are they without one person, as a name of a row, who needs nobody's rights to
// give the own ones.
func holdersBut(s crmguard.Subject, whom string) []string {
	return slices.DeleteFunc(holdersOf(s), func(holder string) bool { return personPrefix+holder == whom })
}

func compareRights(a, b right) int {
	return cmp.Or(strings.Compare(a.object, b.object), strings.Compare(a.action, b.action))
}

// narrowed are the rows that stay in force when what is stored now was refused:
// of those that give something, the ones that are still stored; all that deny or exclude,
// also those that went with a role link, because the row that was to take their
// place may be the refused one.
func (s *snapshot) narrowed(stored []row) []row {
	there := keysOf(stored)
	var kept []row
	for _, r := range s.rows.all() {
		switch {
		case there[r.key()] || r.denies() || r.kind == "p4":
			kept = append(kept, r)
		case r.kind == "g" || r.kind == "p2": // a deputy has rights of the other, and none of the denials
			kept = append(kept, s.denialsThrough(r)...)
		}
	}
	return kept
}

// denialsThrough are the rules that deny and that a subject has through a link, as
// its own.
func (s *snapshot) denialsThrough(link row) []row {
	in, ok := s.rows.name(link.fields[2])
	role, known := s.rows.name(link.fields[1])
	if !ok || !known {
		return nil
	}
	var denials []row
	for _, identity := range s.rows.identities(in, role, 0) {
		for _, rule := range s.rows.rulesOf(in, identity) {
			if rule.effect == effectDeny {
				r := s.rows.rule(rule)
				r.fields[0] = link.fields[0]
				denials = append(denials, r)
			}
		}
	}
	return denials
}

// frees reports whether somebody can do more without some rows because a role of theirs
// denies something.
func (s *snapshot) frees(removed [][]string) bool {
	return slices.ContainsFunc(removed, func(rule []string) bool {
		link := rowOf("", rule)
		return (link.kind == "g" || link.kind == "p2") && len(s.denialsThrough(link)) > 0
	})
}
