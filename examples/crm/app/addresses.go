package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/ipfilter"
)

const addressSetting = "addresses"

// openAddresses puts the stored address rules in force.
func (a *App) openAddresses(ctx context.Context) (*ipfilter.Filter, error) {
	filter, err := ipfilter.New(a.vault.keys, a.rights, &ipfilter.Options{Marks: addressMarks{a.marks}, Logger: a.log})
	if err != nil {
		return nil, err
	}
	document, err := a.db.setting(ctx, addressSetting)
	if err != nil {
		return nil, err
	}
	err = errors.New("it is empty")
	if document == nil || len(document) > 0 {
		err = filter.Load(ctx, tenant, document)
	}
	switch {
	case errors.Is(err, ipfilter.ErrOlder):
		return nil, fmt.Errorf("the address rules in the database are older than those that were in force: somebody put an old state of the database back; put back a newer one, or remove %s from the keys folder if that was you (%w)", marksFile, err)
	case err != nil:
		return nil, fmt.Errorf("the address rules in the database were changed past the CRM: nobody was let in; put back a backup of the data (%w)", err)
	}
	return filter, nil
}

// edge tells from where a request comes.
func (a *App) edge() (func(*http.Request) (netip.Addr, error), error) {
	if len(a.cfg.Proxies) == 0 {
		return ipfilter.Edge(nil)
	}
	if a.cfg.Loopback {
		return nil, errors.New("behind a proxy others reach the CRM, so that Loopback and Proxies exclude each other")
	}
	return ipfilter.Edge(a.cfg.Proxies, a.cfg.ProxyHeader)
}

// ownersResource is what forcing a change is about: who may make owners may lock them
// out, and an administrator may not.
var ownersResource = crmguard.Resource{Tenant: tenant, Kind: "owners"}

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

// storeAddresses stores the next version over the one in force, together with its
// entry in the journal, and then puts it in force.
func (a *App) storeAddresses(ctx context.Context, next ipfilter.Document, done crmguard.Event) error {
	was, err := a.db.setting(ctx, addressSetting)
	if err != nil {
		return err
	}
	done.Policy = next.Policy()
	err = a.recorded(ctx, done, func(ctx context.Context, tx *sql.Tx) error {
		return swapSetting(ctx, tx, addressSetting, was, next.JSON)
	})
	if err != nil {
		return err
	}
	return a.addresses.Load(ctx, tenant, next.JSON)
}

// resetAddresses removes all rules: the way back in for whoever holds the keys
// folder. See [SendAddressReset].
func (a *App) resetAddresses(ctx context.Context) (version int64, err error) {
	ctx = crmguard.System(ctx, tenant, "addresses")
	a.settling.Lock()
	defer a.settling.Unlock()
	owners, err := a.knownOwners(ctx)
	if err != nil {
		return 0, err
	}
	next, err := a.addresses.Prepare(ctx, ipfilter.Rules{}, owners, &ipfilter.ChangeOptions{Force: true})
	if err != nil {
		return 0, err
	}
	e := systemEvent(ctx, crmguard.Configure, crmguard.Resource{Tenant: tenant, Kind: addressSetting}, a.now())
	e.Reason = "version:" + strconv.FormatInt(next.Version, 10) + ":reset"
	return next.Version, a.storeAddresses(ctx, next, e)
}
