package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// LeaverReview is what a person has in a tenant, to be read before [Engine.Revoke] takes it:
// what the person may do and where from, who gave it, what the person gave to others, which
// records wait for somebody else, and what nobody could do any more.
//
// It names roles and rows, so it is for whoever administers rights.
type LeaverReview struct {
	Tenant string
	Person string     // such as "u:anna"
	Policy string     // version that was read, as of [Engine.Version]
	Units  []string   // departments of which the person is a member, sorted
	Heads  []string   // departments that the person heads, sorted
	Roles  [][]string // the way to each, nearest first: u:anna, role:head, role:seller
	Rights []Right    // of their own at this moment, by object and action; as a deputy there may be more
	Rows   []Authored // of the person, and by which somebody is their deputy; those that deny stay, Revoke takes all others
	// Granted are rows for others that the person put there and that are in force. They
	// stay; whether they should is a question to their department. Nil without a [Store].
	Granted []Authored
	Records []Records
	Orphans Orphans
}

// ReviewLeaver tells what a person has in a tenant. The host says how many records of
// which kinds the person has; handing them over is the host's too, as a change of their
// owner: see the package comment. Who may ask is a question of the host.
func (e *Engine) ReviewLeaver(ctx context.Context, tenant, person string, records ...Records) (LeaverReview, error) {
	if err := reaches(ctx, tenant, person); err != nil {
		return LeaverReview{}, err
	}
	departments, err := e.org.tree(ctx, tenant)
	if err != nil {
		return LeaverReview{}, err
	}
	policy, err := e.inForce()
	if err != nil {
		return LeaverReview{}, err
	}
	rows, err := e.authored(ctx, tenant, policy)
	if err != nil {
		return LeaverReview{}, err
	}
	subject, now := personPrefix+person, e.now()
	rights := policy.rights(tenant, subject, now)
	l := LeaverReview{
		Tenant: tenant, Person: subject, Policy: policy.version,
		Units:   sorted(departments.Members[person]),
		Heads:   sorted(departments.Heads[person]),
		Roles:   policy.waysToRoles(tenant, subject, now),
		Rights:  rightsOf(rights),
		Records: slices.Clone(records),
	}
	for _, row := range rows {
		switch {
		case row.names(subject):
			l.Rows = append(l.Rows, row)
		case row.By.Tenant == tenant && row.By.Author == person && !row.By.Whole:
			l.Granted = append(l.Granted, row)
		}
	}
	l.Orphans = policy.orphans(&l, rights, departments)
	return l, nil
}

// waysToRoles are the nearest ways to all that a subject is besides itself.
func (s *snapshot) waysToRoles(tenant, subject string, now int64) (ways [][]string) {
	in, ok := s.rows.name(tenant)
	of, known := s.rows.name(subject)
	if !ok || !known {
		return nil
	}
	is, from := s.rows.paths(in, of, now)
	for i := range is[1:] {
		ways = append(ways, s.rows.path(is, from, i+1))
	}
	return ways
}

// String tells the review, for people.
func (l LeaverReview) String() string {
	var w reviewWriter
	fmt.Fprintf(&w.text, "%s of %s\n", shown(l.Person), shown(l.Tenant))
	w.section("departments", texts(l.Units, shown))
	w.section("heads", texts(l.Heads, shown))
	w.section("roles", texts(l.Roles, func(way []string) string { return strings.Join(way[1:], " → ") }))
	w.section("rights", texts(l.Rights, Right.String))
	w.section("rows", texts(l.Rows, Authored.String))
	w.section("rows for others that the person put there, which stay", texts(l.Granted, Authored.String))
	w.section("records", texts(l.Records, Records.String))
	w.section("rights that nobody else has", texts(l.Orphans.Rights, Right.String))
	w.section("roles that nobody else has", l.Orphans.Roles)
	w.section("records that nobody else may view", texts(l.Orphans.Kinds, shown))
	w.section("departments that nobody else heads", texts(l.Orphans.Units, shown))
	return w.text.String()
}
