package app

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/ipfilter"
)

// ownersResource is what a change that concerns owners is about: who may make owners may
// lock them out, and an administrator may not.
var ownersResource = crmguard.Resource{Tenant: tenant, Kind: "owners"}

// prepareAddresses makes the next version of the rules. A lockout says why it did not: the
// rules lock out their author or the last owner, which an owner can force, or they take
// an address from an owner, which only owners do.
func (a *App) prepareAddresses(ctx context.Context, rules ipfilter.Rules, force bool) (next ipfilter.Document, lockout []string, err error) {
	mayNot := a.guard.Check(ctx, crmguard.Grant, ownersResource)
	if force && mayNot != nil {
		return next, nil, mayNot
	}
	owners, err := a.knownOwners(ctx)
	if err != nil {
		return next, nil, err
	}
	next, err = a.addresses.Prepare(ctx, rules, owners, &ipfilter.ChangeOptions{Force: force})
	if lockout, ok := errors.AsType[*ipfilter.LockoutError](err); ok {
		return next, lockoutLines(subjectOf(ctx).ID, lockout), nil
	}
	if err == nil && mayNot != nil {
		lockout, err = a.takenFromOwners(ctx, next, owners)
	}
	return next, lockout, err
}

// knownOwners are the owners who could undo a change of the rules, with the addresses
// from where they are signed in.
func (a *App) knownOwners(ctx context.Context) ([]ipfilter.Owner, error) {
	open, err := a.openOwners(ctx)
	if err != nil {
		return nil, err
	}
	var owners []ipfilter.Owner
	for _, login := range open {
		owner := ipfilter.Owner{ID: login}
		sessions, err := a.sessions.List(ctx, tenant, login)
		if err != nil {
			return nil, err
		}
		for _, s := range sessions {
			if s.Addr.IsValid() && !slices.Contains(owner.Addrs, s.Addr) {
				owner.Addrs = append(owner.Addrs, s.Addr)
			}
		}
		owners = append(owners, owner)
	}
	return owners, nil
}

// takenFromOwners says from which owners rules take an address from where they may come
// now. For who is signed in the addresses of the sessions count; for who is not, or
// whose own lists change, every address does.
func (a *App) takenFromOwners(ctx context.Context, next ipfilter.Document, owners []ipfilter.Owner) (lines []string, err error) {
	was, _ := a.addresses.InForce(tenant)
	then, err := ipfilter.New(a.vault.keys, a.rights, &ipfilter.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if err := then.Load(ctx, tenant, next.JSON); err != nil {
		return nil, err
	}
	everywhere := edges(was.Rules, next.Rules)
	for _, owner := range owners {
		s := crmguard.Subject{Tenant: tenant, ID: owner.ID, Kind: employee}
		if s.Roles, _, err = a.rights.Resolve(ctx, tenant, owner.ID); err != nil {
			return nil, err
		}
		refused, err := a.firstLost(ctx, then, s, owner.Addrs)
		if err != nil {
			return nil, err
		}
		if refused.Addr.IsValid() {
			lines = append(lines, owner.ID+": "+why(refused))
			continue
		}
		if len(owner.Addrs) > 0 && sameLists(was.Rules, next.Rules, s) {
			continue
		}
		if refused, err = a.firstLost(ctx, then, s, everywhere); err != nil {
			return nil, err
		}
		if refused.Addr.IsValid() {
			lines = append(lines, owner.ID+": could come from fewer addresses than now")
		}
	}
	return lines, nil
}

// firstLost returns the first refusal, if there is one, of an address that the rules in
// force allow.
func (a *App) firstLost(ctx context.Context, then *ipfilter.Filter, s crmguard.Subject, addrs []netip.Addr) (refused ipfilter.Answer, err error) {
	for _, s.Addr = range addrs {
		now, err := a.addresses.Explain(ctx, s)
		if err != nil {
			return refused, err
		}
		later, err := then.Explain(ctx, s)
		if err != nil {
			return refused, err
		}
		if now.Allowed && !later.Allowed {
			return later, nil
		}
	}
	return refused, nil
}

// sameLists reports whether two versions of the rules say the same about a person and
// the person's roles.
func sameLists(was, next ipfilter.Rules, s crmguard.Subject) bool {
	same := func(a, b ipfilter.List) bool { return slices.Equal(a.Allow, b.Allow) && slices.Equal(a.Deny, b.Deny) }
	return same(was.People[s.ID], next.People[s.ID]) && !slices.ContainsFunc(s.Roles, func(role string) bool {
		return !same(was.Roles[role], next.Roles[role])
	})
}

// edges are addresses that stand for all: between one and the next, no prefix of any of
// the rules begins or ends.
func edges(versions ...ipfilter.Rules) []netip.Addr {
	addrs := []netip.Addr{netip.IPv4Unspecified().Next(), netip.IPv6Unspecified().Next()} // the unspecified are nobody's
	for _, rules := range versions {
		lists := append(slices.Collect(maps.Values(rules.Roles)), rules.Company)
		for _, list := range slices.AppendSeq(lists, maps.Values(rules.People)) {
			for _, prefix := range slices.Concat(list.Allow, list.Deny) {
				addrs = append(addrs, prefix.Addr())
				if behind := lastOf(prefix).Next(); behind.IsValid() {
					addrs = append(addrs, behind)
				}
			}
		}
	}
	return addrs
}

// lastOf returns the last address of a prefix without host bits.
func lastOf(prefix netip.Prefix) netip.Addr {
	last := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(last) // of the length that it had
	return addr
}

// lockoutLines puts into words whom rules would lock out.
func lockoutLines(author string, e *ipfilter.LockoutError) []string {
	var lines []string
	say := func(who string, a ipfilter.Answer) {
		if line := who + ": " + why(a); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if e.Author != nil {
		say("You", *e.Author)
	}
	for _, owner := range e.Owners {
		who := owner.ID
		if who == author {
			who = "You"
		}
		for _, answer := range owner.Answers {
			say(who, answer)
		}
		if len(owner.Answers) == 0 {
			lines = append(lines, who+": not signed in, so nobody knows from where")
		}
	}
	if e.Owners != nil {
		lines = append(lines, "No owner is known to get in then")
	}
	return lines
}

// why is an answer without the version of the rules, which are not in force.
func why(a ipfilter.Answer) string {
	text, _, _ := strings.Cut(a.String(), "; rules ")
	return text
}
