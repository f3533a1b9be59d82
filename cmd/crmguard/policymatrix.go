package main

import (
	"bytes"
	_ "embed" // for policymatrix.html
	"html/template"
	"path/filepath"
	"slices"

	"github.com/crmguard/crmguard/rbac"
)

var policyMatrix = command{
	name:  "policy matrix",
	args:  "-policy FILE > PAGE.html",
	about: "show roles, what they may do and on whose records as one HTML page",
	help: `Prints a page that needs nothing but itself: for each tenant a table of what there is a rule
about, with a column for each role and department that has rules or roles, those included
that they have through other roles. Rights of persons alone are not in it.

Exit codes: 0 done, 2 not understood, 3 the policy cannot be read, or is refused.
`,
	do: drawMatrix,
}

//go:embed policymatrix.html
var matrixPage string

var matrixTemplate = template.Must(template.New("matrix").Parse(matrixPage))

// matrixView is what the page shows.
type matrixView struct {
	Name    string
	Tenants []tenantMatrix
}

type tenantMatrix struct {
	Tenant string
	rbac.Matrix
}

func drawMatrix(c *call) int {
	path := c.flags.String("policy", "", "the policy, a `FILE` in Casbin's CSV format")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if *path == "" {
		return c.misused("-policy is needed")
	}
	engine, ok := c.openPolicy(*path, nil)
	if !ok {
		return unable
	}
	tenants, err := tenantsIn(*path)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	view := matrixView{Name: filepath.Base(*path)}
	slices.Sort(tenants)
	for _, tenant := range slices.Compact(tenants) {
		m, err := engine.Matrix(c, tenant)
		if err != nil {
			return c.fail(unable, "%v", err)
		}
		view.Tenants = append(view.Tenants, tenantMatrix{tenant, m})
	}
	var page bytes.Buffer // so that a failure leaves no half of one
	if err := matrixTemplate.Execute(&page, view); err != nil {
		return c.fail(unable, "%v", err)
	}
	if _, err := c.out.Write(page.Bytes()); err != nil {
		return c.fail(unable, "%v", err)
	}
	return good
}
