package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/rbac"
)

var policyWhatIf = command{
	name:  "policy what-if",
	args:  "-policy FILE [-add ROW …] [-remove ROW …] [-departments FILE]",
	about: "say who gains and loses what if rows were added or removed",
	help: `Changes nothing. A ROW stands as in the policy, such as 'g, u:anna, role:head, acme'. Rows that
come (+) and go (-) are followed by each right that a person has on more records than before,
or on fewer, as grants stand at this moment; with departments also by where these people stand.
Of two files crmguard policy diff says the same.

` + departmentsHelp + `
Exit codes: 0 nobody gains or loses, 1 somebody does, 2 not understood, 3 the policy cannot be
read, or is refused, or would be.
`,
	do: supposePolicy,
}

func supposePolicy(c *call) int {
	path := c.flags.String("policy", "", "the policy, a `FILE` in Casbin's CSV format")
	company := c.flags.String("departments", "", "all departments, a CSV `FILE`")
	var add, remove []row
	c.flags.Func("add", "a `ROW` to add; may stand more than once", func(text string) error { return parseRow(text, &add) })
	c.flags.Func("remove", "a `ROW` to remove; may stand more than once", func(text string) error { return parseRow(text, &remove) })
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if *path == "" || len(add)+len(remove) == 0 {
		return c.misused("-policy and -add or -remove are needed")
	}
	places, _, ok := c.openDepartments(*company)
	if !ok {
		return unable
	}
	engine, ok := c.openPolicy(*path, nil)
	if !ok {
		return unable
	}
	text, err := os.ReadFile(*path)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	p, err := readPolicy(string(text))
	if err != nil {
		return c.fail(unable, "%s: %v", *path, err)
	}
	for _, r := range remove {
		if !slices.ContainsFunc(p.rows, r.equal) {
			return c.misused("no row of the policy is %s", strings.Join(r.rule(), ", "))
		}
	}
	total := newTotal()
	for _, tenant := range tenantsOf(slices.Concat(add, remove)) {
		change, err := suppose(c, engine, tenant, p.rows, add, remove)
		if refused, ok := errors.AsType[*rbac.PolicyError](err); ok {
			c.printRefused(refused)
			return unable
		}
		if err != nil {
			return c.fail(unable, "%v", err)
		}
		fmt.Fprintf(c.out, "tenant %s\n%s", plain(tenant), change)
		c.printPlaces(places[tenant], change)
		total.add(tenant, change)
	}
	fmt.Fprintf(c.out, "\n%s\n", total)
	if trues(total.gain)+trues(total.lose) > 0 {
		return bad
	}
	return good
}

// suppose is what a tenant's policy with other rows means.
func suppose(c *call, engine *rbac.Engine, tenant string, rows, add, remove []row) (rbac.Change, error) {
	var rules [][]string
	for _, r := range slices.Concat(rows, add) {
		if r.of() == tenant && !slices.ContainsFunc(remove, r.equal) {
			rules = append(rules, r.rule())
		}
	}
	draft, err := engine.Draft(c, tenant, rules)
	if err != nil {
		return rbac.Change{}, err
	}
	return engine.WhatIf(c, tenant, draft)
}

// parseRow adds the row that a text is. What it says is judged by rbac.
func parseRow(text string, to *[]row) error {
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace = true
	fields, err := r.Read()
	if err != nil {
		return fmt.Errorf("not a row: %w", err)
	}
	parsed := row{kind: fields[0], fields: fields[1:]}
	if _, err := r.Read(); err != io.EOF || parsed.of() == "" {
		return errors.New("want one row, such as 'g, u:anna, role:head, acme'")
	}
	*to = append(*to, parsed)
	return nil
}

// printPlaces tells where people stand whose rights a change changes.
func (c *call) printPlaces(units rbac.Units, change rbac.Change) {
	told := map[string]bool{}
	for _, r := range change.Rights {
		id := strings.TrimPrefix(r.Person, "u:")
		if told[id] || len(units.Members[id])+len(units.Heads[id]) == 0 {
			continue
		}
		told[id] = true
		var parts []string
		say := func(word string, of []string) {
			if len(of) > 0 {
				parts = append(parts, word+" "+plain(strings.Join(slices.Sorted(slices.Values(of)), ", ")))
			}
		}
		say("head of", units.Heads[id])
		say("member of", units.Members[id])
		say("above", below(units, slices.Concat(units.Members[id], units.Heads[id])))
		fmt.Fprintf(c.out, "  %s is %s\n", r.Person, strings.Join(parts, "; "))
	}
}

// below lists what lies below some departments, without these.
func below(units rbac.Units, some []string) (found []string) {
	for unit := range units.Parent {
		isBelow := false
		for up := units.Parent[unit]; up != "" && !isBelow; up = units.Parent[up] { // a file has no rings
			isBelow = slices.Contains(some, up)
		}
		if isBelow && !slices.Contains(some, unit) {
			found = append(found, unit)
		}
	}
	return found
}
