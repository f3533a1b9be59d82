package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

// Check decides whether s may do a to r; see the package comment for how. It takes no
// lock and allocates nothing, be the answer yes or no; its denials are shared, so
// nobody changes them.
//
// The codes of its denials are "no-rule", "deny-rule", "scope" (of the credential),
// "no-record" (a question about one record that names none) and "system-name" (a
// person who is called like a job of the host).
func (e *Engine) Check(ctx context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	d := decision{subject: &s}
	if err := e.begin(ctx, &d, r.Tenant); err != nil {
		return err
	}
	return d.check(a, &r)
}

// CheckAll is Check for a page: one version of the policy and one of the
// departments for all of it. The answers are in the order of rs.
func (e *Engine) CheckAll(ctx context.Context, s crmguard.Subject, a crmguard.Action, rs []crmguard.Resource) []error {
	answers := make([]error, len(rs))
	d := decision{subject: &s}
	err := e.begin(ctx, &d, s.Tenant)
	for i := range rs {
		switch {
		case err != nil:
			answers[i] = err
		case rs[i].Tenant != s.Tenant:
			answers[i] = admit(&s, rs[i].Tenant)
		default:
			answers[i] = d.check(a, &rs[i])
		}
	}
	return answers
}

// FieldRights are what a subject may do with one field of a record.
type FieldRights struct {
	Read   bool // see it, masked unless Unmask
	Write  bool // change it
	Unmask bool // see it in the clear without asking; never without Read
}

// Fields tells the rights on fields of a record. Only rows that name the field
// give any. For a whole kind (empty ID, Owner and Unit) they are the rights that
// hold on every record of it.
func (e *Engine) Fields(ctx context.Context, s crmguard.Subject, r crmguard.Resource, fields ...string) (map[string]FieldRights, error) {
	d := decision{subject: &s}
	if err := e.begin(ctx, &d, r.Tenant); err != nil {
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
			v, err := d.answer(right.action, &r, everyRelation)
			if err != nil {
				return nil, err
			}
			*right.holds = v == allowed
		}
		f.Unmask = f.Unmask && f.Read
		rights[field] = f
	}
	return rights, nil
}

// decision is what stays the same while one call decides: subject, policy, moment,
// departments.
type decision struct {
	subject *crmguard.Subject
	clock   func() time.Time
	policy  *snapshot
	parties [2]party // the subject, and whom it acts for if it does
}

// party is one of those whose rights a decision needs.
type party struct {
	person string
	holder *holder // what it is, as the policy has it
	place  placement
	placed bool // its departments are known
	shares bool // it is known what is shared with it

	standIns  []standIn // that have not ended
	now       int64     // if there ever were any
	organised bool      // the departments of everybody are known
}

// begin fills in the decision of a subject where it stands, so that it is not copied
// and needs no heap.
func (e *Engine) begin(ctx context.Context, d *decision, tenant string) error {
	s := d.subject
	if err := admit(s, tenant); err != nil {
		return err
	}
	units, err := e.org.tree(ctx, tenant)
	if err != nil {
		return err
	}
	if d.policy, err = e.inForce(); err != nil {
		return err
	}
	if d.clock == nil {
		d.clock = e.clock
	}
	p := &d.parties[0]
	d.identify(p, who{tenant, s.ID})
	p.place, p.placed, p.shares = placement{units: s.Units, tree: units}, true, true
	p.organised = e.org.source != nil
	if p.organised {
		p.place = units.of(s.ID)
	}
	if s.OnBehalfOf != "" {
		p = &d.parties[1]
		d.identify(p, who{tenant, s.OnBehalfOf})
		p.place, p.organised = units.of(s.OnBehalfOf), e.org.source != nil
		p.placed = p.organised
	}
	return nil
}

// identify fills in who a party is and for whom it stands in.
func (d *decision) identify(p *party, is who) {
	p.person, p.holder = is.person, d.policy.people[is].at(d.clock)
	if standIns := d.policy.standIns[is]; len(standIns) > 0 {
		p.now = d.clock().Unix()
		p.standIns = notEnded(standIns, p.now)
	}
}

// all lists the parties that there are.
func (d *decision) all() []party {
	if d.subject.OnBehalfOf == "" {
		return d.parties[:1]
	}
	return d.parties[:]
}

// relations are those that the party may have to a record: one if all is known,
// else each that is possible.
func (p *party) relations(r *crmguard.Resource) relationSet {
	set := relationSet(1) << relate(p.person, &p.place, r)
	if !p.placed && !set.has(relOwn) {
		set = unplaced
	}
	switch {
	case !p.shares:
		set |= set << relShared
	case r.Shared:
		set <<= relShared
	}
	return set
}

// certain narrows the relations under which something is allowed to those whose
// rights the party has for sure: of relations that cannot be told apart all or none.
func (p *party) certain(set relationSet) relationSet {
	plain, shared := set&unsharedRelations, set>>relShared
	if !p.shares {
		plain &= shared
		shared = plain
	}
	if !p.placed {
		plain, shared = wholly(plain), wholly(shared)
	}
	return plain | shared<<relShared
}

func wholly(set relationSet) relationSet {
	if set&unplaced != unplaced {
		set &^= unplaced
	}
	return set
}

// systemPrefix begins the names of the host's own jobs, see [crmguard.System].
const systemPrefix = "system:"

// admit refuses subjects that are incomplete or of another tenant, and people
// under the name of a job: a login somebody chose must not be one that the policy
// trusts.
func admit(s *crmguard.Subject, tenant string) error {
	if s.Tenant != tenant || tenant == "" || s.ID == "" || s.Kind < crmguard.KindEmployee || s.Kind > crmguard.KindSystem { // CheckTenant, without a copy
		return foreign(*s, tenant)
	}
	if strings.HasPrefix(s.ID, systemPrefix) != (s.Kind == crmguard.KindSystem) {
		return systemName(s.ID)
	}
	if strings.HasPrefix(s.OnBehalfOf, systemPrefix) {
		return systemName(s.OnBehalfOf)
	}
	return nil
}

func foreign(s crmguard.Subject, tenant string) error {
	if err := crmguard.CheckTenant(s, tenant); err != nil {
		return fmt.Errorf("rbac: %w", err)
	}
	return &crmguard.Denial{By: "rbac", Code: "tenant"} // the two disagree, so no
}

func systemName(id string) error {
	return &crmguard.Denial{By: "rbac", Code: "system-name", Detail: "u:" + id + ": names in system: are those of jobs"}
}

// denials are what Check returns. They are made once, for whoever is refused all the
// time must not cost more than whoever is not.
var denials = [...]*crmguard.Denial{
	noRule:     {By: "rbac", Code: "no-rule"},
	denyRule:   {By: "rbac", Code: "deny-rule"},
	outOfScope: {By: "rbac", Code: "scope"},
	noRecord:   {By: "rbac", Code: "no-record"},
}

func (d *decision) check(a crmguard.Action, r *crmguard.Resource) error {
	v, err := d.answer(a, r, 0)
	if err != nil {
		return err
	}
	if r.ID == "" && onOne(a) && !isSection(r.Kind) {
		v = noRecord
	}
	if v == allowed {
		return nil
	}
	return denials[v]
}

// onOne tells the actions that are done to one record, whose ID is always known.
func onOne(a crmguard.Action) bool {
	switch a {
	case crmguard.View, crmguard.Reveal, crmguard.Unmask, crmguard.Call, crmguard.Update, crmguard.Delete, crmguard.Erase:
		return true
	}
	return false
}

var errNoKind = errors.New("rbac: resource without a kind")

// answer is the intersection of the credential's scopes, the subject's rights and
// those of whom it acts for. Of a whole kind, need says which relations must be
// allowed; none means any one.
func (d *decision) answer(a crmguard.Action, r *crmguard.Resource, need relationSet) (verdict, error) {
	if r.Kind == "" {
		return noRule, errNoKind
	}
	if d.subject.Scopes != nil && !inScopes(d.subject.Scopes, r.Kind, a) {
		return outOfScope, nil
	}
	if r.Field != "" {
		a = fieldAction(a)
	}
	right := actOf(a)
	for i := range d.all() {
		p := &d.parties[i]
		if v := d.verdict(p, r, right, need); v != allowed {
			return v, nil
		}
	}
	return allowed, nil
}

// verdict is what rules come to for the party itself; of a whole kind, need is as in answer.
func (p *party) verdict(m masks, r *crmguard.Resource, need relationSet) verdict {
	if isWhole(r) {
		return p.some(m, need)
	}
	return m.verdict(p.relations(r))
}

// isWhole reports whether a question is about a kind of records, not about one.
func isWhole(r *crmguard.Resource) bool {
	return r.ID == "" && r.Owner == "" && r.Unit == "" && !isSection(r.Kind)
}

// some is yes if the party may do it under all relations in need, and under any.
func (p *party) some(m masks, need relationSet) verdict {
	set := p.certain(m.yes())
	switch {
	case set != 0 && set&need == need:
		return allowed
	case m.deny != 0:
		return denyRule
	}
	return noRule
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
