package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

const departmentsHelp = `Departments stand in a CSV file; lines that begin with # say nothing:

  tenant, acme
  unit, sales
  unit, north, sales
  member, anna, north
  head, vera, sales

North is below sales, Anna works there, Vera heads sales. Each department has a line, and
"default" is the tenant of lines before the first that names one.
`

// departments are those of a file, by tenant. Each has a parent, be it an empty name.
type departments map[string]rbac.Units

// openDepartments reads departments and makes an Org of them; none if path is empty. It
// prints why they cannot be read.
func (c *call) openDepartments(path string) (departments, rbac.Org, bool) {
	if path == "" {
		return nil, nil, true
	}
	text, err := os.ReadFile(path) //nolint:gosec // the caller's own path
	if err != nil {
		c.fail(unable, "%v", err)
		return nil, nil, false
	}
	d, err := parseDepartments(string(text))
	if err != nil {
		c.fail(unable, "%s:%v", path, err)
		return nil, nil, false
	}
	org := &rbac.StaticOrg{}
	for tenant, units := range d {
		org.Set(tenant, units)
	}
	return d, org, true
}

// place is a department that a line names.
type place struct{ tenant, unit string }

// departmentsParser is what has been read so far.
type departmentsParser struct {
	departments
	tenant string
	lines  map[place]int // of the departments themselves
	named  map[place]int // where others name them first
}

// parseDepartments reads the file. An error begins with the number of the line.
func parseDepartments(text string) (departments, error) {
	p := departmentsParser{departments{}, crmguard.SingleTenant, map[place]int{}, map[place]int{}}
	r := csv.NewReader(strings.NewReader(text))
	r.Comment, r.TrimLeadingSpace, r.FieldsPerRecord = '#', true, -1
	for {
		fields, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			line := 1
			if parse, ok := errors.AsType[*csv.ParseError](err); ok {
				line, err = parse.Line, parse.Err
			}
			return nil, fmt.Errorf("%d: not a row: %w", line, err)
		}
		line, _ := r.FieldPos(0)
		if err := p.row(line, fields); err != nil {
			return nil, fmt.Errorf("%d: %w", line, err)
		}
	}
	return p.departments, p.check()
}

func (p *departmentsParser) row(line int, fields []string) error {
	if slices.ContainsFunc(fields, func(f string) bool { return f == "" || strings.TrimSpace(f) != f }) {
		return errors.New("a field is empty, or has spaces around it")
	}
	if fields[0] == "tenant" && len(fields) == 2 {
		p.tenant = fields[1]
		return nil
	}
	units, ok := p.departments[p.tenant]
	if !ok {
		units = rbac.Units{Parent: map[string]string{}, Members: map[string][]string{}, Heads: map[string][]string{}}
		p.departments[p.tenant] = units
	}
	switch {
	case fields[0] == "unit" && (len(fields) == 2 || len(fields) == 3):
		at := place{p.tenant, fields[1]}
		if p.lines[at] != 0 {
			return fmt.Errorf("the department %s has a line already: %d", plain(at.unit), p.lines[at])
		}
		p.lines[at], units.Parent[at.unit] = line, ""
		if len(fields) == 2 {
			return nil
		}
		units.Parent[at.unit] = fields[2]
	case fields[0] == "member" && len(fields) == 3:
		person := strings.TrimPrefix(fields[1], "u:")
		units.Members[person] = append(units.Members[person], fields[2])
	case fields[0] == "head" && len(fields) == 3:
		person := strings.TrimPrefix(fields[1], "u:")
		units.Heads[person] = append(units.Heads[person], fields[2])
	default:
		return errors.New("want tenant, NAME or unit, NAME[, ABOVE] or member, PERSON, UNIT or head, PERSON, UNIT")
	}
	if at := (place{p.tenant, fields[2]}); p.named[at] == 0 {
		p.named[at] = line
	}
	return nil
}

// check finds departments that are named and do not exist, and those below themselves.
func (p *departmentsParser) check() error {
	for at, line := range p.named {
		if p.lines[at] == 0 {
			return fmt.Errorf("%d: the department %s has no line of its own; is the name right?", line, plain(at.unit))
		}
		parent := p.departments[at.tenant].Parent
		for above, steps := parent[at.unit], 0; above != "" && steps < len(parent); above, steps = parent[above], steps+1 {
			if above == at.unit {
				return fmt.Errorf("%d: the department %s lies below itself", p.lines[at], plain(at.unit))
			}
		}
	}
	return nil
}
