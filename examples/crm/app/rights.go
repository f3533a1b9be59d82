package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

// policyMarks are the marks of the policy, as rbacsql wants them.
type policyMarks struct{ *versionMarks }

// Raise implements rbacsql.Marks.
func (m policyMarks) Raise(_ context.Context, document string, version int64) (int64, error) {
	return m.raise(document, version)
}

// openPolicy opens the tables of the policy.
func (a *App) openPolicy(ctx context.Context) (*rbacsql.Adapter, error) {
	return rbacsql.New(ctx, a.db.DB, a.vault.keys, &rbacsql.Options{
		Tenant: tenant, Marks: policyMarks{a.marks}, Journal: a.recorder, Logger: a.log, Clock: a.cfg.Clock,
	})
}

// openRights puts the stored policy in force, where policy.csv goes once. Nobody watches
// for what others change: the database is this process's alone.
func (a *App) openRights(ctx context.Context) (*rbac.Engine, error) {
	policy, err := a.openPolicy(ctx)
	if err != nil {
		return nil, err
	}
	a.policy = policy
	job := crmguard.System(ctx, tenant, "policy")
	if a.cfg.AdoptRights != "" {
		if _, err := policy.Adopt(job, a.cfg.AdoptRights); err != nil {
			return nil, err
		}
	}
	head, err := policy.Head(ctx)
	if err == nil && head.Number == 0 {
		err = a.firstPolicy(job, policy)
	}
	var rights *rbac.Engine
	if err == nil {
		rights, err = rbac.New(ctx, policy, &rbac.Options{Org: &a.people.org, Logger: a.log, Clock: a.cfg.Clock})
	}
	switch {
	case errors.Is(err, rbacsql.ErrOlder):
		return nil, fmt.Errorf("the rights in the database are older than those that were in force: somebody put an old state of the database back; put back a newer one, or start once with -adopt-rights if that was you (%w)", err)
	case errors.Is(err, rbacsql.ErrTampered):
		return nil, fmt.Errorf("the rights in the database were changed past the CRM: nobody was let in; put back a backup of the data, or start once with -adopt-rights if that was you (%w)", err)
	case err != nil:
		return nil, fmt.Errorf("the rights in the table casbin_rule cannot be used: %w", err)
	}
	return rights, nil
}

// firstPolicy makes the first version: out of policy.csv, or of what a CRM has left
// that kept no versions yet.
func (a *App) firstPolicy(ctx context.Context, policy *rbacsql.Adapter) error {
	ctx = rbac.WithReason(ctx, "first-start")
	var rules [][]string
	for _, row := range policyRows() {
		rules = append(rules, row[1:])
	}
	err := policy.AddPoliciesCtx(ctx, "p", "p", rules)
	if errors.Is(err, rbacsql.ErrUnversioned) {
		_, err = policy.Adopt(ctx, "rows of a CRM that kept no versions")
	}
	return err
}
