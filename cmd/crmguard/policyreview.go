package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

var policyReview = command{
	name:  "policy review",
	args:  "-policy FILE [-departments FILE] [-tenant T] [-from … -to …] PERSON",
	about: "say what a person who leaves has, or what one who moves keeps",
	help: `Tells what the person may do and by which rows, which departments are theirs, and what nobody
else could do, view or head once the person has left. With -to it is about a move instead: to
these roles, teams and departments, from those of -from, such as

  -from role:seller,north -to role:head,unit:board,sales

It tells what the person gains and loses, and what stays that the new place does not give. It
changes nothing.

` + departmentsHelp + `
Exit codes: 0 nothing is left without anybody, or nothing stays; 1 something is or does, 2 not
understood, 3 the policy cannot be read, or is refused, or would be after the move.
`,
	do: reviewPerson,
}

func reviewPerson(c *call) int {
	path := c.flags.String("policy", "", "the policy, a `FILE` in Casbin's CSV format")
	company := c.flags.String("departments", "", "all departments, a CSV `FILE`")
	tenant := c.flags.String("tenant", crmguard.SingleTenant, "the `TENANT`")
	from := c.flags.String("from", "", "`ROLES` and departments that go, with commas between them")
	to := c.flags.String("to", "", "`ROLES` and departments that come")
	rest, code, ok := c.parse(1)
	if !ok {
		return code
	}
	if *path == "" || *from != "" && *to == "" {
		return c.misused("-policy is needed, and -to with -from")
	}
	who, err := person(*tenant, rest[0])
	if err != nil {
		return c.misused("%v", err)
	}
	_, org, ok := c.openDepartments(*company)
	if !ok {
		return unable
	}
	engine, ok := c.openPolicy(*path, org)
	if !ok {
		return unable
	}
	var review fmt.Stringer
	open := false
	if *to != "" {
		var m rbac.MoverReview
		m, err = engine.ReviewMover(c, *tenant, who.ID, placeOf(*from), placeOf(*to))
		review, open = m, len(m.Keeps)+len(m.Rows)+len(m.KeepsUnits)+len(m.KeepsHeads) > 0
	} else {
		var l rbac.LeaverReview
		l, err = engine.ReviewLeaver(c, *tenant, who.ID)
		review, open = l, len(l.Orphans.Rights)+len(l.Orphans.Roles)+len(l.Orphans.Units) > 0
	}
	if refused, ok := errors.AsType[*rbac.PolicyError](err); ok {
		c.printRefused(refused)
		return unable
	}
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	fmt.Fprint(c.out, review)
	if open {
		return bad
	}
	return good
}

// placeOf tells roles and teams from departments.
func placeOf(list string) (p rbac.Place) {
	for name := range strings.SplitSeq(list, ",") {
		switch {
		case strings.HasPrefix(name, "role:"), strings.HasPrefix(name, "unit:"):
			p.Roles = append(p.Roles, name)
		case name != "":
			p.Units = append(p.Units, name)
		}
	}
	return p
}

// printRefused tells why a policy would be refused.
func (c *call) printRefused(refused *rbac.PolicyError) {
	for _, f := range refused.Findings {
		fmt.Fprintf(c.out, "would be refused: %s: %s\n", plain(strings.Join(f.Rule, ", ")), f.Reason)
	}
}
