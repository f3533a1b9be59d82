package rbacsql

import (
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// mayPlace refuses departments by which the author, or whom the author acts for, reaches
// more: as a member, a head, or through what lies below. A department that is new lies below
// nothing of theirs either, else one could be taken out first and put back in elsewhere.
func mayPlace(author crmguard.Subject, was, next rbac.Units) error {
	if author.Kind == crmguard.KindSystem && author.OnBehalfOf == "" {
		return nil
	}
	for _, person := range []string{author.ID, author.OnBehalfOf} {
		reached := reach(was, person)
		for _, to := range reach(next, person) {
			if _, had := slices.BinarySearchFunc(reached, to, slices.Compare); !had {
				return &crmguard.Denial{By: "rbac", Code: "self-grant", Detail: "u:" + person + ": " + strings.Join(to, " of ")}
			}
		}
	}
	return nil
}

// reach lists what a person reaches in the three ways in which rules tell departments
// apart, each with the department: sorted.
func reach(u rbac.Units, person string) (to [][]string) {
	if person == "" {
		return nil
	}
	children := make(map[string][]string, len(u.Parent))
	for unit, parent := range u.Parent {
		children[parent] = append(children[parent], unit)
	}
	add := func(as string, from []string) {
		seen := make(map[string]bool)
		for todo := slices.Clone(from); len(todo) > 0; todo = todo[1:] {
			if unit := todo[0]; !seen[unit] {
				seen[unit] = true
				to = append(to, []string{as, unit})
				todo = append(todo, children[unit]...)
			}
		}
	}
	for _, unit := range u.Members[person] {
		to = append(to, []string{"member", unit})
	}
	add("superior", u.Members[person])
	add("head", u.Heads[person])
	slices.SortFunc(to, slices.Compare)
	return to
}
