package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

var policyExplain = command{
	name:  "policy explain",
	args:  "-policy FILE -as u:ID -do ACTION -on KIND|section:NAME [-field F] [-id ID] [-owner ID] [-unit U] [-shared] [-units U,U | -departments FILE] [-tenant T]",
	about: "say whether a person may do something by a policy, and why",
	help: `Answers as rbac does, and names the rules that decided, the roles through which the person
has them, what the person is to the record and, where the answer is no, the nearest rows
that are missing. Without -id, -owner and -unit the question is about the kind as a whole.

` + departmentsHelp + `
Exit codes: 0 allowed, 1 denied, 2 not understood, 3 the policy cannot be read, or is refused.
`,
	do: explainPolicy,
}

func explainPolicy(c *call) int {
	path := c.flags.String("policy", "", "the policy, a `FILE` in Casbin's CSV format")
	as := c.flags.String("as", "", "who asks, such as `u:anna`")
	action := c.flags.String("do", "", "the `ACTION`, such as view or export")
	kind := c.flags.String("on", "", "the `KIND` of record, such as contacts, or section:NAME")
	tenant := c.flags.String("tenant", crmguard.SingleTenant, "the `TENANT`")
	r := crmguard.Resource{}
	c.flags.StringVar(&r.Field, "field", "", "the `FIELD` that is asked about")
	c.flags.StringVar(&r.ID, "id", "", "the record's `ID`")
	c.flags.StringVar(&r.Owner, "owner", "", "the `ID` of the person responsible for the record")
	c.flags.StringVar(&r.Unit, "unit", "", "the record's `DEPARTMENT`")
	c.flags.BoolVar(&r.Shared, "shared", false, "the record is shared with the person")
	units := c.flags.String("units", "", "the person's `DEPARTMENTS`, with commas between them")
	company := c.flags.String("departments", "", "all departments, a CSV `FILE`")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if *path == "" || *as == "" || *action == "" || *kind == "" {
		return c.misused("-policy, -as, -do and -on are needed")
	}
	if *units != "" && *company != "" {
		return c.misused("-departments say which -units are the person's")
	}
	r.Tenant, r.Kind = *tenant, *kind
	if r.ID == "" && (r.Owner != "" || r.Unit != "" || r.Shared) {
		r.ID = "?" // one record, whichever
	}
	s, err := person(*tenant, *as)
	if err != nil {
		return c.misused("%v", err)
	}
	if *units != "" {
		s.Units = strings.Split(*units, ",")
	}
	_, org, ok := c.openDepartments(*company)
	if !ok {
		return unable
	}
	engine, ok := c.openPolicy(*path, org)
	if !ok {
		return unable
	}
	why, err := engine.Explain(c, s, crmguard.Action(*action), r)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	fmt.Fprint(c.out, why)
	if why.Denial != nil {
		return bad
	}
	return good
}

// person is a subject by its name in a policy, whose prefix may be left out.
func person(tenant, name string) (crmguard.Subject, error) {
	id := strings.TrimPrefix(name, "u:")
	if strings.HasPrefix(id, "role:") || strings.HasPrefix(id, "unit:") {
		return crmguard.Subject{}, fmt.Errorf("%s is no person, such as u:anna", plain(name))
	}
	kind := crmguard.KindEmployee
	if strings.HasPrefix(id, "system:") {
		kind = crmguard.KindSystem
	}
	return crmguard.Subject{Tenant: tenant, ID: id, Kind: kind}, nil
}

// openPolicy loads a policy from a file, or prints why it cannot be.
func (c *call) openPolicy(path string, org rbac.Org) (*rbac.Engine, bool) {
	engine, err := rbac.FromCSV(c, path, &rbac.Options{Org: org, Logger: slog.New(slog.DiscardHandler)})
	if refused, ok := errors.AsType[*rbac.PolicyError](err); ok {
		c.printErrors(path, filepath.Base(path), refused.Findings)
		return nil, false
	}
	if err != nil {
		c.fail(unable, "%v", err)
		return nil, false
	}
	return engine, true
}
