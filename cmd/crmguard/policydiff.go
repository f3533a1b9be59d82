package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/crmguard/crmguard/rbac"
)

var policyDiff = command{
	name:  "policy diff",
	args:  "OLD NEW",
	about: "say which rows differ between two policies, and who gains and loses what",
	help: `Prints for each tenant the rows that were removed (-) and added (+), in whatever order they
stand, and then each right that a person has on more records than before, or on fewer, as
grants stand at this moment.

Exit codes: 0 no row differs, 1 some do, 2 not understood, 3 a policy cannot be read, or is
refused.
`,
	do: diffPolicies,
}

func diffPolicies(c *call) int {
	paths, code, ok := c.parse(2)
	if !ok {
		return code
	}
	var engines []*rbac.Engine
	var tenants []string
	for _, path := range paths {
		engine, ok := c.openPolicy(path, nil)
		if !ok {
			return unable
		}
		engines = append(engines, engine)
		in, err := tenantsIn(path)
		if err != nil {
			return c.fail(unable, "%v", err)
		}
		tenants = append(tenants, in...)
	}
	slices.Sort(tenants)
	total := newTotal()
	for _, tenant := range slices.Compact(tenants) {
		change, err := engines[0].WhatIf(c, tenant, engines[1])
		if err != nil {
			return c.fail(unable, "%v", err)
		}
		if len(change.Added)+len(change.Removed) > 0 {
			fmt.Fprintf(c.out, "tenant %s\n%s\n", tenant, change)
			total.add(tenant, change)
		}
	}
	fmt.Fprintln(c.out, total)
	if total.rows > 0 {
		return bad
	}
	return good
}

// total counts changes.
type total struct {
	rows       int
	gain, lose map[holder]bool
}

func newTotal() *total { return &total{gain: map[holder]bool{}, lose: map[holder]bool{}} }

func (t *total) add(tenant string, change rbac.Change) {
	t.rows += len(change.Added) + len(change.Removed)
	for _, r := range change.Rights {
		who := holder{tenant, r.Person}
		t.gain[who] = t.gain[who] || len(r.Gains) > 0
		t.lose[who] = t.lose[who] || len(r.Loses) > 0
	}
}

// String tells the counts.
func (t *total) String() string {
	return fmt.Sprintf("%s differ; people who gain: %d, who lose: %d", count(t.rows, "row"), trues(t.gain), trues(t.lose))
}

func trues(of map[holder]bool) (n int) {
	for _, is := range of {
		if is {
			n++
		}
	}
	return n
}

// tenantsIn lists the tenants of a policy that rbac accepts.
func tenantsIn(path string) (tenants []string, err error) {
	text, err := os.ReadFile(path) //nolint:gosec // the caller's own path
	if err != nil {
		return nil, err
	}
	p, err := readPolicy(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return tenantsOf(p.rows), nil
}
