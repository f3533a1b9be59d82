package rbac

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

// deputy is a p3 row: a link by which the subject, from a moment on, stands in for a
// person, who is in the place of the role.
type deputy struct {
	link
	from int64 // in Unix seconds
}

func compareDeputies(a, b deputy) int {
	return cmp.Or(compareLinks(a.link, b.link), cmp.Compare(a.from, b.from))
}

func (s *rowSet) deputy(d deputy) row {
	return row{s.where(d.place), "p3", []string{s.names[d.subject], s.names[d.role], s.names[d.tenant], formatEnd(d.from), formatEnd(d.end)}}
}

func (b *rowBuilder) deputy(r row) deputy {
	from, _ := parseEnd(r.fields[3])
	end, _ := parseEnd(r.fields[4])
	return deputy{link{b.id(r.fields[0]), b.id(r.fields[2]), b.id(r.fields[1]), end.Unix(), b.place(r.where)}, from.Unix()}
}

// deputiesInOrder are they in the order of their encoding.
func (s *rowSet) deputiesInOrder() []deputy {
	return slices.SortedFunc(slices.Values(s.deputies), func(a, b deputy) int {
		return cmp.Or(cmp.Compare(a.subject, b.subject), cmp.Compare(a.role, b.role), cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.from, b.from), cmp.Compare(a.end, b.end))
	})
}

func (l *linter) deputy(r row) {
	for _, name := range r.fields[:2] {
		l.identity(r, name, personPrefix)
		if strings.HasPrefix(name, personPrefix+systemPrefix) {
			l.add(r, "%q is a job of the host: nobody stands in for one, nor it for anybody", name)
		}
	}
	if r.fields[0] == r.fields[1] {
		l.add(r, "nobody stands in for themselves")
	}
	if from, end := l.moment(r, "beginning", r.fields[3]), l.moment(r, "end", r.fields[4]); !from.Before(end) && !end.IsZero() {
		l.add(r, "it ends before it begins")
	}
}

// standIn is a person for whom somebody stands in, from a moment and until another.
type standIn struct {
	whom      string // without prefix
	holder    *holder
	from, end int64 // in Unix seconds
}

func (c *compiler) deputies() {
	for _, d := range c.rows.deputies {
		of := who{c.rows.names[d.tenant], strings.TrimPrefix(c.rows.names[d.subject], personPrefix)}
		whom := strings.TrimPrefix(c.rows.names[d.role], personPrefix)
		if c.standIns == nil {
			c.standIns = make(map[who][]standIn)
		}
		c.standIns[of] = append(c.standIns[of], standIn{whom, c.people[who{of.tenant, whom}], d.from, d.end})
	}
	for _, of := range c.standIns {
		slices.SortStableFunc(of, func(a, b standIn) int { return cmp.Compare(a.end, b.end) })
	}
}

// notEnded are those of one deputy whose end is still to come. The ended ones come first,
// and nobody looks at each of them.
func notEnded(of []standIn, now int64) []standIn {
	return of[sort.Search(len(of), func(i int) bool { return now < of[i].end }):]
}

// inPlaceOf is the person for whom the party stands in, if it does so now: with that
// person's own rights, so it is not for whom that person stands in, and in that person's
// departments. What is shared with that person nobody says.
func (p *party) inPlaceOf(s *standIn) (whom party, now bool) {
	if p.now < s.from || s.end <= p.now {
		return party{}, false
	}
	return party{person: s.whom, holder: s.holder.on(p.now), place: p.place.tree.of(s.whom), placed: p.organised}, true
}

// verdict is what the policy comes to for a party: for itself, and else, unless a rule
// denies it to the party, for one of those for whom it stands in.
//
// What denies to one of these denies what comes from that person, and not what the party
// has by itself: else whoever is denied something could take it from anybody, by naming
// them their deputy.
func (d *decision) verdict(p *party, r *crmguard.Resource, right act, need relationSet) verdict {
	m := d.policy.ask(p.holder, r.Kind, r.Field, right)
	v := p.verdict(m, r, need)
	if v == allowed || len(p.standIns) == 0 || p.verdict(m.undenied(), r, need) != allowed {
		return v
	}
	for i := range p.standIns {
		if whom, ok := p.inPlaceOf(&p.standIns[i]); ok && whom.verdict(d.policy.ask(whom.holder, r.Kind, r.Field, right), r, need) == allowed {
			return allowed
		}
	}
	return v
}

// undenied allows what no rule denies.
func (m masks) undenied() masks { return masks{everyRelation, m.deny} }

// Deputize makes a person the deputy of another from a moment until an end, both at full
// seconds: fractions are cut off. Meanwhile the deputy has, besides their own rights, those
// of the other person, on the records that these are about: those of the other's
// departments, and those for which the other is responsible. What a rule denies to the
// deputy stays denied; what one denies to the other does not come with the rest. Nobody is
// deputy of a deputy by it, nor can anybody grant what they have as a deputy, or what
// their credential's scopes do not reach. Of what is shared with the other nothing comes
// with it, as with whom a subject acts for.
//
// Who sets a deputy is the subject of ctx: the other person, or somebody with all rights of
// that person, and these on all records, for what is that person's own is not the
// granter's. Nobody makes themselves a deputy. A job of the host needs no rights. Whether
// the subject may do so at all is a question to Check.
//
// The codes of its denials are "self-grant", "lacks-right" and "separation-of-duties": the
// two have roles that exclude each other. It ends by
// itself, with [Engine.EndDeputy], and with [Engine.Revoke] of either.
func (e *Engine) Deputize(ctx context.Context, tenant, deputy, whom string, from, end time.Time) error {
	if end = end.Truncate(time.Second); !end.After(e.clock()) {
		return fmt.Errorf("rbac: deputize: the end %s is over", end.UTC().Format(time.RFC3339))
	}
	if err := reaches(ctx, tenant, deputy, whom); err != nil {
		return err
	}
	added := row{"deputize", "p3", []string{personPrefix + deputy, personPrefix + whom, tenant, formatEnd(from.Unix()), formatEnd(end.Unix())}}
	return e.give(ctx, added, func(granter crmguard.Subject) error {
		policy := e.current.Load()
		if err := mayDeputize(granter, policy, policy, added, e.now()); err != nil {
			return err
		}
		if _, err := lint([]row{added}); err != nil {
			return err
		}
		return policy.separates(added, e.now())
	})
}

// EndDeputy ends that a person stands in for another, now and later. It takes effect as
// Revoke does.
func (e *Engine) EndDeputy(ctx context.Context, tenant, deputy, whom string) error {
	if err := reaches(ctx, tenant, deputy, whom); err != nil {
		return err
	}
	_, err := e.remove(ctx, removals{{"p3", []string{personPrefix + deputy, personPrefix + whom, tenant}}}, nil)
	return err
}

// Deputies lists who stands in for whom in a tenant, now or later.
func (e *Engine) Deputies(ctx context.Context, tenant string) ([]Deputy, error) {
	if err := reaches(ctx, tenant); err != nil {
		return nil, err
	}
	policy, err := e.inForce()
	if err != nil {
		return nil, err
	}
	return policy.deputies(tenant, e.now()), nil
}

// deputies are those of a tenant whose time has not ended at a moment.
func (s *snapshot) deputies(tenant string, now int64) (found []Deputy) {
	for _, d := range s.rows.deputies {
		if name := s.rows.names; name[d.tenant] == tenant && now < d.end {
			found = append(found, Deputy{name[d.subject], name[d.role], tenant, time.Unix(d.from, 0).UTC(), time.Unix(d.end, 0).UTC()})
		}
	}
	return found
}

// lent is what a deputy may do in somebody's place: under these relations of that person to
// a record, unless the deputy has one of those to it for which a rule denies it to them.
type lent struct{ under, unless relationSet }

// rightsAs are what a deputy may do at a moment by standing in.
func (s *snapshot) rightsAs(d Deputy, now int64) map[right]lent {
	deputy := who{d.Tenant, strings.TrimPrefix(d.Person, personPrefix)}
	if !slices.ContainsFunc(s.standIns[deputy], func(in standIn) bool {
		return personPrefix+in.whom == d.Whom && in.from <= now && now < in.end
	}) {
		return nil
	}
	rights := make(map[right]lent)
	for what, set := range s.rights(d.Tenant, d.Whom, now) {
		kind, field, _ := strings.Cut(what.object, "#")
		denied := s.ask(s.people[deputy].on(now), kind, field, actOf(crmguard.Action(what.action))).deny
		rights[what] = lent{(&party{placed: true}).certain(set), denied}
	}
	return rights
}

// lentBeyond are the relations of the other person under which a deputy may do more than
// before: on all records of theirs, or on those only for which it was denied to the deputy.
func lentBeyond(has, had map[right]lent) map[right]relationSet {
	more := make(map[right]relationSet)
	for what, l := range has {
		free := possible(what.object) &^ l.unless // relations of the deputy
		gets := l.under & possible(what.object)
		if free&had[what].unless == 0 {
			gets &^= had[what].under
		}
		if free != 0 && gets != 0 {
			more[what] = gets
		}
	}
	return more
}

// mayDeputize refuses a deputy who would get what the granter could not give: what the other
// person has by the next policy, the granter must have had already.
func mayDeputize(granter crmguard.Subject, old, next *snapshot, added row, now int64) error {
	deputy, whom := added.fields[0], added.fields[1]
	if old.gains(granter, deputy, now) || next.gains(granter, deputy, now) {
		return &crmguard.Denial{By: "rbac", Code: "self-grant", Detail: personPrefix + granter.ID + ": deputy of " + whom}
	}
	others := holdersBut(granter, whom)
	if granter.Kind == crmguard.KindSystem && len(others) == 0 {
		return nil
	}
	end, _ := parseEnd(added.fields[4])
	for _, moment := range slices.Concat(old.moments(now, end.Unix(), granter.Tenant, others...), next.moments(now, end.Unix(), granter.Tenant, strings.TrimPrefix(whom, personPrefix))) {
		held := old.heldBy(granter, others, moment)
		for _, r := range rightsOf(next.rights(granter.Tenant, whom, moment)) {
			if what := (right{r.Object, string(r.Action)}); !held.cover(what, possible(what.object)) {
				return &crmguard.Denial{By: "rbac", Code: "lacks-right", Detail: personPrefix + granter.ID + ": deputy of " + whom + ": " + what.action + " " + what.object}
			}
		}
	}
	return nil
}

// hasDeputy reports whether somebody stands in for a name of a row at some moment until an
// end.
func (s *snapshot) hasDeputy(tenant, name string, now, end int64) bool {
	return slices.ContainsFunc(s.deputies(tenant, now), func(d Deputy) bool { return d.Whom == name && d.From.Unix() < end })
}

// gains reports whether a subject has what a name of a row gets.
func (s *snapshot) gains(subject crmguard.Subject, name string, now int64) bool {
	return slices.Contains(s.selves(subject, now), name)
}

// selves are the names of rows of which a subject has what they have: itself, whom it acts
// for, and for whom one of these stands in now or later.
func (s *snapshot) selves(subject crmguard.Subject, now int64) (names []string) {
	for _, self := range nonEmpty([]string{subject.ID, subject.OnBehalfOf}) {
		names = append(names, personPrefix+self)
		for _, in := range s.standIns[who{subject.Tenant, self}] {
			if now < in.end {
				names = append(names, personPrefix+in.whom)
			}
		}
	}
	return names
}
