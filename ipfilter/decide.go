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
	who := a.Level
	if a.Name != "" {
		who += " " + a.Name
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
		return fmt.Sprintf("%v is in %v, which the list of %s allows; %s", a.Addr, a.Prefix, who, rules)
	case a.Prefix.IsValid():
		return fmt.Sprintf("%v is in %v, which the list of %s denies; %s", a.Addr, a.Prefix, who, rules)
	}
	return fmt.Sprintf("%v is not in the list of what %s allows; %s", a.Addr, who, rules)
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
}

type tables struct {
	allow, deny *bart.Lite // nil: nothing said
}

func newTables(l List) *tables { return &tables{table(l.Allow), table(l.Deny)} }

func compile(d Document) *compiled {
	c := &compiled{document: d, company: newTables(d.Rules.Company), roles: map[string]*tables{}, people: map[string]*tables{}}
	for name, l := range d.Rules.Roles {
		c.roles[name] = newTables(l)
	}
	for name, l := range d.Rules.People {
		c.people[name] = newTables(l)
	}
	return c
}

// verdict is an Answer in the making: cheap, because most are a yes that nobody
// looks at.
type verdict struct {
	code  string // empty: yes
	level string
	name  string
	list  *bart.Lite // that decided
}

// decide compares an address, which is bare. All deny lists hold. Of the allow
// lists the narrowest level counts: the person's; or else those of the roles, each
// of them, so that what a role promises does not depend on which others its holder
// has; or else the company's.
func (c *compiled) decide(addr netip.Addr, person string, roles []string) verdict {
	if !addr.IsValid() || addr.IsUnspecified() {
		return verdict{code: CodeNoAddress}
	}
	if deny := c.company.deny; deny != nil && deny.Contains(addr) {
		return verdict{CodeCompanyDenied, levelCompany, "", deny}
	}
	own := c.people[person]
	if own != nil && own.deny != nil && own.deny.Contains(addr) {
		return verdict{CodePersonDenied, levelPerson, person, own.deny}
	}
	var byRoles verdict // by the allow lists of roles
	if len(c.roles) > 0 {
		for _, name := range roles {
			role := c.roles[name]
			if role == nil {
				continue
			}
			if role.deny != nil && role.deny.Contains(addr) {
				return verdict{CodeRoleDenied, levelRole, name, role.deny}
			}
			if role.allow != nil && byRoles.code == "" {
				byRoles = verdict{"", levelRole, name, role.allow}
				if !role.allow.Contains(addr) {
					byRoles.code = CodeRoleUnlisted
				}
			}
		}
	}
	switch {
	case own != nil && own.allow != nil:
		if own.allow.Contains(addr) {
			return verdict{"", levelPerson, person, own.allow}
		}
		return verdict{CodePersonUnlisted, levelPerson, person, own.allow}
	case byRoles.list != nil:
		return byRoles
	case c.company.allow != nil:
		if c.company.allow.Contains(addr) {
			return verdict{"", levelCompany, "", c.company.allow}
		}
		return verdict{CodeCompanyUnlisted, levelCompany, "", c.company.allow}
	}
	return verdict{}
}

// answer adds to a verdict what a reader wants to know.
func (c *compiled) answer(v verdict, addr netip.Addr) Answer {
	a := Answer{Allowed: v.code == "", Code: v.code, Addr: addr, Level: v.level, Name: v.name, Version: c.document.Version}
	if v.list != nil {
		if p, ok := v.list.LookupPrefixLPM(netip.PrefixFrom(addr, addr.BitLen())); ok {
			a.Prefix = p
		}
	}
	return a
}
