package rbac

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/policylog"
)

// A [Store] enters changes in a journal for all who make them. Through another adapter the
// engine is the only one who knows of them, and does it here.

// entered makes a change with an entry before and after it.
func (e *Engine) entered(ctx context.Context, c policylog.Change, change func() error) error {
	c.Reason, c.Policy = ReasonFrom(ctx), e.Version()
	entry, err := e.entries.Begin(ctx, c)
	if err != nil {
		return fmt.Errorf("rbac: %w", err)
	}
	err = change()
	failure := ""
	if err != nil {
		failure = "error"
	}
	entry.End(ctx, e.Version(), failure)
	return err
}

// enterLoaded enters what others have changed, a tenant at a time.
func (e *Engine) enterLoaded(ctx context.Context, old, next *snapshot) {
	if e.entries.Journal == nil || old == nil || old.version == next.version {
		return
	}
	was, is := keysOf(old.rows.all()), keysOf(next.rows.all())
	changes := map[string]*policylog.Change{}
	of := func(r row) *policylog.Change {
		tenant := r.tenant()
		if changes[tenant] == nil {
			changes[tenant] = &policylog.Change{Tenant: tenant, Code: "loaded", Policy: next.version}
		}
		return changes[tenant]
	}
	for _, r := range next.rows.all() {
		if !was[r.key()] {
			of(r).Added = append(of(r).Added, r.rule())
		}
	}
	for _, r := range old.rows.all() {
		if !is[r.key()] {
			of(r).Removed = append(of(r).Removed, r.rule())
		}
	}
	for tenant, change := range changes {
		e.entries.Found(crmguard.System(ctx, tenant, "policy"), *change)
	}
}
