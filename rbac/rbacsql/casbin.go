package rbacsql

import (
	"context"

	"github.com/casbin/casbin/v2/model"
)

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
