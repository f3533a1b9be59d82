package rbac

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

// Explanation is an answer of [Engine.Check] with its reasons. It names roles and rows,
// so it is for whoever administers rights, not for whoever was refused.
type Explanation struct {
	Subject  crmguard.Subject
	Action   crmguard.Action
	Resource crmguard.Resource

	Denial *crmguard.Denial // what Check returns; nil: allowed
	Policy string           // version that decided, as of [Engine.Version]
	// NeedsScope is the scope that the credential would need; empty: its scopes reach
	// what was asked, or it has none.
	NeedsScope string
	// By are those whose rights are needed: the subject, and then whom it acts for.
	// There are none if Check refuses the subject without looking at the policy.
	By []Reasons
}

// Reasons are why one of those whose rights are needed may do what was asked, or not.
type Reasons struct {
	Subject string // such as "u:anna"
	Allowed bool
	// Relations are what the person is to the record, in the words of docs/formats/rbac.md: one, or
	// each that is possible where it is not known. Nil: the question is about the
	// whole kind.
	Relations []string
	Why       string // it has them, for people
	// Rules are all that the person has about this right under any of these
	// relations: those that deny first.
	Rules []Reason
	// Missing are rows of which each alone, added to the policy, would make a no that
	// no rule denies a yes for this person: wider scopes of rules that are there, roles
	// that have the right, those with fewest rights first, or else a rule for the person.
	Missing [][]string

	// StandsIn are the reasons of those for whom the person stands in at this moment. What
	// one of them may do the person may do, unless a rule denies it to the person.
	StandsIn []Reasons
	Until    time.Time // of those in StandsIn: when that ends
}

// Reason is a rule that had a part in a decision.
type Reason struct {
	Rule  []string // the row, its type first
	Where string   // it stands, as in [Finding]
	Path  []string // from the person to whom the rule is for: u:anna, role:head, role:seller
}

// Denies reports whether the rule denies.
func (r Reason) Denies() bool { return r.Rule[len(r.Rule)-1] == effectWords[effectDeny] }

// Explain is [Engine.Check] with reasons: from the same version of the policy and the same moment as
// its answer. The error says what could not be decided. Who may ask about whom is a
// question of the host.
func (e *Engine) Explain(ctx context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) (Explanation, error) {
	x := Explanation{Subject: s, Action: a, Resource: r}
	moment := e.clock()
	d := decision{subject: &s, clock: func() time.Time { return moment }} // the answer and its reasons must not lie on two sides of an end
	err := e.begin(ctx, &d, r.Tenant)
	if err == nil {
		err = d.check(a, &r)
	}
	if err != nil {
		denial, decided := errors.AsType[*crmguard.Denial](err)
		if !decided {
			return Explanation{}, err
		}
		copied := *denial // denials are shared
		x.Denial = &copied
	}
	if d.policy == nil {
		return x, nil
	}
	x.Policy = d.policy.version
	if s.Scopes != nil && !inScopes(s.Scopes, r.Kind, a) {
		x.NeedsScope = r.Kind + ":" + string(a)
	}
	q := asked{d.policy, &r, a, moment.Unix()}
	if r.Field != "" {
		q.action = fieldAction(a)
	}
	for i := range d.all() {
		p := &d.parties[i]
		why, m, has := q.reasons(p)
		v := d.verdict(p, &r, actOf(q.action), 0)
		if why.Allowed = v == allowed; v == noRule {
			why.Missing = q.missing(p, m, has)
		}
		for j := range p.standIns {
			if whom, ok := p.inPlaceOf(&p.standIns[j]); ok {
				as, _, _ := q.reasons(&whom)
				as.Until = time.Unix(p.standIns[j].end, 0).UTC()
				why.StandsIn = append(why.StandsIn, as)
			}
		}
		x.By = append(x.By, why)
	}
	return x, nil
}

// asked is a question whose answer is explained.
type asked struct {
	policy   *snapshot
	resource *crmguard.Resource
	action   crmguard.Action // as rows have it
	now      int64
}

func (q asked) object() string {
	if q.resource.Field == "" {
		return q.resource.Kind
	}
	return q.resource.Kind + "#" + q.resource.Field
}

// reasons are those of a party itself, what its rules come to, and all of these.
func (q asked) reasons(p *party) (why Reasons, m masks, has []heldRule) {
	m = q.policy.ask(p.holder, q.resource.Kind, q.resource.Field, actOf(q.action))
	why = Reasons{Subject: personPrefix + p.person, Allowed: p.verdict(m, q.resource, 0) == allowed, Why: "the question is about the kind as a whole"}
	under := everyRelation
	if !isWhole(q.resource) {
		under = p.relations(q.resource)
		why.Relations = under.words()
		why.Why = p.whyRelated(q.resource)
	}
	has = q.rulesOf(why.Subject)
	for _, r := range has {
		if relationsIn[r.rule.scope]&under != 0 {
			row := q.policy.rows.rule(r.rule)
			why.Rules = append(why.Rules, Reason{row.rule(), row.where, r.path})
		}
	}
	slices.SortStableFunc(why.Rules, func(a, b Reason) int {
		switch {
		case a.Denies() == b.Denies():
			return 0
		case a.Denies():
			return -1
		}
		return 1
	})
	return why, m, has
}

// heldRule is a rule that somebody has, and by which way.
type heldRule struct {
	rule rule
	path []string
}

// rulesOf are the rules about the right that a subject has, the nearest first.
func (q asked) rulesOf(subject string) (found []heldRule) {
	rows := q.policy.rows
	in, ok := rows.name(q.resource.Tenant)
	of, known := rows.name(subject)
	object, named := rows.name(q.object())
	if !ok || !known || !named || strings.Contains(q.resource.Kind, "#") { // which is no kind
		return nil
	}
	is, from := rows.paths(in, of, q.now)
	for i, identity := range is {
		for _, r := range rows.rulesOf(in, identity) {
			if r.object == object && r.act == actOf(q.action) && r.act != 0 {
				found = append(found, heldRule{r, rows.path(is, from, i)})
			}
		}
	}
	return found
}

// paths are [rowSet.identities], nearest first, and for each but the first the index
// of that through which it comes.
func (s *rowSet) paths(tenant, subject uint32, now int64) (is []uint32, from []int) {
	is, from = []uint32{subject}, []int{-1}
	for i := 0; i < len(is); i++ {
		for _, l := range s.linksOf(tenant, is[i]) {
			if now < l.end && !slices.Contains(is, l.role) {
				is, from = append(is, l.role), append(from, i)
			}
		}
	}
	return is, from
}

func (s *rowSet) path(is []uint32, from []int, i int) (names []string) {
	for ; i >= 0; i = from[i] {
		names = append(names, s.names[is[i]])
	}
	slices.Reverse(names)
	return names
}

// whyRelated tells what a record is to a party, for people.
func (p *party) whyRelated(r *crmguard.Resource) string {
	if isSection(r.Kind) {
		return "a section belongs to nobody"
	}
	var why []string
	is := relate(p.person, &p.place, r)
	switch is {
	case relOwn:
		why = append(why, "responsible for it")
	case relDept, relDeptHeaded:
		why = append(why, "a member of its department "+shown(r.Unit))
	case relTree, relTreeHeaded:
		why = append(why, "a member of a department above its department "+shown(r.Unit))
	case relHeaded: // as said below
	default:
		why = append(why, p.whyNone(r))
	}
	if is >= relHeaded {
		why = append(why, "the head of its department "+shown(r.Unit)+" or of one above it")
	}
	switch {
	case !p.shares:
		why = append(why, "it is not known what is shared with this person")
	case r.Shared:
		why = append(why, "it is shared with this person")
	}
	return strings.Join(why, "; ")
}

func (p *party) whyNone(r *crmguard.Resource) string {
	responsible := "nobody is responsible for it"
	if r.Owner != "" {
		responsible = shown(r.Owner) + " is responsible for it"
	}
	switch {
	case !p.placed:
		return responsible + ", and the departments of this person are not known"
	case r.Unit == "":
		return responsible + ", and it belongs to no department"
	}
	return responsible + ", and its department " + shown(r.Unit) + " is neither one of this person's nor below one"
}
