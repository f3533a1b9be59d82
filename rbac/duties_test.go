package rbac

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	fileadapter "github.com/casbin/casbin/v2/persist/file-adapter"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

const dutiesPolicy = `p, role:buyer, acme, orders, create, all, allow
p, role:payer, acme, orders, update, all, allow
p4, acme, role:buyer, role:payer
g, u:anna, role:buyer, acme
`

// Whichever way leads to both roles, the policy is refused, at the row that leads there.
func TestExcludedRolesAreRefused(t *testing.T) {
	for name, test := range map[string]struct{ rows, where, reason string }{
		"both":                  {"g, u:anna, role:payer, acme", ":5", "u:anna would have role:buyer and role:payer at once"},
		"a team":                {"g, unit:desk, role:payer, acme\ng, u:anna, unit:desk, acme", ":6", "u:anna would have role:buyer and unit:desk → role:payer"},
		"roles of a role":       {"g, role:boss, role:payer, acme\ng, role:boss, role:buyer, acme", ":6", "role:boss would have"},
		"one in another":        {"g, role:payer, role:buyer, acme", ":5", "role:payer would have role:buyer and role:payer at once"},
		"other in one":          {"g, role:buyer, role:payer, acme", ":5", "role:buyer would have"},
		"a grant that ends":     {"p2, u:anna, role:payer, acme, 2026-12-31T18:00:00Z", ":5", "u:anna would have"},
		"two that end":          {"p2, u:b, role:payer, acme, 2026-12-31T18:00:00Z\np2, u:b, role:buyer, acme, 2026-12-30T18:00:00Z", ":6", "u:b would have"},
		"the later of two ends": {"p2, u:b, role:payer, acme, 2026-11-01T18:00:00Z\np2, u:b, role:payer, acme, 2026-12-30T18:00:00Z\ng, u:b, role:buyer, acme", ":7", "u:b would have"},
		"two teams":             {"g, unit:x, role:payer, acme\np4, acme, unit:x, unit:y\ng, u:c, unit:y, acme\ng, u:c, unit:x, acme", ":8", "u:c would have"},
		"long way":              {"g, role:a, role:payer, acme\ng, role:b, role:a, acme\ng, u:anna, role:b, acme", ":7", "role:b → role:a → role:payer"},
		"a deputy":              {"g, u:b, role:payer, acme\np3, u:anna, u:b, acme, 2026-12-01T00:00:00Z, 2026-12-02T00:00:00Z", ":6", "u:anna would have role:buyer and role:payer as deputy of u:b at once"},
		"another deputy":        {"g, u:b, role:payer, acme\np3, u:b, u:anna, acme, 2026-12-01T00:00:00Z, 2026-12-02T00:00:00Z", ":6", "u:b would have role:payer and role:buyer as deputy of u:anna at once"},
		"a deputy of two":       {"g, u:b, role:payer, acme\np3, u:c, u:b, acme, 2026-12-01T00:00:00Z, 2026-12-03T00:00:00Z\np3, u:c, u:anna, acme, 2026-12-02T00:00:00Z, 2026-12-04T00:00:00Z", ":7", "u:c would have role:buyer as deputy of u:anna and role:payer as deputy of u:b at once"},
		"itself":                {"p4, acme, role:x, role:x", ":5", "excludes itself"},
		"a person":              {"p4, acme, u:anna, role:x", ":5", "want a name that starts with"},
		"three":                 {"p4, acme, role:x, role:y, role:z", ":5", "4 fields; want 3"},
	} {
		t.Run(name, func(t *testing.T) {
			o := quiet()
			o.Clock = newHands("2026-11-22T12:00:00Z").now
			_, err := FromCSV(t.Context(), policyFile(t, dutiesPolicy+test.rows+"\n"), o)
			var refused *PolicyError
			require.ErrorAs(t, err, &refused)
			require.Len(t, refused.Findings, 1)
			require.Equal(t, "policy.csv"+test.where, refused.Findings[0].Where)
			require.Contains(t, refused.Findings[0].Reason, test.reason)
			if strings.Contains(test.reason, "would have") && name != "two teams" {
				require.Contains(t, refused.Findings[0].Reason, "p4, acme, role:buyer, role:payer (policy.csv:3)")
			}
		})
	}
	for name, rows := range map[string]string{
		"another person":                "g, u:boris, role:payer, acme",
		"another tenant":                "g, u:anna, role:payer, globex",
		"ended":                         "p2, u:anna, role:payer, acme, 2026-11-22T11:00:00Z",
		"ends just now":                 "p2, u:anna, role:payer, acme, 2026-11-22T12:00:30Z", // clocks differ
		"a rule of a person":            "p, u:anna, acme, orders, update, all, allow",
		"deputies in turn":              "g, u:b, role:payer, acme\np3, u:c, u:b, acme, 2026-12-01T00:00:00Z, 2026-12-02T00:00:00Z\np3, u:c, u:anna, acme, 2026-12-02T00:00:00Z, 2026-12-04T00:00:00Z",
		"a deputy that was":             "g, u:b, role:payer, acme\np3, u:anna, u:b, acme, 2026-11-01T00:00:00Z, 2026-11-22T00:00:00Z",
		"a deputy of whom it has ended": "p2, u:b, role:payer, acme, 2026-12-01T00:00:00Z\np3, u:anna, u:b, acme, 2026-12-01T00:00:00Z, 2026-12-02T00:00:00Z",
		"a deputy for one of the same":  "g, u:b, role:buyer, acme\np3, u:anna, u:b, acme, 2026-12-01T00:00:00Z, 2026-12-02T00:00:00Z",
		"nobody has them":               "p4, acme, role:x, role:y",
	} {
		t.Run(name, func(t *testing.T) {
			engineAt(t, dutiesPolicy+rows+"\n", newHands("2026-11-22T12:00:00Z"))
		})
	}
}

func TestNobodyIsGrantedAnExcludedRole(t *testing.T) {
	clock := newHands("2026-11-22T12:00:00Z")
	e, path := engineAt(t, dutiesPolicy+"g, unit:desk, role:payer, acme\ng, u:boris, unit:desk, acme\np2, u:vera, role:payer, acme, 2026-12-31T18:00:00Z\ng, role:deputy, role:payer, acme\n", clock)
	job := crmguard.System(t.Context(), "acme", "test")
	for person, role := range map[string]string{"anna": "payer", "boris": "buyer", "vera": "buyer"} {
		requireDenied(t, e.GrantRole(job, "acme", person, role), "separation-of-duties")
		requireDenied(t, e.GrantRoleUntil(job, "acme", person, role, clock.now().AddDate(0, 0, 1)), "separation-of-duties")
	}
	requireDenied(t, e.GrantRole(job, "acme", "anna", "deputy"), "separation-of-duties")
	require.NoError(t, e.GrantRole(job, "acme", "vera", "payer"), "the same role for good")
	require.NoError(t, e.RevokeRole(job, "acme", "vera", "payer"))
	require.NoError(t, e.GrantRole(job, "acme", "vera", "buyer"))

	require.NoError(t, e.GrantRoleUntil(job, "acme", "olga", "payer", clock.now().AddDate(0, 0, 1)))
	requireDenied(t, e.GrantRole(job, "acme", "olga", "buyer"), "separation-of-duties")
	clock.set("2026-11-23T12:00:00Z")
	require.NoError(t, e.GrantRole(job, "acme", "olga", "buyer"), "one has ended")
	_, err := FromCSV(t.Context(), path, &Options{Clock: newHands("2026-11-23T11:59:30Z").now, Logger: quiet().Logger})
	require.NoError(t, err, "a process whose clock is late")
	_, err = FromCSV(t.Context(), path, &Options{Clock: newHands("2026-11-23T11:00:00Z").now, Logger: quiet().Logger})
	require.IsType(t, &PolicyError{}, err)

	from, end := clock.now(), clock.now().AddDate(0, 0, 1)
	requireDenied(t, e.Deputize(job, "acme", "anna", "boris", from, end), "separation-of-duties")
	require.NoError(t, e.Deputize(job, "acme", "clara", "boris", from, end))
	requireDenied(t, e.GrantRole(job, "acme", "clara", "buyer"), "separation-of-duties")
	requireDenied(t, e.Deputize(job, "acme", "clara", "anna", end.Add(-time.Hour), end.Add(time.Hour)), "separation-of-duties")
	require.NoError(t, e.Deputize(job, "acme", "clara", "anna", end, end.Add(time.Hour)), "one after the other")
	require.NoError(t, e.Deputize(job, "acme", "clara", "zoe", from, end))
	requireDenied(t, e.GrantRole(job, "acme", "zoe", "buyer"), "separation-of-duties")

	_, err = e.Draft(job, "acme", ruleRows(e, "g", "u:anna", "role:payer", "acme"))
	require.ErrorContains(t, err, "u:anna would have")
}

// ruleRows are the rows in force and one more.
func ruleRows(e *Engine, more ...string) [][]string {
	rules := [][]string{more}
	for _, r := range e.current.Load().rows.all() {
		rules = append(rules, r.rule())
	}
	return rules
}

// A reload that is refused keeps what is excluded.
func TestExclusionsOutlastARefusedReload(t *testing.T) {
	e, path := engineAt(t, dutiesPolicy, newHands("2026-11-22T12:00:00Z"))
	require.NoError(t, (&csvFile{path}).replace([]byte(strings.Replace(dutiesPolicy, "p4, acme, role:buyer, role:payer", "p4, acme, role:buyer", 1))))
	require.Error(t, e.Reload(t.Context()))
	requireDenied(t, e.separated("anna", "payer"), "separation-of-duties")
}

func (e *Engine) separated(person, role string) error {
	return e.current.Load().separates(row{"", "g", []string{personPrefix + person, rolePrefix + role, "acme"}}, e.now())
}

type conflictsFunc func(s *rowSet, now int64) []Finding

// wrongConflicts counts random policies with exclusions of which it is said otherwise than
// by looking at every person and role at every moment.
func wrongConflicts(t *testing.T, find conflictsFunc) (wrong, refused, sound int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(41, 42)) //nolint:gosec // the same run every time
	for range 400 {
		rows := slices.DeleteFunc(randomPolicy(rnd, 2, 0, 4), func(r row) bool { return r.kind == "g" && rnd.IntN(2) == 0 })
		for _, name := range somePersons {
			if rnd.IntN(2) == 0 {
				rows = append(rows, row{"", "p2", []string{personPrefix + name, rolePrefix + pick(rnd, someRoles), someTenants[0], formatEnd(int64(100 * (1 + rnd.IntN(3))))}})
			}
		}
		for range rnd.IntN(6) {
			pair, from := shuffled(rnd, somePersons[:4]), int64(50*rnd.IntN(6))
			rows = append(rows, row{"", "p3", []string{personPrefix + pair[0], personPrefix + pair[1], someTenants[0], formatEnd(from), formatEnd(from + 50*int64(1+rnd.IntN(4)))}})
		}
		for range 1 + rnd.IntN(2) {
			pair := shuffled(rnd, someNames()[len(somePersons):])
			rows = append(rows, row{"", "p4", []string{someTenants[rnd.IntN(4)/3], pair[0], pair[1]}})
		}
		now := int64(rnd.IntN(4) * 100)
		want := excludedFrom(rows, now, 500, 50)
		switch got := len(find(rowSetOf(rows), now)) > 0; {
		case got != want:
			wrong++
		case got:
			refused++
		default:
			sound++
		}
	}
	return wrong, refused, sound
}

// excludedFrom reports whether somebody has two roles at once that exclude each other, by
// looking at everybody at each moment from now to the last one.
func excludedFrom(rows []row, now, last, step int64) bool {
	for moment := now; moment <= last; moment += step {
		o, at := oracle{rows: aliveAt(rows, moment)}, formatEnd(moment)
		for _, x := range rows {
			if x.kind != "p4" {
				continue
			}
			for _, name := range someNames() {
				is := o.identities(x.fields[0], name)
				for _, d := range rows { // times of one form are in the order of their texts
					if d.kind == "p3" && d.fields[0] == name && d.fields[2] == x.fields[0] && d.fields[3] <= at && at < d.fields[4] {
						is = append(is, o.identities(x.fields[0], d.fields[1])...)
					}
				}
				if slices.Contains(is, x.fields[1]) && slices.Contains(is, x.fields[2]) {
					return true
				}
			}
		}
	}
	return false
}

func TestEachConflictIsFound(t *testing.T) {
	wrong, refused, sound := wrongConflicts(t, (*rowSet).conflicts)
	require.Zero(t, wrong)
	require.Greater(t, min(refused, sound), 40)
}

func TestFaultsInConflictsAreFound(t *testing.T) {
	without := func(drop func(s *rowSet, l link) bool) conflictsFunc {
		return func(s *rowSet, now int64) []Finding {
			fewer := *s
			fewer.links = slices.DeleteFunc(slices.Clone(s.links), func(l link) bool { return drop(s, l) })
			return fewer.conflicts(now)
		}
	}
	for name, fault := range map[string]conflictsFunc{
		"only persons":  without(func(s *rowSet, l link) bool { return !strings.HasPrefix(s.names[l.subject], personPrefix) }),
		"only for good": without(func(_ *rowSet, l link) bool { return l.end != noEnd }),
		"no teams":      without(func(s *rowSet, l link) bool { return strings.HasPrefix(s.names[l.role], unitPrefix) }),
		"no deputies": func(s *rowSet, now int64) []Finding {
			fewer := *s
			fewer.deputies = nil
			return fewer.conflicts(now)
		},
		"ended is alive": func(s *rowSet, _ int64) []Finding { return s.conflicts(0) },
		"first only": func(s *rowSet, now int64) []Finding {
			fewer := *s
			fewer.exclusions = s.exclusions[:min(1, len(s.exclusions))]
			return fewer.conflicts(now)
		},
	} {
		t.Run(name, func(t *testing.T) {
			wrong, _, _ := wrongConflicts(t, fault)
			require.NotZero(t, wrong)
		})
	}
}

// Who looks at one deputy at a time finds nobody who stands in for two.
func TestDeputiesOfTwoAreLookedAtTogether(t *testing.T) {
	const from, end = "2026-12-01T00:00:00Z", "2026-12-02T00:00:00Z"
	s := rowSetOf([]row{
		{"", "p4", []string{"acme", "role:buyer", "role:payer"}},
		{"", "g", []string{"u:anna", "role:buyer", "acme"}}, {"", "g", []string{"u:boris", "role:payer", "acme"}},
		{"", "p3", []string{"u:clara", "u:anna", "acme", from, end}}, {"", "p3", []string{"u:clara", "u:boris", "acme", from, end}},
	})
	require.Len(t, s.conflicts(0), 1)
	for i := range s.deputies {
		alone := *s
		alone.deputies = s.deputies[i : i+1]
		require.Empty(t, alone.conflicts(0))
	}
}

// In a plain Casbin an exclusion is a row that gives nothing.
func TestExclusionsLoadInCasbin(t *testing.T) {
	m, err := model.NewModelFromString(Model)
	require.NoError(t, err)
	c, err := casbin.NewEnforcer(m, fileadapter.NewAdapter(policyFile(t, dutiesPolicy)))
	require.NoError(t, err)
	_, err = c.AddNamedGroupingPolicies("g2", ScopeRows())
	require.NoError(t, err)
	for action, want := range map[string]bool{"create": true, "update": false} {
		got, err := c.Enforce("u:anna", "acme", "orders", action, "none")
		require.NoError(t, err)
		require.Equal(t, want, got, action)
	}
	e, err := New(t.Context(), fileadapter.NewAdapter(policyFile(t, dutiesPolicy)), quiet())
	require.NoError(t, err)
	requireDenied(t, e.separated("anna", "payer"), "separation-of-duties")
}

func TestVersionOfAPolicyWithExclusions(t *testing.T) {
	e, _ := engineAt(t, dutiesPolicy+"p2, u:anna, role:buyer, acme, 2026-12-31T18:00:00Z\n", newHands("2026-11-22T12:00:00Z"))
	require.Equal(t, Digest(ruleRows(e, "p4", "acme", "role:buyer", "role:payer")), e.Version())
	typed, err := FromPolicy(t.Context(), Policy{
		Rules:      []Rule{{Subject: "role:buyer", Tenant: "acme", Object: "orders", Action: crmguard.Create, Scope: All}, {Subject: "role:payer", Tenant: "acme", Object: "orders", Action: crmguard.Update, Scope: All}},
		Links:      []Link{{Subject: "u:anna", Role: "role:buyer", Tenant: "acme"}},
		Exclusions: []Exclusion{{Tenant: "acme", Role: "role:buyer", Other: "role:payer"}},
	}, quiet())
	require.NoError(t, err)
	plain, _ := engineAt(t, dutiesPolicy, newHands("2026-11-22T12:00:00Z"))
	require.Equal(t, plain.Version(), typed.Version())
}

func BenchmarkLoadWithExclusions(b *testing.B) {
	for _, exclusions := range []int{0, 1, 100} {
		b.Run(fmt.Sprint(exclusions), func(b *testing.B) {
			var text strings.Builder
			text.WriteString(benchPolicy(10_000))
			for i := range exclusions {
				fmt.Fprintf(&text, "p4, acme, role:x%d, role:y%d\n", i, i)
			}
			path, o := policyFile(b, text.String()), quiet()
			for b.Loop() {
				if _, err := FromCSV(b.Context(), path, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
