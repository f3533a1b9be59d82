package rbac

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// plainCasbin reads rows as any host of Casbin would.
func plainCasbin(t testing.TB, modelText string, rows []row, g2 [][]string) *casbin.Enforcer {
	t.Helper()
	m, err := model.NewModelFromString(modelText)
	require.NoError(t, err)
	e, err := casbin.NewEnforcer(m)
	require.NoError(t, err)
	for _, r := range rows {
		if r.kind == "g" {
			_, err = e.AddNamedGroupingPolicy("g", r.fields)
		} else {
			_, err = e.AddNamedPolicy(r.kind, r.fields)
		}
		require.NoError(t, err)
	}
	_, err = e.AddNamedGroupingPolicies("g2", g2)
	require.NoError(t, err)
	return e
}

func enforce(t testing.TB, e *casbin.Enforcer, q question) bool {
	t.Helper()
	ok, err := e.Enforce(personPrefix+q.person, q.tenant, q.object(), string(q.action), q.relation.String())
	require.NoError(t, err)
	return ok
}

func snapshotOf(t testing.TB, rows []row) *snapshot {
	t.Helper()
	s, err := compile(rows)
	require.NoError(t, err)
	return s
}

// Every policy of one or two rules of a small universe, and every question in it.
func TestEveryQuestionOfSmallUniverses(t *testing.T) {
	var rules []row
	for _, subject := range [][]string{{"u:a", "t1"}, {"role:r", "t1"}, {"role:r", "t2"}} {
		for _, scope := range scopeWords {
			for _, effect := range []string{"allow", "deny"} {
				rules = append(rules, row{"", "p", []string{subject[0], subject[1], "contacts", "view", scope, effect}})
			}
		}
	}
	var questions []question
	for _, person := range []string{"a", "r"} { // r is called like the role
		for _, tenant := range []string{"t1", "t2"} {
			for rel := range relations {
				questions = append(questions, question{tenant, person, "contacts", "", crmguard.View, relation(rel)})
			}
		}
	}
	links := []row{{"", "g", []string{"u:a", "role:r", "t1"}}}
	asked, yes := 0, 0
	for i := range rules {
		for j := range i + 1 {
			rows := append([]row{rules[i], rules[j]}, links...)
			s, o, plain := snapshotOf(t, rows), oracle{rows: rows}, plainCasbin(t, Model, rows, ScopeRows())
			for _, q := range questions {
				v := s.decide(q)
				if want := o.answer(q); (v == allowed) != want || enforce(t, plain, q) != want {
					t.Fatalf("%v\n%+v: the spec says %v, the engine %v", rows, q, want, v)
				}
				asked++
				if v == allowed {
					yes++
				}
			}
		}
	}
	t.Logf("%d questions, %d allowed", asked, yes)
}

// differences counts the random questions that an engine answers otherwise than
// the spec, and the share that the spec allows.
func differences(t testing.TB, rnd *rand.Rand, policies, questions int, build func(rows []row) func(q question) bool) (wrong int, share float64) {
	t.Helper()
	yes := 0
	for range policies {
		rows := randomPolicy(rnd, 10+rnd.IntN(30), 9, 6)
		o, answer := oracle{rows: rows}, build(rows)
		for range questions {
			q := randomQuestion(rnd, o)
			want := o.answer(q)
			if want {
				yes++
			}
			if answer(q) != want {
				wrong++
			}
		}
	}
	return wrong, float64(yes) / float64(policies*questions)
}

// sameAsCasbin answers as the engine does, and requires that its answer is
// Casbin's.
func sameAsCasbin(t testing.TB) func(rows []row) func(q question) bool {
	return func(rows []row) func(q question) bool {
		s, plain := snapshotOf(t, rows), plainCasbin(t, Model, rows, ScopeRows())
		return func(q question) bool {
			v := s.decide(q)
			require.Equal(t, enforce(t, plain, q), v == allowed, "%v\n%+v", rows, q)
			return v == allowed
		}
	}
}

func TestRandomPoliciesAnswerLikeCasbinAndTheSpec(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same run every time
	wrong, share := differences(t, rnd, 40, 150, sameAsCasbin(t))
	require.Zero(t, wrong)
	require.GreaterOrEqual(t, share, 0.3, "too many questions are denied for the test to mean much")
	t.Logf("%.0f %% of the questions were allowed", 100*share)
}

// Whatever policy is accepted answers any question, the fuzzer's and one for each
// of its rules, like Casbin and the spec.
func FuzzDifferential(f *testing.F) {
	f.Add(teamPolicy, "acme", "anna", "contacts", "phone", "read", uint8(5))
	f.Add(chainOfRoles(10)+"\np, role:r10, acme, contacts, view, dept, allow", "acme", "anna", "contacts", "", "view", uint8(6))
	f.Add("p, unit:Юг, t, a, view, all, allow\ng, role:x, unit:Юг, t\ng, u:o$leg, role:x, t\np, u:o$leg, t, a, view, shared, deny", "t", "o$leg", "a", "", "view", uint8(4))
	f.Add("p, role:a, t, k, view, all, allow\np2, u:x, role:a, t, 2026-12-31T18:00:00Z\np2, u:x, role:b, t, 2026-12-30T18:00:00Z\np, role:b, t, k, view, own, deny", "t", "x", "k", "", "view", uint8(0))
	f.Fuzz(func(t *testing.T, text, tenant, person, kind, field, action string, rel uint8) {
		_, rows, err := readRows(t.Context(), textSource{text: text})
		if err != nil || len(rows) > 200 {
			return
		}
		s, err := compile(rows)
		if err != nil {
			require.ErrorAs(t, err, new(*PolicyError))
			return
		}
		rows = s.rows.all()
		o, plain := oracle{rows: rows}, plainCasbin(t, Model, rows, ScopeRows())
		questions := []question{{tenant, person, kind, field, crmguard.Action(action), relation(rel % relations)}}
		for _, r := range rows {
			if r.kind == "p" {
				kind, field, _ := strings.Cut(r.fields[2], "#")
				id, _ := strings.CutPrefix(r.fields[0], personPrefix)
				questions = append(questions,
					question{r.fields[1], person, kind, field, crmguard.Action(r.fields[3]), relation(rel % relations)},
					question{r.fields[1], id, kind, field, crmguard.Action(r.fields[3]), relation(rel % relations)})
			}
		}
		for _, q := range questions {
			if strings.ContainsRune(q.person+q.tenant+q.object()+string(q.action), 0) {
				continue // Casbin joins its own keys with NUL
			}
			v := s.decide(q)
			require.Equal(t, o.answer(q), v == allowed, "%+v", q)
			require.Equal(t, enforce(t, plain, q), v == allowed, "%+v", q)
		}
	})
}

// Each of these engines has one fault, and the comparison above must notice it.
func TestPlantedFaultsAreFound(t *testing.T) {
	for name, plant := range map[string]func(s *snapshot) *snapshot{
		"none": func(s *snapshot) *snapshot { return s },
		"depth": func(s *snapshot) *snapshot { // the ninth link of a chain is not followed
			rows := slices.DeleteFunc(s.rows.all(), func(r row) bool { return r.kind == "g" && r.fields[1] == "role:chain9" })
			return newSnapshot(rowSetOf(rows))
		},
		"deny": func(s *snapshot) *snapshot {
			return eachRight(s, func(m masks) masks { return masks{allow: m.allow} })
		},
		"tenant": func(s *snapshot) *snapshot { // one has the other's
			for _, person := range somePersons {
				s.people[who{someTenants[0], person}] = s.people[who{someTenants[1], person}]
			}
			return s
		},
		"scope": func(s *snapshot) *snapshot { // tree does not cover dept
			return eachRight(s, func(m masks) masks {
				if m.allow.has(relTree) && !m.allow.has(relNone) {
					m.allow &^= 1 << relDept
				}
				return m
			})
		},
		"combined relation": func(s *snapshot) *snapshot { // what is own and shared is only own
			return eachRight(s, func(m masks) masks {
				plain := m.allow & (1<<relOwn | 1<<relDept | 1<<relTree)
				m.allow = m.allow&(unsharedRelations|1<<relShared) | plain<<relShared
				return m
			})
		},
		"a head who is a member is only a member": func(s *snapshot) *snapshot {
			return eachRight(s, func(m masks) masks {
				if !m.allow.has(relDept) {
					m.allow &^= 1 << relDeptHeaded
				}
				return m
			})
		},
		"roles of another": func(s *snapshot) *snapshot {
			for _, tenant := range someTenants {
				s.people[who{tenant, somePersons[0]}] = s.people[who{tenant, somePersons[1]}]
			}
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // the same run every time
			wrong, _ := differences(t, rnd, 8, 150, func(rows []row) func(q question) bool {
				s := plant(snapshotOf(t, rows))
				return func(q question) bool { return s.decide(q) == allowed }
			})
			require.Equal(t, name == "none", wrong == 0, "%d differences", wrong)
			t.Logf("%d differences", wrong)
		})
	}
}

// eachRight changes what rules come to.
func eachRight(s *snapshot, change func(m masks) masks) *snapshot {
	for i := range s.cells {
		for of, m := range s.cells[i] {
			s.cells[i][of] = change(m)
		}
	}
	return s
}

// relate and the graph of scopes together must say what the facts say one by one.
func TestRelationsCoverTheFacts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // the same run every time
	yes := 0
	for range 20 {
		yes += requireSameAsFacts(t, rnd, 300)
	}
	share := float64(yes) / (20 * 300)
	require.GreaterOrEqual(t, share, 0.3)
	t.Logf("%.0f %% allowed", 100*share)
}

// requireSameAsFacts makes a policy and departments, compares Check with the
// spec, and returns how many checks were allowed.
func requireSameAsFacts(t testing.TB, rnd *rand.Rand, checks int) (yes int) {
	t.Helper()
	rows := withDeputies(rnd, randomPolicy(rnd, 60, 3, 6))
	o := oracle{rows: rows, units: map[string]Units{}}
	var org Org
	if rnd.IntN(3) == 0 {
		o.units = nil
	} else {
		org = randomOrg(rnd, o.units)
	}
	e := engineOf(t, rows, org)
	for range checks {
		s, a, r := randomCheck(rnd, o)
		want := o.check(s, a, r)
		err := e.Check(context.Background(), s, a, r)
		require.Equal(t, want, err == nil, "%v\n%+v %s %+v: %v", rows, s, a, r, err)
		if want {
			yes++
		}
	}
	return yes
}

// An engine that takes unknown departments for none would be noticed.
func TestPlantedFaultOfUnknownDepartments(t *testing.T) {
	rnd := rand.New(rand.NewPCG(17, 18)) //nolint:gosec // the same run every time
	asked, missed := 0, 0
	for range 20 {
		o := oracle{rows: randomPolicy(rnd, 60, 3, 6)}
		sound, faulty := engineOf(t, o.rows, nil), engineOf(t, o.rows, &StaticOrg{})
		for range 200 {
			s, a, r := randomCheck(rnd, o)
			s.Units, s.OnBehalfOf = nil, pick(rnd, somePersons[:4])
			want := o.check(s, a, r)
			require.Equal(t, want, sound.Check(t.Context(), s, a, r) == nil)
			if want != (faulty.Check(t.Context(), s, a, r) == nil) {
				missed++
			}
			asked++
		}
	}
	require.NotZero(t, missed)
	t.Logf("%d of %d", missed, asked)
}

// randomOrg makes departments of all tenants and notes them in units.
func randomOrg(rnd *rand.Rand, units map[string]Units) *StaticOrg {
	org := &StaticOrg{}
	for _, tenant := range someTenants {
		units[tenant] = randomUnits(rnd)
		org.Set(tenant, units[tenant])
	}
	return org
}

// engineOf is an engine in memory, which no store stands behind.
func engineOf(t testing.TB, rows []row, org Org) *Engine {
	t.Helper()
	e := &Engine{log: slog.New(slog.DiscardHandler), clock: time.Now, store: make(chan struct{}, 1), uptime: quickClock{began: time.Now()}}
	e.org.open(org, &e.uptime)
	e.current.Store(snapshotOf(t, rows))
	return e
}

func randomCheck(rnd *rand.Rand, o oracle) (crmguard.Subject, crmguard.Action, crmguard.Resource) {
	q := randomQuestion(rnd, o)
	s := crmguard.Subject{Tenant: q.tenant, ID: q.person, Kind: kindOf(q.person)}
	if o.units == nil {
		s.Units = shuffled(rnd, someUnits)[:rnd.IntN(3)]
	}
	r := crmguard.Resource{
		Tenant: q.tenant, Kind: q.kind, Field: q.field, ID: "1",
		Owner: pick(rnd, append([]string{"", q.person, q.person}, somePersons...)),
		Unit:  pick(rnd, append([]string{""}, someUnits...)), Shared: rnd.IntN(3) == 0,
	}
	if kind, field, ok := strings.Cut(q.kind, "#"); ok {
		r.Kind, r.Field = kind, field
	}
	if rnd.IntN(7) == 0 {
		s.OnBehalfOf = pick(rnd, somePersons)
	}
	switch rnd.IntN(12) {
	case 0:
		s.Scopes = []string{pick(rnd, someKinds) + ":*"}
	case 1:
		s.Scopes = []string{r.Kind + ":" + string(pick(rnd, someActions))}
	}
	if q.action == fieldRead {
		q.action = crmguard.View
	}
	return s, q.action, r
}
