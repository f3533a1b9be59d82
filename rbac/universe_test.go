package rbac

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casbin/casbin/v2"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/processtest"
)

// universe is a random policy with rows of every kind, beside random departments.
// Grants and deputies begin and end at some of its moments.
type universe struct {
	rows   []row
	units  map[string]Units // by tenant; nil: there is no Org
	loaded int64            // when the policy is read, one of the moments
}

// The moments of universes, in Unix seconds.
const (
	firstMoment = 1000
	lastMoment  = 1006
)

func randomUniverse(rnd *rand.Rand) universe {
	moment := func() int64 { return firstMoment + 1 + rnd.Int64N(lastMoment-firstMoment) }
	u := universe{rows: randomPolicy(rnd, 8+rnd.IntN(12), rnd.IntN(4), 6), loaded: firstMoment + rnd.Int64N(3)}
	for i, r := range u.rows { // half of the persons' links end
		if r.kind == "g" && strings.HasPrefix(r.fields[0], personPrefix) && rnd.IntN(2) == 0 {
			u.rows[i] = row{"", "p2", append(slices.Clone(r.fields), formatEnd(moment()))}
		}
	}
	for _, tenant := range someTenants {
		for range rnd.IntN(5) {
			pair, from := shuffled(rnd, somePersons[:4]), firstMoment-2+rnd.Int64N(8) // not the job
			u.rows = append(u.rows, row{"", "p3", []string{personPrefix + pair[0], personPrefix + pair[1], tenant,
				formatEnd(from), formatEnd(max(moment(), from+1))}})
		}
		if pair := shuffled(rnd, someNames()[len(somePersons):]); rnd.IntN(3) > 0 {
			u.rows = append(u.rows, row{"", "p4", []string{tenant, pair[0], pair[1]}})
		}
	}
	if rnd.IntN(4) > 0 {
		u.units = map[string]Units{}
		randomOrg(rnd, u.units)
	}
	return u
}

// someNames are all names of subjects in random universes, persons first.
func someNames() (names []string) {
	for _, of := range []struct {
		prefix string
		some   []string
	}{{personPrefix, somePersons}, {rolePrefix, someRoles}, {unitPrefix, someUnits}} {
		for _, name := range of.some {
			names = append(names, of.prefix+name)
		}
	}
	return names
}

// engine reads the policy, which is refused if somebody would have roles at once that
// exclude each other.
func (u universe) engine(t testing.TB) (*Engine, error) {
	t.Helper()
	if _, err := compileAt(u.rows, func() int64 { return u.loaded }); err != nil {
		return nil, err
	}
	var org Org
	if u.units != nil {
		static := &StaticOrg{}
		for tenant, units := range u.units {
			static.Set(tenant, units)
		}
		org = static
	}
	return engineOf(t, u.rows, org), nil
}

// without is the universe without rows of a kind.
func (u universe) without(kind string) universe {
	u.rows = slices.DeleteFunc(slices.Clone(u.rows), func(r row) bool { return r.kind == kind })
	return u
}

// truth is the spec at a moment, with Casbin's answers for those of rules.
func (u universe) truth(t testing.TB, moment int64) oracle {
	t.Helper()
	alive := aliveAt(u.rows, moment)
	var denials []row
	for _, r := range alive {
		switch {
		case r.kind == "g":
			denials = append(denials, r)
		case r.kind == "p" && r.fields[5] == "deny":
			denials = append(denials, row{"", "p", append(slices.Clone(r.fields[:5]), "allow")})
		}
	}
	onlyRules := slices.DeleteFunc(slices.Clone(alive), func(r row) bool { return r.kind != "p" && r.kind != "g" })
	return oracle{rows: alive, units: u.units, moment: moment, casbin: &casbinRules{
		t: t, plain: plainCasbin(t, Model, onlyRules, ScopeRows()), denials: plainCasbin(t, Model, denials, ScopeRows()), known: map[ruleQuestion][2]bool{},
	}}
}

// casbinRules says what rules come to, as Casbin does, of which it asks everything once:
// whether it says yes, and whether it would if rules that deny were the ones that allow.
type casbinRules struct {
	t              testing.TB
	plain, denials *casbin.Enforcer
	known          map[ruleQuestion][2]bool
}

type ruleQuestion struct{ tenant, person, object, action, relation string }

func (c *casbinRules) ask(q ruleQuestion) (allow, deny bool) {
	answers, known := c.known[q]
	if !known {
		for i, e := range []*casbin.Enforcer{c.plain, c.denials} {
			var err error
			answers[i], err = e.Enforce(personPrefix+q.person, q.tenant, q.object, q.action, q.relation)
			require.NoError(c.t, err)
		}
		c.known[q] = answers
	}
	return answers[0], answers[1]
}

// randomUniverseCheck is about something that is allowed if a few tries find it, or nearly
// all would be denied. In a third of the tries a deputy asks for what a rule is about.
func randomUniverseCheck(rnd *rand.Rand, o oracle) (s crmguard.Subject, a crmguard.Action, r crmguard.Resource, want bool) {
	for range 4 {
		s, a, r = randomCheck(rnd, o)
		if rnd.IntN(3) == 0 {
			for _, d := range o.rows {
				if d.kind == "p3" && d.fields[1] == personPrefix+s.ID && d.fields[2] == s.Tenant {
					s.ID = strings.TrimPrefix(d.fields[0], personPrefix)
					break
				}
			}
		}
		if want = o.check(s, a, r); want {
			break
		}
	}
	return s, a, r, want
}

// tally is what many random universes came to.
type tally struct {
	asked, yes, askedCasbin int
	accepted, refused       int // policies, for roles that exclude each other
	wrong                   string
}

// inUniverses compares what engines of random universes say, at some of their moments, with
// their truth, until something is wrong.
func inUniverses(t testing.TB, rnd *rand.Rand, universes, checks int, engine func(u universe) (*Engine, error)) (n tally) {
	t.Helper()
	const moments = 4
	for range universes {
		u := randomUniverse(rnd)
		e := n.load(t, u, engine)
		if n.wrong != "" {
			return n
		}
		for range min(moments, checks) {
			moment := u.loaded + rnd.Int64N(lastMoment-u.loaded+2)
			at := time.Unix(moment, rnd.Int64N(1e9))
			e.clock = func() time.Time { return at }
			truth := u.truth(t, moment)
			for range checks / moments {
				s, a, r, want := randomUniverseCheck(rnd, truth)
				err := e.Check(t.Context(), s, a, r)
				if want != (err == nil) {
					n.wrong = fmt.Sprintf("%+v\nat %d, %v is right: %+v %s %+v: %v", u, moment, want, s, a, r, err)
					return n
				}
				n.asked++
				if want {
					n.yes++
				}
			}
			n.askedCasbin += len(truth.casbin.known)
		}
	}
	return n
}

// load makes the engine, without the rows for which the policy is refused.
func (n *tally) load(t testing.TB, u universe, engine func(u universe) (*Engine, error)) *Engine {
	t.Helper()
	e, err := engine(u)
	if err != nil {
		require.ErrorAs(t, err, new(*PolicyError))
	}
	switch excluded := excludedFrom(u.rows, u.loaded, lastMoment, 1); {
	case excluded != (err != nil):
		n.wrong = fmt.Sprintf("%+v\nto refuse it: %v is right: %v", u, excluded, err)
	case excluded:
		n.refused++
	default:
		n.accepted++
	}
	if err != nil {
		e, err = engine(u.without("p4"))
		require.NoError(t, err)
	}
	return e
}

// Twenty rounds are sixteen thousand decisions, and the five hundred of make fuzz ten
// millions. Of what Casbin knows nothing about, it is asked what it would be then: of grants
// that end, as long as they have not; of a deputy, about both; of departments and their
// heads, about the relation that follows.
func TestManyDecisions(t *testing.T) {
	rounds := processtest.Rounds()
	seed := rand.Uint64()                 //nolint:gosec // which one does not matter, but that it is told
	rnd := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // as said
	n := inUniverses(t, rnd, rounds, 40*rounds, func(u universe) (*Engine, error) { return u.engine(t) })
	require.Empty(t, n.wrong, "seed %d", seed)
	require.Greater(t, n.yes, n.asked*3/10)
	t.Logf("%d decisions, %d allowed; Casbin was asked %d different questions; of the policies %d were accepted, %d refused",
		n.asked, n.yes, n.askedCasbin, n.accepted, n.refused)
}

// Each of these engines has one fault in what Casbin does not know, and the comparison must
// reach it.
func TestFaultsInUniversesAreFound(t *testing.T) {
	eachHolder := func(e *Engine, change func(h *holder) *holder) {
		people := e.current.Load().people
		for of, h := range people {
			people[of] = change(h)
		}
	}
	eachStandIn := func(e *Engine, change func(s *snapshot, of who, in *standIn)) {
		s := e.current.Load()
		for of := range s.standIns {
			for i := range s.standIns[of] {
				change(s, of, &s.standIns[of][i])
			}
		}
	}
	eachUnits := func(u universe, change func(units Units) Units) universe {
		if u.units == nil {
			return u
		}
		changed := map[string]Units{}
		for tenant, units := range u.units {
			changed[tenant] = change(units)
		}
		u.units = changed
		return u
	}
	for name, fault := range map[string]struct {
		known  func(u universe) universe // what the engine gets instead
		judged func(u universe) universe // of which the engine says whether it is refused
		engine func(e *Engine)
	}{
		"nobody stands in": {known: func(u universe) universe { return u.without("p3") }},
		"a deputy goes on": {engine: func(e *Engine) {
			eachStandIn(e, func(_ *snapshot, _ who, in *standIn) { in.end = noEnd })
		}},
		"a deputy begins at once": {engine: func(e *Engine) {
			eachStandIn(e, func(_ *snapshot, _ who, in *standIn) { in.from = 0 })
		}},
		"on the deputy's records": {engine: func(e *Engine) {
			eachStandIn(e, func(_ *snapshot, of who, in *standIn) { in.whom = of.person })
		}},
		"with the deputy's rights": {engine: func(e *Engine) {
			eachStandIn(e, func(s *snapshot, of who, in *standIn) { in.holder = s.people[of] })
		}},
		"whose grants ended still lends them": {engine: func(e *Engine) {
			eachStandIn(e, func(_ *snapshot, _ who, in *standIn) {
				if in.holder != nil {
					in.holder = &holder{is: in.holder.is, end: noEnd}
				}
			})
		}},
		"grants go on": {engine: func(e *Engine) {
			eachHolder(e, func(h *holder) *holder { return &holder{is: h.is, end: noEnd} })
		}},
		"grants have ended": {known: func(u universe) universe { return u.without("p2") }},
		"grants end a second late": {engine: func(e *Engine) {
			seen := map[*holder]bool{}
			eachHolder(e, func(h *holder) *holder {
				for at := h; at != nil && at.then != nil && !seen[at]; at = at.then {
					seen[at] = true
					at.end++
				}
				return h
			})
		}},
		"nobody heads": {known: func(u universe) universe {
			return eachUnits(u, func(units Units) Units { units.Heads = nil; return units })
		}},
		"a head is a member": {known: func(u universe) universe {
			return eachUnits(u, func(units Units) Units {
				members := cloneLists(units.Members)
				for person, heads := range units.Heads {
					members[person] = append(members[person], heads...)
				}
				units.Members = members
				return units
			})
		}},
		"no department is below another": {known: func(u universe) universe {
			return eachUnits(u, func(units Units) Units { units.Parent = nil; return units })
		}},
		"duties are not separated":          {judged: func(u universe) universe { return u.without("p4") }},
		"duties of deputies are not":        {judged: func(u universe) universe { return u.without("p3") }},
		"what ended is separated":           {judged: func(u universe) universe { u.loaded = 0; return u }},
		"only what is for good is excluded": {judged: func(u universe) universe { return u.without("p2") }},
	} {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(47, 48)) //nolint:gosec // the same run every time
			checks := 400
			if fault.judged != nil {
				checks = 0
			}
			n := inUniverses(t, rnd, 100, checks, func(u universe) (*Engine, error) {
				if fault.judged != nil {
					if _, err := fault.judged(u).engine(t); err != nil {
						return nil, err
					}
					u = u.without("p4")
				}
				if fault.known != nil {
					u = fault.known(u)
				}
				e, err := u.engine(t)
				if err == nil && fault.engine != nil {
					fault.engine(e)
				}
				return e, err
			})
			require.NotEmpty(t, n.wrong)
			require.Equal(t, fault.judged != nil, strings.Contains(n.wrong, "to refuse it"), n.wrong)
			t.Logf("after %d policies and %d decisions", n.accepted+n.refused, n.asked)
		})
	}
}
