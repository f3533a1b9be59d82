package rbacsql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"

	"github.com/crmguard/crmguard/rbac"
)

// LoadPolicyCtx adds all rows to a Casbin model.
func (a *Adapter) LoadPolicyCtx(ctx context.Context, m model.Model) error {
	stored, err := a.Load(ctx)
	if err != nil {
		return err
	}
	for i, rule := range stored.Rules {
		if rule[0] == "" {
			return fmt.Errorf("rbacsql: %s has no ptype", stored.Where[i])
		}
		if err := persist.LoadPolicyArray(rule, m); err != nil {
			return fmt.Errorf("rbacsql: %s: %w", stored.Where[i], err)
		}
	}
	return nil
}

// SavePolicyCtx replaces all rows by those of a Casbin model, as one version.
func (a *Adapter) SavePolicyCtx(ctx context.Context, m model.Model) error {
	var rules [][]string
	for _, section := range []string{"p", "g"} {
		for kind, assertion := range m[section] {
			rules = append(rules, withType(kind, assertion.Policy)...)
		}
	}
	return a.update(ctx, "save", func(stored [][]string) (add, remove [][]string) {
		return rules, without(stored, keys(rules))
	})
}

// AddPolicyCtx adds one row; one that is there already stays as it is.
func (a *Adapter) AddPolicyCtx(ctx context.Context, section, kind string, rule []string) error {
	return a.AddPoliciesCtx(ctx, section, kind, [][]string{rule})
}

// AddPoliciesCtx adds rows, all or none, as one version.
func (a *Adapter) AddPoliciesCtx(ctx context.Context, _, kind string, rules [][]string) error {
	rules = withType(kind, rules)
	return a.update(ctx, "add", func([][]string) (add, remove [][]string) { return rules, nil })
}

// RemovePolicyCtx removes one row; none is no error.
func (a *Adapter) RemovePolicyCtx(ctx context.Context, section, kind string, rule []string) error {
	return a.RemovePoliciesCtx(ctx, section, kind, [][]string{rule})
}

// RemovePoliciesCtx removes rows, all or none, as one version.
func (a *Adapter) RemovePoliciesCtx(ctx context.Context, _, kind string, rules [][]string) error {
	rules = withType(kind, rules)
	for _, rule := range rules {
		if err := checkRule(rule); err != nil {
			return fmt.Errorf("rbacsql: remove: %w", err)
		}
	}
	return a.update(ctx, "remove", func([][]string) (add, remove [][]string) { return nil, rules })
}

// RemoveFilteredPolicyCtx removes the rows whose fields from index on have these
// values; an empty value matches any. Values that are all empty are refused:
// they would remove everything.
func (a *Adapter) RemoveFilteredPolicyCtx(ctx context.Context, _, kind string, index int, values ...string) error {
	if index < 0 || index+len(values) > columns {
		return fmt.Errorf("rbacsql: remove: no fields %d to %d in a row", index, index+len(values)-1)
	}
	if !slices.ContainsFunc(values, func(v string) bool { return v != "" }) {
		return errors.New("rbacsql: remove: nothing to match")
	}
	matches := func(rule []string) bool {
		fields := key(rule)
		for i, value := range values {
			if value != "" && fields[1+index+i] != value {
				return false
			}
		}
		return rule[0] == kind
	}
	return a.update(ctx, "remove", func(stored [][]string) (add, remove [][]string) {
		for _, rule := range stored {
			if matches(rule) {
				remove = append(remove, rule)
			}
		}
		return nil, remove
	})
}

func withType(kind string, rules [][]string) [][]string {
	typed := make([][]string, len(rules))
	for i, rule := range rules {
		typed[i] = append([]string{kind}, rule...)
	}
	return typed
}

// update makes the next version out of the newest one, again when somebody else was
// faster. Within the process those who come here take turns.
func (a *Adapter) update(ctx context.Context, reason string, by func(stored [][]string) (add, remove [][]string)) error {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("rbacsql: wait for another change: %w", context.Cause(ctx))
	}
	defer func() { <-a.turn }()
	if rbac.ReasonFrom(ctx) == "" {
		ctx = rbac.WithReason(ctx, reason)
	}
	const attempts = 100
	for attempt := 1; ; attempt++ {
		was, err := a.Load(ctx)
		if err != nil {
			return err
		}
		add, remove := by(was.Rules)
		if _, err = a.Change(ctx, was, add, remove); attempt == attempts || !errors.Is(err, rbac.ErrChanged) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(rand.N(50 * time.Millisecond)): //nolint:gosec // spreads attempts, decides nothing
		}
	}
}

// LoadPolicy is [Adapter.LoadPolicyCtx] for callers without a context.
func (a *Adapter) LoadPolicy(m model.Model) error {
	return a.LoadPolicyCtx(context.Background(), m)
}

// SavePolicy is [Adapter.SavePolicyCtx] for callers without a context.
func (a *Adapter) SavePolicy(m model.Model) error {
	return a.SavePolicyCtx(context.Background(), m)
}

// AddPolicy is [Adapter.AddPolicyCtx] for callers without a context.
func (a *Adapter) AddPolicy(section, kind string, rule []string) error {
	return a.AddPolicyCtx(context.Background(), section, kind, rule)
}

// AddPolicies is [Adapter.AddPoliciesCtx] for callers without a context.
func (a *Adapter) AddPolicies(section, kind string, rules [][]string) error {
	return a.AddPoliciesCtx(context.Background(), section, kind, rules)
}

// RemovePolicy is [Adapter.RemovePolicyCtx] for callers without a context.
func (a *Adapter) RemovePolicy(section, kind string, rule []string) error {
	return a.RemovePolicyCtx(context.Background(), section, kind, rule)
}

// RemovePolicies is [Adapter.RemovePoliciesCtx] for callers without a context.
func (a *Adapter) RemovePolicies(section, kind string, rules [][]string) error {
	return a.RemovePoliciesCtx(context.Background(), section, kind, rules)
}

// RemoveFilteredPolicy is [Adapter.RemoveFilteredPolicyCtx] for callers without a context.
func (a *Adapter) RemoveFilteredPolicy(section, kind string, index int, values ...string) error {
	return a.RemoveFilteredPolicyCtx(context.Background(), section, kind, index, values...)
}
