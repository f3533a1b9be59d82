package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/casbin/casbin/v2/persist"

	"github.com/crmguard/crmguard"
)

// Resolve lists a person's roles (those that come through other roles too) and
// departments, sorted. Neither is an input to a decision: Check asks the policy
// and the departments itself.
func (e *Engine) Resolve(ctx context.Context, tenant, subject string) (roles, units []string, err error) {
	if tenant == "" || subject == "" {
		return nil, nil, errors.New("rbac: empty tenant or subject")
	}
	tree, err := e.org.tree(ctx, tenant)
	if err != nil {
		return nil, nil, err
	}
	roles, err = e.current.Load().roles(tenant, subject)
	if err != nil {
		return nil, nil, err
	}
	units = slices.Clone(tree.Members[subject])
	slices.Sort(units)
	return roles, units, nil
}

// GrantRole gives a person a role that the policy knows. Who gives it is the
// subject of ctx: of the same tenant, and another person, unless it is a job of
// the host. Whether that subject may grant at all is a question to Check. Giving
// what is there already does nothing.
func (e *Engine) GrantRole(ctx context.Context, tenant, subject, role string) error {
	granter, ok := crmguard.SubjectFrom(ctx)
	if !ok {
		return errors.New("rbac: grant: nobody acts in the context")
	}
	if err := crmguard.CheckTenant(granter, tenant); err != nil {
		return fmt.Errorf("rbac: grant: %w", err)
	}
	if granter.Kind != crmguard.KindSystem && (granter.ID == subject || granter.OnBehalfOf == subject) {
		return &crmguard.Denial{By: "rbac", Code: "self-grant", Detail: "u:" + granter.ID + ": role:" + role}
	}
	e.change.Lock()
	defer e.change.Unlock()
	old := e.current.Load()
	added := row{"grant", "g", []string{personPrefix + subject, rolePrefix + role, tenant}}
	if !old.knowsRole(tenant, rolePrefix+role) {
		return fmt.Errorf("rbac: grant: no row of tenant %q knows the role %q", tenant, role)
	}
	if old.has(added) {
		return nil
	}
	next, err := compile(append(slices.Clip(old.rows), added))
	if err != nil {
		return err
	}
	if err := addRule(ctx, e.adapter, added.fields); err != nil {
		return fmt.Errorf("rbac: grant: %w", err)
	}
	e.current.Store(next)
	return nil
}

// RevokeRole takes a role from a person. Roles that come through others stay.
// Taking what is not there does nothing.
func (e *Engine) RevokeRole(ctx context.Context, tenant, subject, role string) error {
	if tenant == "" || subject == "" || role == "" {
		return errors.New("rbac: revoke: empty tenant, subject or role")
	}
	_, err := e.remove(ctx, removal{"g", []string{personPrefix + subject, rolePrefix + role, tenant}})
	return err
}

// Revoke takes all roles of a person and all rules that allow that person
// something, and tells how many rows those were. Rules that deny stay: they give
// nothing, and a person who comes back must not come back with more.
func (e *Engine) Revoke(ctx context.Context, tenant, subject string) (crmguard.Revoked, error) {
	revoked := crmguard.Revoked{What: "roles and rules"}
	if tenant == "" || subject == "" {
		return revoked, errors.New("rbac: revoke: empty tenant or subject")
	}
	person := personPrefix + subject
	n, err := e.remove(ctx,
		removal{"g", []string{person, "", tenant}},
		removal{"p", []string{person, tenant, "", "", "", "allow"}})
	revoked.Count = n
	return revoked, err
}

// removal describes rows to take away; an empty field matches any.
type removal struct {
	kind   string
	fields []string
}

func (m removal) matches(r row) bool {
	return r.kind == m.kind && fieldsMatch(r.fields, m.fields)
}

func fieldsMatch(fields, pattern []string) bool {
	for i, want := range pattern {
		if want != "" && (i >= len(fields) || fields[i] != want) {
			return false
		}
	}
	return true
}

// remove takes rows away in the store, rows included that another process put
// there since the policy was loaded, and then in the policy in force. What was
// asked for takes effect here even when the store fails: rights that should be
// gone are gone until the next Reload, and the error tells of the store. Fewer
// rows cannot make a sound policy unsound, so this is never refused.
func (e *Engine) remove(ctx context.Context, what ...removal) (int, error) {
	e.change.Lock()
	defer e.change.Unlock()
	var failed []error
	for _, m := range what {
		if err := removeRules(ctx, e.adapter, m); err != nil {
			failed = append(failed, fmt.Errorf("rbac: revoke: %w", err))
		}
	}
	old := e.current.Load()
	rows := slices.DeleteFunc(slices.Clone(old.rows), func(r row) bool {
		return slices.ContainsFunc(what, func(m removal) bool { return m.matches(r) })
	})
	removed := len(old.rows) - len(rows)
	if removed > 0 {
		next, err := newSnapshot(rows)
		if err != nil {
			return 0, errors.Join(append(failed, err)...)
		}
		e.current.Store(next)
	}
	return removed, errors.Join(failed...)
}

func addRule(ctx context.Context, adapter persist.Adapter, fields []string) error {
	if withContext, ok := adapter.(persist.ContextAdapter); ok {
		return withContext.AddPolicyCtx(ctx, "g", "g", fields)
	}
	return adapter.AddPolicy("g", "g", fields)
}

func removeRules(ctx context.Context, adapter persist.Adapter, m removal) error {
	if withContext, ok := adapter.(persist.ContextAdapter); ok {
		return withContext.RemoveFilteredPolicyCtx(ctx, m.kind, m.kind, 0, m.fields...)
	}
	return adapter.RemoveFilteredPolicy(m.kind, m.kind, 0, m.fields...)
}

func (s *snapshot) has(r row) bool {
	return slices.ContainsFunc(s.rows, func(known row) bool {
		return known.kind == r.kind && slices.Equal(known.fields, r.fields)
	})
}

// knowsRole reports whether any row of the tenant gives the role something.
func (s *snapshot) knowsRole(tenant, role string) bool {
	return slices.ContainsFunc(s.rows, func(r row) bool {
		if r.kind == "p" {
			return r.fields[0] == role && r.fields[1] == tenant
		}
		return (r.fields[0] == role || r.fields[1] == role) && r.fields[2] == tenant
	})
}
