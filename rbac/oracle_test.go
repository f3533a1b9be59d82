package rbac

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

// question is what is asked of Casbin.
type question struct {
	tenant, person string // without prefix
	kind, field    string
	action         crmguard.Action
	relation       relation
}

func (q question) object() string {
	if q.field == "" {
		return q.kind
	}
	return q.kind + "#" + q.field
}

// decide asks the engine what is asked of Casbin, which takes grants that end for
// ended.
func (s *snapshot) decide(q question) verdict {
	return s.decideFor(s.people[who{q.tenant, q.person}].at(func() time.Time { return time.Unix(1<<60, 0) }), q)
}

func (s *snapshot) decideFor(h *holder, q question) verdict {
	if kind, field, _ := strings.Cut(q.kind, "#"); q.field == "" && field != "" {
		q.kind, q.field = kind, field
	}
	return s.ask(h, q.kind, q.field, actOf(q.action)).verdict(1 << q.relation)
}

// oracle decides from rows as the package comment says, without Casbin, without
// words for relations, and as slowly as it likes.
type oracle struct {
	rows   []row
	units  map[string]Units // by tenant; nil: there is no Org
	moment int64            // in Unix seconds; 0 is now
	casbin *casbinRules     // if not nil, says what rules come to
}

// contains holds what a scope covers of the facts about a record.
var contains = map[string]func(f facts) bool{
	"own":    func(f facts) bool { return f.own },
	"dept":   func(f facts) bool { return f.own || f.dept },
	"tree":   func(f facts) bool { return f.own || f.dept || f.tree },
	"headed": func(f facts) bool { return f.own || f.headed },
	"shared": func(f facts) bool { return f.shared },
	"all":    func(facts) bool { return true },
}

// facts about a record, each by itself: several may hold.
type facts struct{ own, dept, tree, headed, shared bool }

// allows is the spec in one sentence: some rule that allows covers a fact that
// holds, and no rule that denies does.
func (o oracle) allows(tenant, person, object, action string, f facts) bool {
	allow, deny := o.rules(tenant, person, object, action, f)
	return allow && !deny
}

func (o oracle) rules(tenant, person, object, action string, f facts) (allow, deny bool) {
	if o.casbin != nil {
		return o.casbin.ask(ruleQuestion{tenant, person, object, action, f.word()})
	}
	identities := o.identities(tenant, "u:"+person)
	for _, r := range o.rows {
		if r.kind != "p" || r.fields[1] != tenant || r.fields[2] != object || r.fields[3] != action || !slices.Contains(identities, r.fields[0]) {
			continue
		}
		if contains[r.fields[4]](f) {
			allow = allow || r.fields[5] == "allow"
			deny = deny || r.fields[5] == "deny"
		}
	}
	return allow, deny
}

// identities are what a subject is through role links: itself and, until nothing
// is added, whatever those have.
func (o oracle) identities(tenant, subject string) []string {
	is := []string{subject}
	for grown := true; grown; {
		grown = false
		for _, r := range o.rows {
			if r.kind == "g" && r.fields[2] == tenant && slices.Contains(is, r.fields[0]) && !slices.Contains(is, r.fields[1]) {
				is = append(is, r.fields[1])
				grown = true
			}
		}
	}
	return is
}

// factsOf finds out what a person is to a record.
func (o oracle) factsOf(person string, r crmguard.Resource, shared bool) facts {
	units := o.units[r.Tenant]
	return facts{
		own:    r.Owner == person,
		dept:   r.Unit != "" && slices.Contains(units.Members[person], r.Unit),
		tree:   withBelow(units, units.Members[person], r.Unit),
		headed: withBelow(units, units.Heads[person], r.Unit),
		shared: shared,
	}
}

// withBelow reports whether a unit is one of some or lies below.
func withBelow(units Units, some []string, is string) bool {
	below := slices.Clone(some)
	for grown := true; grown; {
		grown = false
		for unit, parent := range units.Parent {
			if parent != "" && slices.Contains(below, parent) && !slices.Contains(below, unit) {
				below = append(below, unit)
				grown = true
			}
		}
	}
	return is != "" && slices.Contains(below, is)
}

// check is what Engine.Check has to say about a record.
func (o oracle) check(s crmguard.Subject, a crmguard.Action, r crmguard.Resource) bool {
	object, action := r.Kind, string(a)
	if r.Field != "" {
		object += "#" + r.Field
		if right, ok := map[string]string{"view": "read", "list": "read", "create": "write", "update": "write", "import": "write"}[action]; ok {
			action = right
		}
	}
	if s.Scopes != nil && !slices.Contains(s.Scopes, r.Kind+":"+string(a)) && !slices.Contains(s.Scopes, r.Kind+":*") {
		return false
	}
	if strings.HasPrefix(s.OnBehalfOf, "system:") {
		return false
	}
	own := o.factsOf(s.ID, r, r.Shared)
	if o.units == nil {
		own.dept, own.tree, own.headed = r.Unit != "" && slices.Contains(s.Units, r.Unit), false, false
	}
	return o.may(r, s.ID, object, action, []facts{own}) &&
		(s.OnBehalfOf == "" || o.may(r, s.OnBehalfOf, object, action, o.guesses(s.OnBehalfOf, r)))
}

// guesses are what another person than the subject may be to a record. Of those it is not
// known what is shared with them, nor, without Org, what the departments are: whatever
// they may be, the answer must be yes.
func (o oracle) guesses(person string, r crmguard.Resource) (all []facts) {
	for guess := range 16 {
		f := o.factsOf(person, r, guess&1 != 0)
		if o.units == nil {
			f.dept, f.tree, f.headed = guess&2 != 0, guess&4 != 0, guess&8 != 0
		}
		all = append(all, f)
	}
	return all
}

// may is what a person may do whatever of some they are to the record: by rules for
// themselves, or, where none of those denies it, as deputy of somebody who may.
func (o oracle) may(r crmguard.Resource, person, object, action string, possible []facts) bool {
	now := formatEnd(cmp.Or(o.moment, time.Now().Unix()))
	asDeputy := slices.ContainsFunc(o.rows, func(d row) bool {
		if d.kind != "p3" || d.fields[0] != "u:"+person || d.fields[2] != r.Tenant || now < d.fields[3] || d.fields[4] <= now {
			return false
		}
		whom := strings.TrimPrefix(d.fields[1], "u:")
		return !slices.ContainsFunc(o.guesses(whom, r), func(f facts) bool { return !o.allows(r.Tenant, whom, object, action, f) })
	})
	return !slices.ContainsFunc(possible, func(f facts) bool {
		allow, deny := o.rules(r.Tenant, person, object, action, f)
		return deny || !allow && !asDeputy
	})
}

// factsIn translates the engine's word for a relation.
func factsIn(rel relation) facts {
	words := strings.Split(rel.String(), "+")
	return facts{
		own:    slices.Contains(words, "own"),
		dept:   slices.Contains(words, "dept"),
		tree:   slices.Contains(words, "tree"),
		headed: slices.Contains(words, "headed"),
		shared: slices.Contains(words, "shared"),
	}
}

func (o oracle) answer(q question) bool {
	return o.allows(q.tenant, q.person, q.object(), string(q.action), factsIn(q.relation))
}
