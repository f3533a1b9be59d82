package rbac

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casbin/casbin/v2"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// standing is a row by which one person stands in for another now.
func standing(deputy, whom, tenant string) row {
	return row{"", "p3", []string{personPrefix + deputy, personPrefix + whom, tenant, "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"}}
}

// word is how Casbin is asked about a record of which these facts hold.
func (f facts) word() string {
	if f.own {
		f.dept, f.tree, f.headed = false, false, false
	}
	var words []string
	for _, part := range []struct {
		holds bool
		word  string
	}{{f.own, "own"}, {f.dept, "dept"}, {f.tree && !f.dept, "tree"}, {f.headed, "headed"}, {f.shared, "shared"}} {
		if part.holds {
			words = append(words, part.word)
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, "+")
}

// composed is what a deputy may do, of Casbin's answers about both: theirs; or else the
// other's, be the record shared with the other or not, where Casbin would say yes to the
// deputy if one more rule allowed them everything.
type composed struct {
	plain, undenied *casbin.Enforcer
	known           map[[3]string]bool
}

func composedOf(t testing.TB, rows []row, deputy string) composed {
	t.Helper()
	all := row{"", "p", []string{personPrefix + deputy, "t", "contacts", "view", "all", "allow"}}
	return composed{plainCasbin(t, Model, rows, ScopeRows()), plainCasbin(t, Model, append(slices.Clip(rows), all), ScopeRows()), map[[3]string]bool{}}
}

func (c composed) ask(t testing.TB, name string, e *casbin.Enforcer, person, relation string) bool {
	t.Helper()
	key := [3]string{name, person, relation}
	yes, known := c.known[key]
	if !known {
		var err error
		yes, err = e.Enforce(personPrefix+person, "t", "contacts", "view", relation)
		require.NoError(t, err)
		c.known[key] = yes
	}
	return yes
}

func (c composed) may(t testing.TB, o oracle, deputy, whom string, r crmguard.Resource) bool {
	t.Helper()
	is := o.factsOf(deputy, r, r.Shared).word()
	return c.ask(t, "plain", c.plain, deputy, is) || c.ask(t, "undenied", c.undenied, deputy, is) &&
		c.ask(t, "plain", c.plain, whom, o.factsOf(whom, r, false).word()) && c.ask(t, "plain", c.plain, whom, o.factsOf(whom, r, true).word())
}

// deputyUniverse is each policy of two rules about a deputy, the person for whom they
// stand in and a role of that person, and each record; it counts the answers that differ from
// those composed of Casbin's, up to enough if that is not 0.
func deputyUniverse(t *testing.T, fault func(s *snapshot), enough int) (wrong, asked, yes int) {
	t.Helper()
	org := &StaticOrg{}
	units := Units{
		Parent:  map[string]string{"below": "theirs", "mine-below": "mine"},
		Members: map[string][]string{"dana": {"mine"}, "walt": {"theirs"}},
		Heads:   map[string][]string{"walt": {"mine-below"}, "dana": {"theirs"}},
	}
	org.Set("t", units)
	o := oracle{units: map[string]Units{"t": units}}
	var rules []row
	for _, subject := range []string{"u:dana", "u:walt", "role:r"} {
		for _, scope := range scopes {
			for _, effect := range effectWords {
				rules = append(rules, row{"", "p", []string{subject, "t", "contacts", "view", scope, effect}})
			}
		}
	}
	var records []crmguard.Resource
	for _, owner := range []string{"", "dana", "walt"} {
		for _, unit := range []string{"", "mine", "mine-below", "theirs", "below"} {
			for _, shared := range []bool{false, true} {
				records = append(records, crmguard.Resource{Tenant: "t", Kind: "contacts", ID: "1", Owner: owner, Unit: unit, Shared: shared})
			}
		}
	}
	for i := range rules {
		for j := range i + 1 {
			rows := []row{rules[i], rules[j], {"", "g", []string{"u:walt", "role:r", "t"}}, standing("dana", "walt", "t")}
			e, casbins := engineOf(t, rows, org), composedOf(t, rows, "dana")
			fault(e.current.Load())
			s := crmguard.Subject{Tenant: "t", ID: "dana", Kind: crmguard.KindEmployee}
			for _, r := range records {
				want := casbins.may(t, o, "dana", "walt", r)
				asked++
				if want {
					yes++
				}
				if want != (e.Check(t.Context(), s, crmguard.View, r) == nil) {
					if wrong++; wrong == enough {
						return wrong, asked, yes
					}
				}
			}
		}
	}
	return wrong, asked, yes
}

func TestDeputiesAgainstCasbin(t *testing.T) {
	wrong, asked, yes := deputyUniverse(t, func(*snapshot) {}, 0)
	require.Zero(t, wrong)
	require.Greater(t, yes, asked/5)
	t.Logf("%d questions, %d allowed", asked, yes)
}

func TestFaultsOfDeputiesAreFound(t *testing.T) {
	dana := who{"t", "dana"}
	for name, fault := range map[string]func(s *snapshot){
		"nobody stands in":         func(s *snapshot) { s.standIns = nil },
		"with the deputy's rights": func(s *snapshot) { s.standIns[dana][0].holder = s.people[dana] },
		"on the deputy's records":  func(s *snapshot) { s.standIns[dana][0].whom = "dana" },
		"the other's for their own": func(s *snapshot) {
			s.people[dana] = s.people[who{"t", "walt"}]
		},
		"nothing denied": func(s *snapshot) { eachRight(s, func(m masks) masks { return masks{allow: m.allow} }) },
	} {
		t.Run(name, func(t *testing.T) {
			wrong, _, _ := deputyUniverse(t, fault, 1)
			require.NotZero(t, wrong)
		})
	}
}

const deputyPolicy = `
p, role:seller, acme, contacts, view, own, allow
p, role:seller, acme, contacts, list, own, allow
p, role:head, acme, contacts, view, tree, allow
p, role:owner, acme, contacts, view, all, allow
p, role:owner, acme, contacts, list, all, allow
p, u:locked, acme, contacts, view, all, deny
g, u:anna, role:seller, acme
g, u:boris, role:seller, acme
g, u:vera, role:head, acme
g, u:olga, role:owner, acme
p3, u:boris, u:anna, acme, 2026-07-01T00:00:00Z, 2026-07-15T00:00:00Z
`

func viewOf(owner string) crmguard.Resource {
	return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: owner}
}

func TestADeputyStandsInForAPeriod(t *testing.T) {
	clock := newHands("2026-06-30T23:59:59Z")
	e, _ := engineAt(t, deputyPolicy, clock)
	for at, want := range map[string]bool{
		"2026-06-30T23:59:59Z": false, "2026-07-01T00:00:00Z": true, "2026-07-14T23:59:59Z": true, "2026-07-15T00:00:00Z": false,
	} {
		clock.set(at)
		require.Equal(t, want, e.Check(t.Context(), person("boris"), crmguard.View, viewOf("anna")) == nil, at)
		require.NoError(t, e.Check(t.Context(), person("boris"), crmguard.View, viewOf("boris")))
		requireDenied(t, e.Check(t.Context(), person("anna"), crmguard.View, viewOf("boris")), "no-rule")
	}
	clock.set("2026-07-15T00:00:00Z")
	require.Empty(t, must(e.Deputies(t.Context(), "acme")), "it is over")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestADeputyHasNoMore(t *testing.T) {
	clock := newHands("2026-07-02T00:00:00Z")
	e, _ := engineAt(t, deputyPolicy+`
p3, u:dora, u:boris, acme, 2026-07-01T00:00:00Z, 2026-07-15T00:00:00Z
p3, u:locked, u:anna, acme, 2026-07-01T00:00:00Z, 2026-07-15T00:00:00Z
p3, u:boris, u:locked, acme, 2026-07-01T00:00:00Z, 2026-07-15T00:00:00Z
`, clock)
	check := func(s crmguard.Subject, owner string) error {
		return e.Check(t.Context(), s, crmguard.View, viewOf(owner))
	}
	require.NoError(t, check(person("dora"), "boris"))
	requireDenied(t, check(person("dora"), "anna"), "no-rule") // not of a deputy
	requireDenied(t, check(person("locked"), "anna"), "deny-rule")
	require.NoError(t, check(person("boris"), "boris"), "who is denied something takes it from nobody by naming them")

	boris := person("boris")
	boris.Scopes = []string{"contacts:list"}
	requireDenied(t, check(boris, "anna"), "scope")
	api := person("api")
	api.OnBehalfOf = "boris"
	requireDenied(t, check(api, "anna"), "no-rule") // it needs rights of its own
	olga := person("olga")
	olga.OnBehalfOf = "boris"
	require.NoError(t, check(olga, "anna"), "boris may, so who acts for him may")
	olga.OnBehalfOf = "anna"
	requireDenied(t, check(olga, "boris"), "no-rule")

	roles, _, err := e.Resolve(t.Context(), "acme", "dora")
	require.NoError(t, err)
	require.Empty(t, roles)
}

// Pages, fields and questions about the kind agree with those about one record.
func TestADeputyInListsAndFields(t *testing.T) {
	e := engineFromCSV(t, `
p, u:anna, acme, contacts, list, own, allow
p, u:anna, acme, contacts#phone, read, own, allow
p, u:anna, acme, contacts#phone, unmask, own, allow
p, u:boris, acme, contacts#phone, unmask, all, deny
p3, u:boris, u:anna, acme, 2001-01-01T00:00:00Z, 2999-01-01T00:00:00Z
p3, u:zoe, u:anna, acme, 2998-01-01T00:00:00Z, 2999-01-01T00:00:00Z
`, &StaticOrg{})
	kind := crmguard.Resource{Tenant: "acme", Kind: "contacts"}
	require.NoError(t, e.Check(t.Context(), person("boris"), crmguard.List, kind))
	requireDenied(t, e.Check(t.Context(), person("zoe"), crmguard.List, kind), "no-rule") // not yet
	answers := e.CheckAll(t.Context(), person("boris"), crmguard.List, []crmguard.Resource{viewOf("anna"), viewOf("boris"), viewOf("")})
	require.NoError(t, answers[0])
	require.Error(t, answers[1])
	require.Error(t, answers[2])

	for on, want := range map[crmguard.Resource]FieldRights{viewOf("anna"): {Read: true}, viewOf("boris"): {}, kind: {}} {
		fields, err := e.Fields(t.Context(), person("boris"), on, "phone")
		require.NoError(t, err)
		require.Equal(t, want, fields["phone"], "%+v", on)
	}
	for object, want := range map[string]string{"contacts": "(tenant = $1 AND owner = $2)", "contacts#phone": "(tenant = $1 AND owner = $2)", "deals": "1=0"} {
		f, err := e.Filter(t.Context(), person("boris"), crmguard.List, object)
		require.NoError(t, err)
		where, args, err := f.SQL(Columns{Tenant: "tenant", Owner: "owner", Unit: "unit"}, 1)
		require.NoError(t, err)
		require.Equal(t, want, where)
		if len(args) > 0 {
			require.Equal(t, []any{"acme", "anna"}, args)
		}
	}
	f, err := e.Filter(t.Context(), person("boris"), crmguard.Unmask, "contacts#phone")
	require.NoError(t, err)
	where, _, err := f.SQL(Columns{Tenant: "tenant", Owner: "owner"}, 1)
	require.NoError(t, err)
	require.Equal(t, "1=0", where, "a rule denies it to the deputy")
}

// A row that is refused elsewhere keeps no deputy who is no longer stored, and puts none
// of the other's denials on the deputy.
func TestARefusedPolicyKeepsNoDeputy(t *testing.T) {
	s := snapshotOf(t, []row{
		{"", "p", []string{"u:anna", "acme", "contacts", "view", "all", "allow"}},
		{"", "p", []string{"u:anna", "acme", "contacts", "export", "all", "deny"}},
		standing("boris", "anna", "acme"),
	})
	left := rowSetOf(s.narrowed(s.rows.all()[1:]))
	require.Empty(t, left.deputies)
	require.Len(t, left.rules, 2)
}

func TestExplainTellsOfDeputies(t *testing.T) {
	clock := newHands("2026-07-02T00:00:00Z")
	e, _ := engineAt(t, deputyPolicy, clock)
	x, err := e.Explain(t.Context(), person("boris"), crmguard.View, viewOf("anna"))
	require.NoError(t, err)
	require.Nil(t, x.Denial)
	require.True(t, x.By[0].Allowed)
	require.Empty(t, x.By[0].Missing)
	require.Equal(t, "u:anna", x.By[0].StandsIn[0].Subject)
	require.True(t, x.By[0].StandsIn[0].Allowed)
	require.Contains(t, x.String(), "  as deputy of u:anna until 2026-07-15T00:00:00Z has the relation own or own+shared: responsible for it; it is not known what is shared with this person\n    allowed by p, role:seller, acme, contacts, view, own, allow (policy.csv:2), through u:anna → role:seller\n")
	clock.set("2026-07-15T00:00:00Z")
	x, err = e.Explain(t.Context(), person("boris"), crmguard.View, viewOf("anna"))
	require.NoError(t, err)
	requireDenied(t, x.Denial, "no-rule")
	require.Empty(t, x.By[0].StandsIn)
}

func TestWhatIfTellsOfDeputies(t *testing.T) {
	clock := newHands("2026-07-02T00:00:00Z")
	e, _ := engineAt(t, deputyPolicy, clock)
	without := func(part string) [][]string {
		_, rules, err := parseCSV("", []byte(strings.ReplaceAll(deputyPolicy, part, "#")))
		require.NoError(t, err)
		return rules
	}
	for part, want := range map[string]string{
		"p3,":                                  "u:boris, as deputy of u:anna, loses view contacts of records that are own\n",
		"g, u:anna":                            "u:boris, as deputy of u:anna, loses list contacts of records that are own\n",
		"p, role:seller, acme, contacts, list": "u:boris, as deputy of u:anna, loses list contacts of records that are own\n",
	} {
		draft, err := e.Draft(t.Context(), "acme", without(part))
		require.NoError(t, err)
		c, err := e.WhatIf(t.Context(), "acme", draft)
		require.NoError(t, err)
		require.Contains(t, c.String(), want)
		clock.set("2026-07-20T00:00:00Z")
		c, err = e.WhatIf(t.Context(), "acme", draft)
		require.NoError(t, err)
		require.NotContains(t, c.String(), "deputy")
		clock.set("2026-07-02T00:00:00Z")
	}
}

func TestDeputiesInGo(t *testing.T) {
	from, end := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), time.Date(2999, 7, 15, 0, 0, 0, 0, time.UTC)
	p := Policy{
		Rules:    []Rule{{Subject: "u:anna", Tenant: "acme", Object: "contacts", Action: crmguard.View, Scope: Own}},
		Deputies: []Deputy{{"u:boris", "u:anna", "acme", from, end}},
	}
	e, err := FromPolicy(t.Context(), p, quiet())
	require.NoError(t, err)
	require.Equal(t, p.Deputies, must(e.Deputies(t.Context(), "acme")))
	require.NoError(t, e.Check(t.Context(), person("boris"), crmguard.View, viewOf("anna")))
}
