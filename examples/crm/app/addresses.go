package app

import (
	"context"
	"fmt"

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
	if err := filter.Load(ctx, tenant, document); err != nil {
		return nil, fmt.Errorf("the address rules in the settings cannot be used: %w", err)
	}
	return filter, nil
}
