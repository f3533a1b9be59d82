package rbac

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// asking is a question to an engine.
type asking struct {
	s crmguard.Subject
	a crmguard.Action
	r crmguard.Resource
}

func randomAsking(rnd *rand.Rand, o oracle) (q asking) {
	q.s, q.a, q.r = randomCheck(rnd, o)
	if rnd.IntN(8) == 0 {
		q.r.ID, q.r.Owner, q.r.Unit = "", "", ""
	}
	return q
}

// violations are what of the contract of Explain does not hold for the answer of an
// explainer to a question.
func violations(t testing.TB, rows []row, org Org, q asking, explain func(e *Engine, q asking) Explanation) (found []string) {
	t.Helper()
	e := engineOf(t, rows, org)
	x := explain(e, q)
	err := e.Check(t.Context(), q.s, q.a, q.r)
	if !sameDenial(err, x.Denial) {
		found = append(found, "another answer")
	}
	allows := make(map[[7]string]bool)
	for _, by := range x.By {
		for _, r := range by.Rules {
			if !slices.ContainsFunc(rows, func(row row) bool { return slices.Equal(row.rule(), r.Rule) }) {
				found = append(found, "a rule that is not there")
			}
			if !pathExists(rows, q.r.Tenant, by.Subject, r) {
				found = append(found, "a path that is not there")
			}
			if !r.Denies() {
				allows[rowOf("", r.Rule).key()] = true
			}
		}
	}
	if err == nil {
		fewer := slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return allows[r.key()] })
		fewer = append(fewer, row{"", "p", []string{"u:keeper", "keeper", "a", "view", "all", "allow"}})
		if engineOf(t, fewer, org).Check(t.Context(), q.s, q.a, q.r) == nil {
			found = append(found, "allowed without the rules that allow it")
		}
	}
	if x.Denial == nil || x.Denial.Code != "no-rule" {
		return found
	}
	return append(found, wrongProposals(t, rows, org, q, x)...)
}

func sameDenial(err error, denial *crmguard.Denial) bool {
	if err == nil || denial == nil {
		return err == nil && denial == nil
	}
	return err.Error() == denial.Error()
}

func pathExists(rows []row, tenant, from string, r Reason) bool {
	if r.Path[0] != from || r.Path[len(r.Path)-1] != r.Rule[1] {
		return false
	}
	for i, name := range r.Path[1:] {
		if !slices.ContainsFunc(rows, func(row row) bool {
			return row.kind == "g" && slices.Equal(row.fields, []string{r.Path[i], name, tenant})
		}) {
			return false
		}
	}
	return true
}

// wrongProposals looks at each row that is said to be missing: with it, and one for
// each other party that lacks something, the answer is yes, unless a rule denies the
// other.
func wrongProposals(t testing.TB, rows []row, org Org, q asking, x Explanation) (found []string) {
	t.Helper()
	for i, by := range x.By {
		for _, missing := range by.Missing {
			more := append(slices.Clone(rows), rowOf("", missing))
			deniedOther := false
			for j, other := range x.By {
				switch {
				case j == i || other.Allowed:
				case len(other.Missing) == 0:
					deniedOther = true
				default:
					more = append(more, rowOf("", other.Missing[0]))
				}
			}
			if _, err := compile(more); err != nil {
				found = append(found, "a row that lint refuses")
				continue
			}
			if deniedOther {
				continue
			}
			if err := engineOf(t, more, org).Check(t.Context(), q.s, q.a, q.r); err != nil {
				found = append(found, "a missing row that is not enough")
			}
		}
		if !by.Allowed && len(by.Missing) == 0 && !slices.ContainsFunc(by.Rules, Reason.Denies) {
			found = append(found, "nothing that would do")
		}
	}
	return found
}

func explained(t testing.TB) func(e *Engine, q asking) Explanation {
	return func(e *Engine, q asking) Explanation {
		x, err := e.Explain(t.Context(), q.s, q.a, q.r)
		require.NoError(t, err)
		require.NotEmpty(t, x.String())
		return x
	}
}

// explainAtRandom counts what violations finds in random universes.
func explainAtRandom(t testing.TB, policies, questions int, explain func(e *Engine, q asking) Explanation) (wrong map[string]int, codes map[string]int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // the same run every time
	wrong, codes = map[string]int{}, map[string]int{}
	for i := range policies {
		rows := randomPolicy(rnd, 10+rnd.IntN(20), 9, 5)
		o := oracle{rows: rows}
		var org Org
		if i%4 > 0 {
			o.units = make(map[string]Units)
			org = randomOrg(rnd, o.units)
		}
		for range questions {
			q := randomAsking(rnd, o)
			for _, v := range violations(t, rows, org, q, explain) {
				if wrong[v]++; wrong[v] == 1 {
					t.Logf("%s: %+v\n%v", v, q, explain(engineOf(t, rows, org), q))
				}
			}
			code := "allowed"
			if x := explain(engineOf(t, rows, org), q); x.Denial != nil {
				code = x.Denial.Code
			}
			codes[code]++
		}
	}
	return wrong, codes
}

func TestExplainSaysWhatDecided(t *testing.T) {
	wrong, codes := explainAtRandom(t, 30, 50, explained(t))
	require.Empty(t, wrong)
	for _, code := range []string{"allowed", "no-rule", "deny-rule", "scope"} {
		require.Greater(t, codes[code], 20, code)
	}
	t.Log(codes)
}

func TestFaultsOfExplanationsAreFound(t *testing.T) {
	for name, test := range map[string]struct {
		fault func(x *Explanation)
		found string
	}{
		"another answer": {func(x *Explanation) { x.Denial = nil }, "another answer"},
		"rules left out": {func(x *Explanation) {
			for i := range x.By {
				x.By[i].Rules = x.By[i].Rules[:len(x.By[i].Rules)/2]
			}
		}, "allowed without the rules that allow it"},
		"a path cut short": {func(x *Explanation) {
			for i := range x.By {
				for j := range x.By[i].Rules {
					if path := x.By[i].Rules[j].Path; len(path) > 2 {
						x.By[i].Rules[j].Path = []string{path[0], path[len(path)-1]}
					}
				}
			}
		}, "a path that is not there"},
		"a scope that is too narrow": {func(x *Explanation) {
			for i := range x.By {
				for j, row := range x.By[i].Missing {
					if row[0] == "p" {
						x.By[i].Missing[j] = append(slices.Clone(row[:5]), "own", "allow")
					}
				}
			}
		}, "a missing row that is not enough"},
		"no way out": {func(x *Explanation) {
			for i := range x.By {
				x.By[i].Missing = nil
			}
		}, "nothing that would do"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong, _ := explainAtRandom(t, 6, 40, func(e *Engine, q asking) Explanation {
				x := explained(t)(e, q)
				test.fault(&x)
				return x
			})
			require.NotZero(t, wrong[test.found], wrong)
		})
	}
}

// Every rule of a small universe, alone and with each other one, and every question.
func TestExplainInSmallUniverses(t *testing.T) {
	var rules []row
	for _, subject := range []string{"u:a", "role:r", "role:s"} {
		for _, scope := range scopeWords {
			for _, effect := range effectWords {
				rules = append(rules, row{"", "p", []string{subject, "t", "contacts", "view", scope, effect}})
			}
		}
	}
	org := &StaticOrg{}
	org.Set("t", Units{
		Parent:  map[string]string{"below": "mine", "below-led": "mine"},
		Members: map[string][]string{"a": {"mine", "mine-led"}},
		Heads:   map[string][]string{"a": {"led", "mine-led", "below-led"}},
	})
	var questions []asking
	for _, owner := range []string{"", "a"} {
		for _, unit := range []string{"", "mine", "below", "led", "mine-led", "below-led"} {
			for _, shared := range []bool{false, true} {
				questions = append(questions, asking{
					crmguard.Subject{Tenant: "t", ID: "a", Kind: crmguard.KindEmployee}, crmguard.View,
					crmguard.Resource{Tenant: "t", Kind: "contacts", ID: "1", Owner: owner, Unit: unit, Shared: shared},
				})
			}
		}
	}
	link := row{"", "g", []string{"u:a", "role:r", "t"}}
	for i := range rules {
		for j := range i + 1 {
			rows := []row{rules[i], rules[j], link}
			for _, q := range questions {
				require.Empty(t, violations(t, rows, org, q, explained(t)), "%v\n%+v", rows, q)
			}
		}
	}
}

func TestExplainTellsWhatCutsOff(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, teamOrg())
	ask := func(s crmguard.Subject, a crmguard.Action, r crmguard.Resource) Explanation {
		s.Tenant, s.Kind, r.Tenant = "acme", kindOf(s.ID), "acme"
		x, err := e.Explain(t.Context(), s, a, r)
		require.NoError(t, err)
		require.Equal(t, e.Version(), x.Policy)
		require.True(t, sameDenial(e.Check(t.Context(), s, a, r), x.Denial))
		return x
	}
	contact := crmguard.Resource{Kind: "contacts", ID: "1", Owner: "anna"}

	x := ask(crmguard.Subject{ID: "anna", Scopes: []string{"contacts:list"}}, crmguard.View, contact)
	require.Equal(t, "contacts:view", x.NeedsScope)
	require.True(t, x.By[0].Allowed)
	require.Contains(t, x.String(), "the credential has no scope contacts:view")

	x = ask(crmguard.Subject{ID: "oleg", OnBehalfOf: "anna"}, crmguard.View, crmguard.Resource{Kind: "contacts", ID: "1", Owner: "vera"})
	require.Empty(t, x.NeedsScope)
	require.True(t, x.By[0].Allowed)
	require.False(t, x.By[1].Allowed)
	require.Equal(t, []string{"none", "shared"}, x.By[1].Relations)
	require.Contains(t, x.String(), "u:anna, for whom it acts, has the relation none or shared")

	x = ask(crmguard.Subject{ID: "vera"}, crmguard.Export, crmguard.Resource{Kind: "contacts", ID: "1", Owner: "vera", Shared: true})
	require.Equal(t, "deny-rule", x.Denial.Code)
	require.Equal(t, []string{"own+shared"}, x.By[0].Relations)
	require.True(t, x.By[0].Rules[0].Denies())
	require.False(t, x.By[0].Rules[1].Denies())
	require.Empty(t, x.By[0].Missing)

	x = ask(crmguard.Subject{ID: "anna"}, crmguard.View, crmguard.Resource{Kind: "contacts"})
	require.Equal(t, "no-record", x.Denial.Code)
	require.Contains(t, x.String(), "names none")

	x = ask(crmguard.Subject{ID: "anna"}, crmguard.Access, crmguard.Resource{Kind: "section:journal"})
	require.Equal(t, [][]string{{"g", "u:anna", "role:auditor", "acme"}}, x.By[0].Missing)

	x = ask(crmguard.Subject{ID: "anna"}, "fly", contact)
	require.Empty(t, x.By[0].Missing, "no row can allow it")
	x = ask(crmguard.Subject{ID: "anna"}, crmguard.View, crmguard.Resource{Kind: "contacts#phone", ID: "1"})
	require.Empty(t, x.By[0].Missing, "that is no kind")

	x, err := e.Explain(t.Context(), crmguard.Subject{Tenant: "globex", ID: "anna", Kind: crmguard.KindEmployee}, crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts"})
	require.NoError(t, err)
	require.Equal(t, "tenant", x.Denial.Code)
	require.Empty(t, x.By, "no row of another tenant is told")

	_, err = e.Explain(t.Context(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}, crmguard.View, crmguard.Resource{Tenant: "acme"})
	require.ErrorIs(t, err, errNoKind)
}

// Who changes what an explanation holds does not change what Check returns.
func TestExplanationsAreTheAskers(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, nil)
	s, r := crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1"}
	x, err := e.Explain(t.Context(), s, crmguard.View, r)
	require.NoError(t, err)
	x.Denial.Code = "spoilt"
	requireDenied(t, e.Check(t.Context(), s, crmguard.View, r), "no-rule")
}

// A grant that ends is in the reasons exactly as long as in the answer.
func TestExplainAtTheEndOfAGrant(t *testing.T) {
	end := time.Date(2026, 12, 31, 18, 0, 0, 0, time.UTC)
	e := engineOf(t, []row{
		{"", "p", []string{"role:head", "acme", "contacts", "view", "all", "allow"}},
		{"", "p2", []string{"u:anna", "role:head", "acme", formatEnd(end.Unix())}},
	}, nil)
	tick := 0
	e.clock = func() time.Time { // each look at the clock is later
		tick++
		return end.Add(time.Duration(tick-2) * time.Second)
	}
	x, err := e.Explain(t.Context(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}, crmguard.View,
		crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1"})
	require.NoError(t, err)
	require.Nil(t, x.Denial)
	require.Len(t, x.By[0].Rules, 1)
}
