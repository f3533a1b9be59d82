package ipfilter

import (
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/crmguard/crmguard"
)

// Levels of rules, from the widest to the narrowest.
const (
	levelCompany = "company"
	levelRole    = "role"
	levelPerson  = "person"
)

// Codes of the denials of this package. All have status Forbidden. The journal
// keeps them, so that they tell the level.
const (
	CodeNoAddress       = "no-address" // the address of the request is not known
	CodeCompanyDenied   = "company-denied"
	CodeRoleDenied      = "role-denied"
	CodePersonDenied    = "person-denied"
	CodeCompanyUnlisted = "company-unlisted"
	CodeRoleUnlisted    = "role-unlisted"
	CodePersonUnlisted  = "person-unlisted"
)

// Answer is a decision with its grounds.
type Answer struct {
	Allowed bool
	Code    string       // why not; empty if Allowed
	Addr    netip.Addr   // in the form in which it was compared
	Level   string       // "company", "role" or "person": whose list decided; empty: no list did
	Name    string       // of the role or person
	Prefix  netip.Prefix // the narrowest entry of that list that contains Addr, if one does
	Version int64        // of the rules
}

// String says it in one line, for the journal.
func (a Answer) String() string {
	who := "the company"
	if a.Name != "" {
		who = a.Level + " " + a.Name
	}
	rules := fmt.Sprintf("rules %d", a.Version)
	switch {
	case a.Code == CodeNoAddress:
		return "the address is not known; " + rules
	case a.Level == "" && !a.Addr.IsValid():
		return "a job of the host has no address; " + rules
	case a.Level == "":
		return fmt.Sprintf("%v: no list restricts it; %s", a.Addr, rules)
	case a.Allowed:
		return fmt.Sprintf("%v is in %v, which %s allows; %s", a.Addr, a.Prefix, who, rules)
	case a.Prefix.IsValid():
		return fmt.Sprintf("%v is in %v, which %s denies; %s", a.Addr, a.Prefix, who, rules)
	}
	return fmt.Sprintf("%v is in no prefix that %s allows; %s", a.Addr, who, rules)
}

func (a Answer) denial() *crmguard.Denial {
	return &crmguard.Denial{By: "ipfilter", Code: a.Code, Status: crmguard.Forbidden, Detail: a.String()}
}

// compiled is one version of the rules of a tenant. It never changes.
type compiled struct {
	document Document
	company  *tables
	roles    map[string]*tables
	people   map[string]*tables
	denied   *bart.Lite // all deny lists together: most addresses are in none
}

type tables struct {
	allow, deny *bart.Lite // nil: nothing said
}

func compile(d Document) *compiled {
	c := &compiled{document: d, roles: map[string]*tables{}, people: map[string]*tables{}}
	var denied []netip.Prefix
	tablesOf := func(l List) *tables {
		denied = append(denied, l.Deny...)
		return &tables{table(l.Allow), table(l.Deny)}
	}
	c.company = tablesOf(d.Rules.Company)
	for name, l := range d.Rules.Roles {
		c.roles[name] = tablesOf(l)
	}
	for name, l := range d.Rules.People {
		c.people[name] = tablesOf(l)
	}
	c.denied = table(denied)
	return c
}

// ground is why a verdict is what it is.
type ground uint8

const (
	noList ground = iota
	noAddress
	companyAllows
	companyDenies
	companyLacks
	roleAllows
	roleDenies
	roleLacks
	personAllows
	personDenies
	personLacks
)

var grounds = [...]struct{ code, level string }{
	noList:        {"", ""},
	noAddress:     {CodeNoAddress, ""},
	companyAllows: {"", levelCompany},
	companyDenies: {CodeCompanyDenied, levelCompany},
	companyLacks:  {CodeCompanyUnlisted, levelCompany},
	roleAllows:    {"", levelRole},
	roleDenies:    {CodeRoleDenied, levelRole},
	roleLacks:     {CodeRoleUnlisted, levelRole},
	personAllows:  {"", levelPerson},
	personDenies:  {CodePersonDenied, levelPerson},
	personLacks:   {CodePersonUnlisted, levelPerson},
}

// verdict is an Answer in the making. It fits into two registers, because most are
// a yes that nobody asks about.
type verdict struct {
	ground ground
	role   int // index of the role that decided
}

func (v verdict) code() string { return grounds[v.ground].code }

// decide compares an address, which is bare.
func (c *compiled) decide(addr netip.Addr, person string, roles []string) verdict {
	if !addr.IsValid() || addr.IsUnspecified() {
		return verdict{ground: noAddress}
	}
	own := c.people[person]
	if own == nil {
		own = &noTables
	}
	if contains(c.denied, addr) {
		if v := c.deny(addr, own, roles); v.ground != noList {
			return v
		}
	}
	return c.allow(addr, own, roles)
}

// deny asks every deny list: all of them hold.
func (c *compiled) deny(addr netip.Addr, own *tables, roles []string) verdict {
	if contains(c.company.deny, addr) {
		return verdict{ground: companyDenies}
	}
	if contains(own.deny, addr) {
		return verdict{ground: personDenies}
	}
	for i, name := range roles {
		if role := c.roles[name]; role != nil && contains(role.deny, addr) {
			return verdict{roleDenies, i}
		}
	}
	return verdict{}
}

// allow asks the allow lists of the narrowest level that has one: the person's; or
// else those of the roles, each of them, so that what a role promises does not
// depend on which others its holder has; or else the company's.
func (c *compiled) allow(addr netip.Addr, own *tables, roles []string) verdict {
	if own.allow != nil {
		if own.allow.Contains(addr) {
			return verdict{ground: personAllows}
		}
		return verdict{ground: personLacks}
	}
	var byRoles verdict
	for i, name := range roles {
		role := c.roles[name]
		if role == nil || role.allow == nil {
			continue
		}
		if !role.allow.Contains(addr) {
			return verdict{roleLacks, i}
		}
		byRoles = verdict{roleAllows, i}
	}
	switch {
	case byRoles.ground != noList:
		return byRoles
	case c.company.allow == nil:
		return verdict{}
	case c.company.allow.Contains(addr):
		return verdict{ground: companyAllows}
	}
	return verdict{ground: companyLacks}
}

var noTables tables

func contains(t *bart.Lite, addr netip.Addr) bool { return t != nil && t.Contains(addr) }

// answer adds to a verdict what a reader wants to know.
func (c *compiled) answer(v verdict, addr netip.Addr, person string, roles []string) Answer {
	g := grounds[v.ground]
	a := Answer{Allowed: g.code == "", Code: g.code, Addr: addr, Level: g.level, Version: c.document.Version}
	decided := c.company
	switch g.level {
	case levelRole:
		a.Name = roles[v.role]
		decided = c.roles[a.Name]
	case levelPerson:
		a.Name = person
		decided = c.people[person]
	}
	list := decided.allow
	switch v.ground {
	case companyDenies, roleDenies, personDenies:
		list = decided.deny
	case companyAllows, roleAllows, personAllows:
	default:
		return a // no entry matched
	}
	a.Prefix, _ = list.LookupPrefixLPM(netip.PrefixFrom(addr, addr.BitLen()))
	return a
}
