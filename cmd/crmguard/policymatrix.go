package main

import (
	"bytes"
	_ "embed" // for policymatrix.html
	"html/template"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// matrix is what the page shows.
type matrix struct {
	Name    string
	Tenants []tenantMatrix
}

type tenantMatrix struct {
	Tenant string
	Roles  []string
	Groups []matrixGroup
}

// matrixGroup is an object with its actions.
type matrixGroup struct {
	Object string
	Rows   []matrixRow
}

type matrixRow struct {
	Action string
	Cells  []matrixCell // one for each role
}

// matrixCell is what one role may do: scopes that allow, of which none is part of
// another, and those that deny.
type matrixCell struct{ Allow, Deny []string }

// Class is the widest scope, for the style: shared only if there is no other.
func (c matrixCell) Class() string {
	if len(c.Allow) == 0 {
		return "no"
	}
	return c.Allow[0]
}

// Text is what the cell says.
func (c matrixCell) Text() string {
	if len(c.Allow) == 0 {
		return "no"
	}
	text := strings.Join(c.Allow, ", ")
	if len(c.Deny) > 0 {
		text += ", not " + strings.Join(c.Deny, ", ")
	}
	return text
}

func drawMatrix(c *call) int {
	path := c.flags.String("policy", "", "the policy, a `FILE` in Casbin's CSV format")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if *path == "" {
		return c.misused("-policy is needed")
	}
	if _, ok := c.openPolicy(*path, nil); !ok {
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
	var page bytes.Buffer // so that a failure leaves no half of one
	if err := matrixTemplate.Execute(&page, p.matrix(filepath.Base(*path))); err != nil {
		return c.fail(unable, "%v", err)
	}
	if _, err := c.out.Write(page.Bytes()); err != nil {
		return c.fail(unable, "%v", err)
	}
	return good
}

func (p *policy) matrix(name string) matrix {
	m := matrix{Name: name}
	tenants, roles, rights := map[string]bool{}, map[holder]bool{}, map[right]bool{}
	for _, r := range p.rows {
		switch r.kind {
		case "p":
			tenants[r.tenant()] = true
			roles[holder{r.tenant(), r.subject()}] = true
			rights[right{holder{tenant: r.tenant()}, r.object(), r.action()}] = true
		case "g", "p2":
			tenants[r.fields[2]] = true
			roles[holder{r.fields[2], r.fields[0]}], roles[holder{r.fields[2], r.fields[1]}] = true, true
		}
	}
	for tenant := range tenants {
		t := tenantMatrix{Tenant: tenant}
		for h := range roles {
			if h.tenant == tenant && !isPerson(h.name) {
				t.Roles = append(t.Roles, h.name)
			}
		}
		slices.Sort(t.Roles)
		actions := map[string][]string{}
		for about := range rights {
			if about.tenant == tenant {
				actions[about.object] = append(actions[about.object], about.action)
			}
		}
		for object, of := range actions {
			group := matrixGroup{Object: object}
			slices.Sort(of)
			for _, action := range of {
				row := matrixRow{Action: action}
				for _, role := range t.Roles {
					row.Cells = append(row.Cells, p.cell(right{holder{tenant, role}, object, action}))
				}
				group.Rows = append(group.Rows, row)
			}
			t.Groups = append(t.Groups, group)
		}
		slices.SortFunc(t.Groups, func(a, b matrixGroup) int { return strings.Compare(a.Object, b.Object) })
		m.Tenants = append(m.Tenants, t)
	}
	slices.SortFunc(m.Tenants, func(a, b tenantMatrix) int { return strings.Compare(a.Tenant, b.Tenant) })
	return m
}

// cell is what a role may do, itself and through others.
func (p *policy) cell(about right) matrixCell {
	var allow, deny []string
	for _, h := range p.with(about.holder) {
		for _, r := range p.rules[right{h, about.object, about.action}] {
			if r.allows() {
				allow = append(allow, r.scope())
			} else {
				deny = append(deny, r.scope())
			}
		}
	}
	allow = slices.DeleteFunc(widest(allow), func(scope string) bool {
		return slices.ContainsFunc(deny, func(denied string) bool { return covers(denied, scope) })
	})
	return matrixCell{allow, widest(deny)}
}

// widest leaves out scopes that are part of others, and orders the rest.
func widest(scopes []string) (wide []string) {
	for _, scope := range []string{"own", "dept", "tree", "shared", "all"} {
		if slices.Contains(scopes, scope) && !slices.ContainsFunc(scopes, func(other string) bool { return other != scope && covers(other, scope) }) {
			wide = append(wide, scope)
		}
	}
	return wide
}
