package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
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
	err = filter.Load(ctx, tenant, document)
	if document != nil && len(document) == 0 {
		err = errors.New("they are empty") // which Load takes for rules that there never were
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
