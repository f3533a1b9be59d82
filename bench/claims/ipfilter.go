package main

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/ipfilter"
)

// ipfilterClaims compare a check on three levels to the look-ups in maps and tables
// that it consists of.
func ipfilterClaims() []claim {
	return []claim{{name: "ipfilter.check", unit: "ns", direction: atMost, limit: 1.5, open: openAddressCheck}}
}

// prefixes are n networks of 256 addresses in 10.0.0.0/8 and above, from the
// given one on.
func prefixes(n, from int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|uint32(from+i)<<8) // #nosec G115 -- small numbers
		out[i] = netip.PrefixFrom(netip.AddrFrom4(a), 24)
	}
	return out
}

// bareRules are the same lists without anything around them.
type bareRules struct {
	companyAllow, companyDeny *bart.Lite
	roles, people             map[string]*[2]*bart.Lite // allow, deny
}

func bareTable(list []netip.Prefix) *bart.Lite {
	t := new(bart.Lite)
	for _, p := range list {
		t.Insert(p)
	}
	return t
}

func (t *bareRules) allows(person string, roles []string, addr netip.Addr) bool {
	if t.companyDeny.Contains(addr) {
		return false
	}
	own := t.people[person]
	if own != nil && own[1].Contains(addr) {
		return false
	}
	var byRole *bart.Lite
	for _, name := range roles {
		if role := t.roles[name]; role != nil {
			if role[1].Contains(addr) {
				return false
			}
			byRole = role[0]
		}
	}
	switch {
	case own != nil:
		return own[0].Contains(addr)
	case byRole != nil:
		return byRole.Contains(addr)
	}
	return t.companyAllow.Contains(addr)
}

// openAddressCheck asks about a person whose role has the deciding list, among
// 10,000 prefixes in the lists of the company, of a role and of a thousand people.
func openAddressCheck(ctx context.Context, _ *servers) (trial, error) {
	rules := ipfilter.Rules{
		Company: ipfilter.List{Allow: prefixes(3000, 0), Deny: prefixes(2000, 20_000)},
		Roles:   map[string]ipfilter.List{"seller": {Allow: prefixes(2000, 0), Deny: prefixes(2000, 30_000)}},
		People:  map[string]ipfilter.List{},
	}
	for _, p := range prefixes(1000, 0) {
		rules.People["u"+p.String()] = ipfilter.List{Allow: []netip.Prefix{p}}
	}
	bare := map[string]*bareRules{"default": {
		companyAllow: bareTable(rules.Company.Allow), companyDeny: bareTable(rules.Company.Deny),
		roles: map[string]*[2]*bart.Lite{}, people: map[string]*[2]*bart.Lite{},
	}, "other": {}, "third": {}}
	for name, l := range rules.Roles {
		bare["default"].roles[name] = &[2]*bart.Lite{bareTable(l.Allow), bareTable(l.Deny)}
	}
	for name, l := range rules.People {
		bare["default"].people[name] = &[2]*bart.Lite{bareTable(l.Allow), bareTable(l.Deny)}
	}
	s := crmguard.Subject{Tenant: "default", ID: "boris", Kind: crmguard.KindEmployee, Roles: []string{"seller"}, Addr: netip.MustParseAddr("10.0.7.7")}
	filter, err := ipfilter.New(crmguardtest.NewKeys(), nobody{}, &ipfilter.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return trial{}, err
	}
	for _, tenant := range []string{"default", "other", "third"} {
		if err := filter.Load(ctx, tenant, nil); err != nil {
			return trial{}, err
		}
	}
	document, err := filter.Prepare(crmguard.WithSubject(ctx, s), rules, []ipfilter.Owner{{ID: s.ID}}, &ipfilter.ChangeOptions{Force: true})
	if err == nil {
		err = filter.Load(ctx, "default", document.JSON)
	}
	if err != nil {
		return trial{}, err
	}
	var checker crmguard.Checker = filter
	contact := crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "17"}
	return trial{
		ours: perOp(func() error { return checker.Check(ctx, s, crmguard.View, contact) }),
		peer: perOp(func() error {
			if !bare[s.Tenant].allows(s.ID, s.Roles, s.Addr) {
				return errors.New("refused")
			}
			return nil
		}),
	}, nil
}

// nobody has roles beyond those that a subject brings along.
type nobody struct{}

func (nobody) Resolve(context.Context, string, string) (roles, units []string, err error) {
	return nil, nil, nil
}
