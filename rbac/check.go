package rbac

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// Check decides whether s may do a to r; see the package comment for how. Yes
// from memory allocates nothing.
//
// The codes of its denials are "no-rule", "deny-rule" and "scope" (of the
// credential).
func (e *Engine) Check(ctx context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	d, err := e.decision(ctx, s, r.Tenant)
	if err != nil {
		return err
	}
	return d.check(a, r)
}

// CheckAll is Check for a page: one version of the policy and one of the
// departments for all of it. The answers are in the order of rs.
func (e *Engine) CheckAll(ctx context.Context, s crmguard.Subject, a crmguard.Action, rs []crmguard.Resource) []error {
	answers := make([]error, len(rs))
	d, err := e.decision(ctx, s, s.Tenant)
	for i, r := range rs {
		if err != nil {
			answers[i] = err
			continue
		}
		if r.Tenant != s.Tenant {
			answers[i] = tenantError(s, r.Tenant)
			continue
		}
		answers[i] = d.check(a, r)
	}
	return answers
}

// FieldRights are what a subject may do with one field of a record.
type FieldRights struct {
	Read   bool // see it, masked unless Unmask
	Write  bool // change it
	Unmask bool // see it in the clear without asking
}

// Fields tells the rights on fields of a record. Only rows that name the field
// give any. For a whole kind (empty ID, Owner and Unit) they are the rights that
// hold on every record of it.
func (e *Engine) Fields(ctx context.Context, s crmguard.Subject, r crmguard.Resource, fields ...string) (map[string]FieldRights, error) {
	d, err := e.decision(ctx, s, r.Tenant)
	if err != nil {
		return nil, err
	}
	rights := make(map[string]FieldRights, len(fields))
	for _, field := range fields {
		r.Field = field
		if field == "" {
			return nil, errors.New("rbac: empty name of a field")
		}
		var f FieldRights
		for _, right := range []struct {
			action crmguard.Action
			holds  *bool
		}{{crmguard.View, &f.Read}, {crmguard.Update, &f.Write}, {crmguard.Unmask, &f.Unmask}} {
			v, err := d.answer(right.action, r, everyRelation)
			if err != nil {
				return nil, err
			}
			*right.holds = v == allowed
		}
		rights[field] = f
	}
	return rights, nil
}

// decision is what stays the same while one call decides: subject, policy,
// departments. It is passed by value, so that it needs no heap.
type decision struct {
	subject crmguard.Subject
	policy  *snapshot
	own     placement
	other   placement // of whom the subject acts for
}

func (e *Engine) decision(ctx context.Context, s crmguard.Subject, tenant string) (decision, error) {
	if crmguard.CheckTenant(s, tenant) != nil {
		return decision{}, tenantError(s, tenant)
	}
	units, err := e.org.tree(ctx, tenant)
	if err != nil {
		return decision{}, err
	}
	d := decision{subject: s, policy: e.current.Load()}
	d.own = placement{units.Members[s.ID], units.Parent}
	if e.org.source == nil {
		d.own.units = s.Units
	}
	if s.OnBehalfOf != "" {
		d.other = placement{units.Members[s.OnBehalfOf], units.Parent}
	}
	return d, nil
}

func tenantError(s crmguard.Subject, tenant string) error {
	return fmt.Errorf("rbac: %w", crmguard.CheckTenant(s, tenant))
}

// Words of verdicts in denials; outOfScope is not Casbin's but the credential's.
const outOfScope verdict = allowed + 1

var denialCodes = [...]string{noRule: "no-rule", denyRule: "deny-rule", outOfScope: "scope"}

func (d *decision) check(a crmguard.Action, r crmguard.Resource) error {
	v, err := d.answer(a, r, 0)
	if err != nil {
		return err
	}
	if v == allowed {
		return nil
	}
	detail := "u:" + d.subject.ID
	if d.subject.OnBehalfOf != "" {
		detail += " for u:" + d.subject.OnBehalfOf
	}
	return &crmguard.Denial{By: "rbac", Code: denialCodes[v], Detail: detail + ": " + string(a) + " " + question{kind: r.Kind, field: r.Field}.object()}
}

// answer is the intersection of the credential's scopes, the subject's rights and
// those of whom it acts for. Of a whole kind, need says which relations must be
// allowed; none means any one.
func (d *decision) answer(a crmguard.Action, r crmguard.Resource, need relationSet) (verdict, error) {
	if r.Kind == "" {
		return 0, errors.New("rbac: resource without a kind")
	}
	if d.subject.Scopes != nil && !inScopes(d.subject.Scopes, r.Kind, a) {
		return outOfScope, nil
	}
	q := question{tenant: r.Tenant, person: d.subject.ID, kind: r.Kind, field: r.Field, action: a}
	if r.Field != "" {
		q.action = fieldAction(a)
	}
	if r.ID == "" && r.Owner == "" && r.Unit == "" && !isSection(r.Kind) {
		return d.wholeKind(q, need)
	}
	q.relation = relate(q.person, d.own, r, r.Shared)
	v, err := d.policy.decide(q)
	if err != nil || v != allowed || d.subject.OnBehalfOf == "" {
		return v, err
	}
	// Shared says nothing about the one acted for, so it must be a yes either way.
	q.person = d.subject.OnBehalfOf
	for _, shared := range [...]bool{false, true} {
		q.relation = relate(q.person, d.other, r, shared)
		if v, err := d.policy.decide(q); err != nil || v != allowed {
			return v, err
		}
	}
	return allowed, nil
}

func (d *decision) wholeKind(q question, need relationSet) (verdict, error) {
	for person := range d.persons() {
		q.person = person
		set, why, err := d.policy.reach(q)
		if err != nil {
			return 0, err
		}
		if set == 0 || set&need != need {
			return why, nil
		}
	}
	return allowed, nil
}

// persons are those whose rights a decision needs: the subject, and whom it acts for.
func (d *decision) persons() iter.Seq[string] {
	return func(yield func(string) bool) {
		if yield(d.subject.ID) && d.subject.OnBehalfOf != "" {
			yield(d.subject.OnBehalfOf)
		}
	}
}

// fieldAction is the right on a field that an action on the record's field asks
// for.
func fieldAction(a crmguard.Action) crmguard.Action {
	switch a {
	case crmguard.View, crmguard.List:
		return fieldRead
	case crmguard.Create, crmguard.Update, crmguard.Import:
		return fieldWrite
	}
	return a
}

// inScopes reports whether a credential's scopes reach an action on a kind. A
// scope is "kind:action" or "kind:*"; fields are part of their kind.
func inScopes(scopes []string, kind string, a crmguard.Action) bool {
	return slices.ContainsFunc(scopes, func(scope string) bool {
		rest, ok := strings.CutPrefix(scope, kind)
		return ok && len(rest) > 1 && rest[0] == ':' && (rest[1:] == "*" || rest[1:] == string(a))
	})
}
