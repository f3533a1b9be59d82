package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

var policyTest = command{
	name:  "policy test",
	args:  "FILE",
	about: "say which expectations a policy does not meet, and why",
	help: `Reads expectations, one a line, and asks the policy that the file names:

    policy policy.csv
    tenant acme
    # person  action  object          relation  answer
    anna      view    contacts        own       allow
    anna      read    contacts#phone  dept      deny
    anna      list    contacts                  allow
    oleg      access  section:journal           deny

The relation is what the person is to the record: none, own, dept, tree (of a department
below), headed (of a department that the person heads), dept+headed, tree+headed, shared,
or one of them but none with +shared. Without one the question is about the kind as a whole. The file of the policy is beside this one; the tenant is "default"
unless the file says otherwise. A name with spaces stands in double quotes.

A record can have an owner and a department instead, in a company whose departments a file
beside this one tells:

    departments departments.csv
    vera      view    contacts        owner:anna,unit:north,shared  allow

` + departmentsHelp + `

Exit codes: 0 all are met, 1 some are not, 2 not understood, 3 cannot be read, is no test,
or the policy is refused.
`,
	do: testPolicy,
}

// expectation is one line of a test.
type expectation struct {
	line     int
	placed   bool // the record has a place in the departments of the test, or an owner
	text     string
	subject  crmguard.Subject
	action   crmguard.Action
	resource crmguard.Resource
	allow    bool
}

// expectations are a test.
type expectations struct {
	policy, departments string
	list                []expectation
}

func testPolicy(c *call) int {
	rest, code, ok := c.parse(1)
	if !ok {
		return code
	}
	text, err := os.ReadFile(rest[0])
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	test, err := parseExpectations(string(text))
	if err != nil {
		return c.fail(unable, "%s:%v", rest[0], err)
	}
	org := &rbac.StaticOrg{}
	engine, ok := c.openPolicy(beside(rest[0], test.policy), org)
	if !ok {
		return unable
	}
	company, _, ok := c.openDepartments(beside(rest[0], test.departments))
	if !ok {
		return unable
	}
	unmet := 0
	for _, x := range test.list {
		units := company[x.subject.Tenant]
		if _, known := units.Parent[x.resource.Unit]; x.placed && x.resource.Unit != "" && !known {
			return c.fail(unable, "%s:%d: there is no department %s", rest[0], x.line, x.resource.Unit)
		}
		if !x.placed {
			units = around(x.subject.ID)
		}
		org.Set(x.subject.Tenant, units)
		why, err := engine.Explain(c, x.subject, x.action, x.resource)
		if err == nil {
			err = pointless(why)
		}
		if err != nil {
			return c.fail(unable, "%s:%d: %v", rest[0], x.line, err)
		}
		if (why.Denial == nil) == x.allow {
			continue
		}
		unmet++
		fmt.Fprintf(c.out, "%s:%d: not met: %s\n  %s", plain(rest[0]), x.line, plain(x.text), strings.ReplaceAll(strings.TrimSuffix(why.String(), "\n"), "\n", "\n  ")+"\n")
	}
	fmt.Fprintf(c.out, "%s: %s, %d not met\n", plain(rest[0]), count(len(test.list), "expectation"), unmet)
	if unmet > 0 {
		return bad
	}
	return good
}

// beside is a path that a file names, as seen from the file.
func beside(file, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// pointless refuses questions that no policy answers with yes: a test that expects a no
// would be met whatever the policy says.
func pointless(why rbac.Explanation) error {
	if why.Denial == nil {
		return nil
	}
	switch {
	case why.Denial.Code == "no-record":
		return fmt.Errorf("%s is done to one record: say what it is to the person, such as own", plain(string(why.Action)))
	case why.Denial.Code == "no-rule" && len(why.By[0].Missing) == 0:
		return errors.New("no row of a policy could allow it; are the names right?")
	case len(why.By) == 0:
		return why.Denial
	}
	return nil
}

// The departments around a person in whose relation to a record alone a test is interested.
const (
	home     = "home"     // the person's
	under    = "under"    // below it
	led      = "led"      // the person's as its head
	ledHome  = "ledHome"  // both
	ledBelow = "ledBelow" // below home, and the person's as its head
)

func around(person string) rbac.Units {
	return rbac.Units{
		Parent:  map[string]string{under: home, ledBelow: home},
		Members: map[string][]string{person: {home, ledHome}},
		Heads:   map[string][]string{person: {led, ledHome, ledBelow}},
	}
}

// places are what a record of each relation is like, sharing left aside; its owner, if it
// has one, is the person.
var places = map[string]struct {
	owned bool
	unit  string
}{
	"none": {}, "own": {owned: true}, "dept": {unit: home}, "tree": {unit: under},
	"headed": {unit: led}, "dept+headed": {unit: ledHome}, "tree+headed": {unit: ledBelow},
}

func parseExpectations(text string) (expectations, error) {
	test, tenant, number := expectations{}, crmguard.SingleTenant, 0
	for line := range strings.Lines(text) {
		number++
		words, err := splitWords(line)
		if err != nil {
			return test, fmt.Errorf("%d: %w", number, err)
		}
		switch {
		case len(words) == 0:
			continue
		case len(words) == 2 && words[0] == "policy" && test.policy == "":
			test.policy = words[1]
		case len(words) == 2 && words[0] == "departments" && test.departments == "":
			test.departments = words[1]
		case len(words) == 2 && words[0] == "tenant":
			tenant = words[1]
		default:
			x, err := expect(tenant, words)
			if err != nil {
				return test, fmt.Errorf("%d: %w", number, err)
			}
			x.line, x.text = number, strings.Join(words, " ")
			test.list = append(test.list, x)
		}
	}
	switch {
	case test.policy == "":
		return test, errors.New(" no line says which policy, such as: policy policy.csv")
	case len(test.list) == 0:
		return test, errors.New(" nothing is expected in it")
	}
	return test, nil
}

func expect(tenant string, words []string) (x expectation, err error) {
	const form = "want: person action object [relation] allow|deny"
	if len(words) != 4 && len(words) != 5 {
		return x, fmt.Errorf("%s; %s", count(len(words), "word"), form)
	}
	answer := words[len(words)-1]
	if !slices.Contains([]string{"allow", "deny"}, answer) {
		return x, fmt.Errorf("%s is neither allow nor deny; %s", plain(answer), form)
	}
	x.allow = answer == "allow"
	if x.subject, err = person(tenant, words[0]); err != nil {
		return x, err
	}
	x.action = crmguard.Action(words[1])
	x.resource.Tenant = tenant
	x.resource.Kind, x.resource.Field, _ = strings.Cut(words[2], "#")
	if len(words) == 4 {
		return x, nil
	}
	x.resource.ID = "1"
	if strings.HasPrefix(words[2], "section:") || !x.relate(words[3]) && !x.place(words[3]) {
		return x, fmt.Errorf("%s is no relation to %s; %s", plain(words[3]), plain(words[2]), form)
	}
	return x, nil
}

// relate makes the record one to which the person has a relation.
func (x *expectation) relate(relation string) bool {
	word, shared := strings.CutSuffix(relation, "+shared")
	is, ok := places[word]
	switch {
	case shared && word == "none":
		ok = false
	case word == "shared":
		shared, ok = true, !shared
	}
	x.resource.Unit, x.resource.Shared = is.unit, shared
	if is.owned {
		x.resource.Owner = x.subject.ID
	}
	return ok
}

// place gives the record an owner, a department or both, such as owner:anna,unit:north.
func (x *expectation) place(text string) bool {
	x.resource.Owner, x.resource.Unit, x.resource.Shared, x.placed = "", "", false, true
	for part := range strings.SplitSeq(text, ",") {
		owner, isOwner := strings.CutPrefix(part, "owner:")
		unit, isUnit := strings.CutPrefix(part, "unit:")
		switch {
		case isOwner && owner != "" && x.resource.Owner == "":
			x.resource.Owner = strings.TrimPrefix(owner, "u:")
		case isUnit && unit != "" && x.resource.Unit == "":
			x.resource.Unit = unit
		case part == "shared" && !x.resource.Shared:
			x.resource.Shared = true
		default:
			return false
		}
	}
	return true
}

// splitWords splits a line at white space. A word in double quotes is a string of Go;
// a line that begins with # has no words.
func splitWords(line string) (words []string, err error) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") {
		return nil, nil
	}
	for line != "" {
		word := strings.Fields(line)[0]
		if line[0] == '"' {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, errors.New("a double quote is not closed")
			}
			line = line[len(quoted):]
			if word, err = strconv.Unquote(quoted); err != nil {
				return nil, errors.New("what stands in double quotes is not understood")
			}
		} else {
			line = line[len(word):]
		}
		words = append(words, word)
		line = strings.TrimSpace(line)
	}
	return words, nil
}
