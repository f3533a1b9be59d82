package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/casbin/casbin/v2/persist"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/policylog"
)

// All that is asked and changed here has one contract. A subject that acts in the
// context reaches its own tenant only. GrantRole needs one; the others go without,
// for jobs that end a person's access (see [crmguard.Revoker]) and for whoever
// finds out who a person is before anybody acts.

// Resolve lists a person's roles (those that come through other roles too) and
// departments, sorted. Neither is an input to a decision: Check asks the policy
// and the departments itself.
func (e *Engine) Resolve(ctx context.Context, tenant, subject string) (roles, units []string, err error) {
	if err := reaches(ctx, tenant, subject); err != nil {
		return nil, nil, err
	}
	tree, err := e.org.tree(ctx, tenant)
	if err != nil {
		return nil, nil, err
	}
	policy, err := e.inForce()
	if err != nil {
		return nil, nil, err
	}
	roles = policy.roles(tenant, subject, e.now())
	units = slices.Clone(tree.Members[subject])
	slices.Sort(units)
	return roles, units, nil
}

// Roles lists the roles of a tenant that the policy knows, sorted: what
// [Engine.GrantRole] can give, to whoever lacks none of its rights.
func (e *Engine) Roles(ctx context.Context, tenant string) ([]string, error) {
	if err := reaches(ctx, tenant); err != nil {
		return nil, err
	}
	policy, err := e.inForce()
	if err != nil {
		return nil, err
	}
	return policy.knownRoles(tenant), nil
}

// reaches refuses empty names, and a tenant that is not the one of the subject of ctx.
func reaches(ctx context.Context, tenant string, names ...string) error {
	if tenant == "" || slices.Contains(names, "") {
		return errors.New("rbac: empty tenant, subject or role")
	}
	if s, ok := crmguard.SubjectFrom(ctx); ok {
		return admit(&s, tenant)
	}
	return nil
}

// GrantRole gives a person a role that the policy knows. Who gives it is the
// subject of ctx: of the same tenant, not that person nor a deputy of that person, and
// with every right of their own that the role gives, in scopes at least as wide; own, dept and tree are then the
// person's. If somebody stands in for that person meanwhile, now or later, the subject needs these
// rights on all records, as for [Engine.Deputize]. A job of the host needs no rights. Whether the subject may grant at
// all is a question to Check. Giving what is there already does no harm; the store
// is asked every time, because another process may have taken it away.
//
// The codes of its denials are "self-grant", "lacks-right", "system-name" and
// "separation-of-duties": the person has a role that excludes this one, which must be taken
// first. That one holds for jobs too.
func (e *Engine) GrantRole(ctx context.Context, tenant, subject, role string) error {
	return e.grant(ctx, tenant, subject, role, noEnd)
}

// GrantRoleUntil is GrantRole for a role that ends by itself, at a full second: a
// fraction is cut off. Whoever gives it must have its rights until then. A person who
// has a role more than once has it until the last end, so to shorten a grant means to
// take it with RevokeRole and to give it again.
func (e *Engine) GrantRoleUntil(ctx context.Context, tenant, subject, role string, end time.Time) error {
	if end = end.Truncate(time.Second); !end.After(e.clock()) {
		return fmt.Errorf("rbac: grant: the end %s is over", end.UTC().Format(time.RFC3339))
	}
	return e.grant(ctx, tenant, subject, role, end.Unix())
}

func (e *Engine) grant(ctx context.Context, tenant, subject, role string, end int64) error {
	if err := reaches(ctx, tenant, subject, role); err != nil {
		return err
	}
	if strings.HasPrefix(subject, systemPrefix) {
		return systemName(subject)
	}
	added := row{"grant", "g", []string{personPrefix + subject, rolePrefix + role, tenant}}
	if end != noEnd {
		added.kind, added.fields = "p2", append(added.fields, formatEnd(end))
	}
	return e.give(ctx, added, func(granter crmguard.Subject) error { return e.mayGrant(granter, role, end, added) })
}

// give stores a row that gives somebody something, if the policy in force then lets the
// subject of ctx do so, and brings it into force. The row stands where it says that it
// was added.
func (e *Engine) give(ctx context.Context, added row, may func(granter crmguard.Subject) error) error {
	granter, ok := crmguard.SubjectFrom(ctx)
	if !ok {
		return fmt.Errorf("rbac: %s: nobody acts in the context", added.where)
	}
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	put := func() {
		e.change(func(old *snapshot) []row { return append(old.rows.all(), added) })
	}
	if store, ok := e.adapter.(Store); ok {
		return e.revise(withDefaultReason(ctx, added.where), store, func(Stored) (edit, error) {
			return edit{add: [][]string{added.rule()}, put: put}, may(granter)
		})
	}
	if err := may(granter); err != nil {
		return err
	}
	return e.entered(ctx, policylog.Change{Code: added.where, Added: [][]string{added.rule()}}, func() error {
		if err := addRule(ctx, e.adapter, added); err != nil {
			return fmt.Errorf("rbac: %s: %w", added.where, err)
		}
		put()
		return nil
	})
}

// mayGrant looks at the policy in force.
func (e *Engine) mayGrant(granter crmguard.Subject, role string, end int64, added row) error {
	old := e.current.Load()
	if old.gains(granter, added.fields[0], e.now()) {
		return &crmguard.Denial{By: "rbac", Code: "self-grant", Detail: personPrefix + granter.ID + ": " + added.fields[0] + ": role:" + role}
	}
	if tenant := added.tenant(); !slices.Contains(old.knownRoles(tenant), role) {
		return fmt.Errorf("rbac: grant: no row of tenant %q knows the role %q", tenant, role)
	}
	if what, ok := old.lacks(granter, added.fields[0], role, e.now(), end); ok {
		return &crmguard.Denial{By: "rbac", Code: "lacks-right", Detail: "u:" + granter.ID + ": role:" + role + ": " + what.action + " " + what.object}
	}
	if _, err := lint(append(old.rows.linksOfRoles(), added)); err != nil {
		return err
	}
	return old.separates(added, e.now())
}

// RevokeRole takes a role from a person. Roles that come through others stay.
// Taking what is not there does nothing. It takes effect as Revoke does.
//
// A role may deny something: to take one from a person who can do more without it is to
// grant, and denied to a subject of ctx as [Engine.GrantRole] denies it. So a role that
// denies is taken when the store has taken it, and the journal.
func (e *Engine) RevokeRole(ctx context.Context, tenant, subject, role string) error {
	if err := reaches(ctx, tenant, subject, role); err != nil {
		return err
	}
	link := []string{personPrefix + subject, rolePrefix + role, tenant}
	what := removals{{"g", link}, {"p2", link}}
	_, err := e.remove(ctx, what, func(policy *snapshot, stored []row) (gives bool, err error) {
		if len(policy.denialsThrough(row{"", "g", link})) == 0 {
			return false, nil // without a role that denies nothing nobody can do more
		}
		author, ok := crmguard.SubjectFrom(ctx)
		if !ok {
			return true, nil
		}
		before := append(policy.rows.all(), stored...)
		after := slices.DeleteFunc(slices.Clone(before), what.match)
		return true, mayChange(author, newSnapshot(rowSetOf(before)), newSnapshot(rowSetOf(after)), e.now())
	})
	return err
}

// Revoke takes all roles of a person and all rules that allow that person
// something, ends that anybody stands in for the person or the person for anybody, and
// tells how many rows of the store those were; of an adapter that
// does not tell, how many were in force here. Rules that deny stay: they give
// nothing, and a person who comes back must not come back with more.
//
// It takes effect in this process at once, before the store is asked, whatever the
// store does and however long that takes, and lasts until a Reload finds the rows
// still stored. An error says that they may be. Other processes take it over as
// [Engine.Watch] says.
func (e *Engine) Revoke(ctx context.Context, tenant, subject string) (crmguard.Revoked, error) {
	revoked := crmguard.Revoked{What: "roles and rules"}
	if err := reaches(ctx, tenant, subject); err != nil {
		return revoked, err
	}
	person := personPrefix + subject
	n, err := e.remove(ctx, removals{
		{"g", []string{person, "", tenant}},
		{"p2", []string{person, "", tenant}},
		{"p3", []string{person, "", tenant}},
		{"p3", []string{"", person, tenant}},
		{"p", []string{person, tenant, "", "", "", "allow"}},
	}, nil)
	revoked.Count = n
	return revoked, err
}

// giving tells whether to take rows away gives somebody something by a policy, and refuses
// that to whoever may not give it. The sound rows among those that are stored may be out of
// force already.
type giving func(policy *snapshot, stored []row) (gives bool, err error)

// remove takes rows away: here, and then in the store, rows included that another
// process put there since the policy was loaded. Fewer rows cannot make a sound
// policy unsound, so this is never refused but for what it gives; nil: nothing. What gives
// is asked of the policy that the store has by then, and taken there first.
func (e *Engine) remove(ctx context.Context, what removals, giving giving) (int, error) {
	if giving == nil {
		giving = func(*snapshot, []row) (bool, error) { return false, nil }
	}
	policy := e.current.Load()
	gone := slices.DeleteFunc(policy.rows.all(), func(r row) bool { return !what.match(r) })
	removed := len(gone)
	put := func() {
		e.change(func(old *snapshot) []row { return slices.DeleteFunc(old.rows.all(), what.match) })
	}
	if gives, _ := giving(policy, gone); !gives {
		removed, put = e.leave(&what), nil
	}
	if err := e.lock(ctx); err != nil {
		e.arrived(&what)
		return removed, err
	}
	defer e.unlock()
	defer e.arrived(&what) // before unlock: what is granted from then on stays
	if store, ok := e.adapter.(Store); ok {
		found := 0
		err := e.revise(withDefaultReason(ctx, "revoke"), store, func(stored Stored) (edit, error) {
			var there []row
			next := edit{put: put}
			for i, rule := range stored.Rules {
				if r := rowOf(stored.Where[i], rule); what.match(r) {
					next.remove = append(next.remove, rule)
					if _, err := lint([]row{r}); err == nil {
						there = append(there, r)
					}
				}
			}
			found = len(next.remove)
			var err error
			if next.gives, err = giving(e.current.Load(), there); err != nil {
				e.stays(&what, there)
			}
			return next, err
		})
		if err == nil {
			return found, nil
		}
		return removed, fmt.Errorf("rbac: revoke: %w", err)
	}
	gives, err := giving(e.current.Load(), gone)
	if err != nil {
		e.stays(&what, gone)
		return 0, fmt.Errorf("rbac: revoke: %w", err)
	}
	change := policylog.Change{Tenant: rowOf("", append([]string{what[0].kind}, what[0].fields...)).tenant(), Code: "revoke"}
	for _, r := range gone {
		change.Removed = append(change.Removed, r.rule())
	}
	if gives {
		ctx = policylog.Giving(ctx)
	}
	err = e.entered(ctx, change, func() error {
		var failed []error
		stored, told := 0, true
		for _, m := range what {
			n, tells, err := removeRules(ctx, e.adapter, m)
			stored += n
			told = told && tells && err == nil
			if err != nil {
				failed = append(failed, fmt.Errorf("rbac: revoke: %w", err))
			}
		}
		if told {
			removed = stored
		}
		if put != nil && len(failed) == 0 {
			put()
		}
		return errors.Join(failed...)
	})
	return removed, err
}

func addRule(ctx context.Context, adapter persist.Adapter, r row) error {
	if withContext, ok := adapter.(persist.ContextAdapter); ok {
		return withContext.AddPolicyCtx(ctx, r.kind[:1], r.kind, r.fields)
	}
	return adapter.AddPolicy(r.kind[:1], r.kind, r.fields)
}

// ruleRemover is an adapter that tells how many rows it removed. The fields are
// those of Casbin's RemoveFilteredPolicy from the first one on.
type ruleRemover interface {
	RemoveRules(ctx context.Context, kind string, fields ...string) (removed int, err error)
}

func removeRules(ctx context.Context, adapter persist.Adapter, m removal) (removed int, tells bool, err error) {
	switch adapter := adapter.(type) {
	case ruleRemover:
		removed, err = adapter.RemoveRules(ctx, m.kind, m.fields...)
		return removed, true, err
	case persist.ContextAdapter:
		return 0, false, adapter.RemoveFilteredPolicyCtx(ctx, m.kind[:1], m.kind, 0, m.fields...)
	}
	return 0, false, adapter.RemoveFilteredPolicy(m.kind[:1], m.kind, 0, m.fields...)
}

// knownRoles are the roles of a tenant that any row names, sorted.
func (s *snapshot) knownRoles(tenant string) []string {
	in, ok := s.rows.name(tenant)
	if !ok {
		return nil
	}
	names := make(map[uint32]bool)
	for _, l := range s.rows.links {
		if l.tenant == in {
			names[l.subject], names[l.role] = true, true
		}
	}
	for _, r := range s.rows.rules {
		if r.tenant == in {
			names[r.subject] = true
		}
	}
	var roles []string
	for name := range names {
		if role, ok := strings.CutPrefix(s.rows.names[name], rolePrefix); ok {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles
}

// linksOfRoles are the rows that say what roles have, in which alone a chain can be
// long.
func (s *rowSet) linksOfRoles() []row {
	var rows []row
	for _, l := range s.links {
		if !strings.HasPrefix(s.names[l.subject], personPrefix) {
			rows = append(rows, s.link(l))
		}
	}
	return rows
}
