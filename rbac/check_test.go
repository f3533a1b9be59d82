package rbac

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

const teamPolicy = `
p, role:seller, acme, contacts, view, own, allow
p, role:seller, acme, contacts, view, shared, allow
p, role:seller, acme, contacts, create, own, allow
p, role:seller, acme, contacts, list, own, allow
p, role:head, acme, contacts, view, tree, allow
p, role:head, acme, contacts, list, tree, allow
p, role:head, acme, contacts#phone, read, tree, allow
p, role:head, acme, contacts#phone, unmask, dept, allow
p, role:head, acme, contacts#phone, write, own, allow
p, role:head, acme, contacts#email, unmask, all, allow
p, role:head, acme, contacts, export, tree, allow
p, u:vera, acme, contacts, export, shared, deny
p, role:auditor, acme, section:journal, access, all, allow
p, role:auditor, acme, contacts, view, all, allow
p, u:system:import, acme, contacts, create, all, allow
p, role:auditor, acme, contacts, list, all, allow
p, u:locked, acme, contacts, view, all, deny
p, u:locked, acme, contacts, list, all, deny
g, u:anna, role:seller, acme
g, u:vera, role:head, acme
g, u:oleg, role:auditor, acme
g, u:locked, role:auditor, acme
g, u:api, role:auditor, acme
`

func teamOrg() *StaticOrg {
	org := &StaticOrg{}
	org.Set("acme", Units{
		Parent:  map[string]string{"north": "sales", "north-1": "north", "sales": "acme", "desk": "support"},
		Members: map[string][]string{"anna": {"north-1"}, "vera": {"north"}},
		Heads:   map[string][]string{"vera": {"support"}},
	})
	return org
}

func TestCheck(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, teamOrg())
	record := func(owner, unit string, shared bool) crmguard.Resource {
		return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: owner, Unit: unit, Shared: shared}
	}
	kind := crmguard.Resource{Tenant: "acme", Kind: "contacts"}
	journal := crmguard.Resource{Tenant: "acme", Kind: "section:journal"}
	for name, test := range map[string]struct {
		subject string
		action  crmguard.Action
		on      crmguard.Resource
		code    string // empty: yes
	}{
		"own":                              {"anna", crmguard.View, record("anna", "", false), ""},
		"own, of a foreign unit":           {"anna", crmguard.View, record("anna", "finance", false), ""},
		"shared":                           {"anna", crmguard.View, record("boris", "", true), ""},
		"of the unit only":                 {"anna", crmguard.View, record("boris", "north-1", false), "no-rule"},
		"nobody's":                         {"anna", crmguard.View, record("", "", false), "no-rule"},
		"head: own":                        {"vera", crmguard.View, record("vera", "", false), ""},
		"head: of the unit":                {"vera", crmguard.View, record("anna", "north", false), ""},
		"head: of a unit below":            {"vera", crmguard.View, record("anna", "north-1", false), ""},
		"head: of the unit above":          {"vera", crmguard.View, record("anna", "sales", false), "no-rule"},
		"head: shared gives nothing here":  {"vera", crmguard.View, record("anna", "sales", true), "no-rule"},
		"deny of shared, and own":          {"vera", crmguard.Export, record("vera", "", true), "deny-rule"},
		"deny of shared, not shared":       {"vera", crmguard.Export, record("vera", "", false), ""},
		"all: nobody's":                    {"oleg", crmguard.View, record("", "", false), ""},
		"deny of all":                      {"locked", crmguard.View, record("locked", "", false), "deny-rule"},
		"stranger":                         {"nobody", crmguard.View, record("nobody", "", false), "no-rule"},
		"kind, under some scope":           {"anna", crmguard.List, kind, ""},
		"kind, under no scope":             {"anna", crmguard.Export, kind, "no-rule"},
		"kind, all denied":                 {"locked", crmguard.List, kind, "deny-rule"},
		"kind, some denied":                {"vera", crmguard.Export, kind, ""},
		"view of no record":                {"oleg", crmguard.View, kind, "no-record"},
		"view of an owner's, without ID":   {"anna", crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts", Owner: "anna"}, "no-record"},
		"new record, own":                  {"anna", crmguard.Create, crmguard.Resource{Tenant: "acme", Kind: "contacts", Owner: "anna"}, ""},
		"new record, for another":          {"anna", crmguard.Create, crmguard.Resource{Tenant: "acme", Kind: "contacts", Owner: "boris"}, "no-rule"},
		"new record of nobody, with an ID": {"anna", crmguard.Create, record("", "", false), "no-rule"},
		"section":                          {"oleg", crmguard.Access, journal, ""},
		"section, no right":                {"vera", crmguard.Access, journal, "no-rule"},
		"action without a rule":            {"oleg", crmguard.Delete, record("oleg", "", false), "no-rule"},
	} {
		t.Run(name, func(t *testing.T) {
			{
				err := e.Check(t.Context(), person(test.subject), test.action, test.on)
				if test.code == "" {
					require.NoError(t, err)
				} else {
					requireDenied(t, err, test.code)
				}
				require.Equal(t, []error{err}, e.CheckAll(t.Context(), person(test.subject), test.action, []crmguard.Resource{test.on}))
			}
		})
	}
}

func TestForeignTenantIsRefused(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, teamOrg())
	ctx := t.Context()
	oleg, other, nobody := person("oleg"), person("oleg"), person("")
	other.Tenant = "other"
	kindless := crmguard.Subject{Tenant: "acme", ID: "oleg"}
	foreign, untenanted := card, card
	foreign.Tenant, untenanted.Tenant = "other", ""
	for _, try := range []struct {
		s crmguard.Subject
		r crmguard.Resource
	}{{oleg, foreign}, {oleg, untenanted}, {other, card}, {nobody, card}, {kindless, card}, {crmguard.Subject{}, crmguard.Resource{}}} {
		require.Error(t, e.Check(ctx, try.s, crmguard.View, try.r))
		require.Error(t, e.CheckAll(ctx, try.s, crmguard.View, []crmguard.Resource{try.r})[0])
		_, err := e.Fields(ctx, try.s, try.r, "phone")
		require.Error(t, err)
	}
	requireDenied(t, e.Check(ctx, other, crmguard.View, foreign), "no-rule")
	answers := e.CheckAll(ctx, oleg, crmguard.View, []crmguard.Resource{card, foreign, card})
	require.NoError(t, errors.Join(answers[0], answers[2]))
	require.Error(t, answers[1])
	_, err := e.Filter(ctx, kindless, crmguard.View, "contacts")
	require.Error(t, err)
	_, _, err = e.Resolve(ctx, "", "oleg")
	require.Error(t, err)
	require.Error(t, e.Check(ctx, oleg, crmguard.View, crmguard.Resource{Tenant: "acme", ID: "1"}), "no kind")
}

func TestScopesOfACredentialNarrow(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, nil)
	journal := crmguard.Resource{Tenant: "acme", Kind: "section:journal"}
	for _, test := range []struct {
		scopes        []string
		view, journal string
	}{
		{nil, "", ""},
		{[]string{}, "scope", "scope"},
		{[]string{"contacts:view"}, "", "scope"},
		{[]string{"contacts:*"}, "", "scope"},
		{[]string{"contacts:export", "deals:view"}, "scope", "scope"},
		{[]string{"section:journal:access"}, "scope", ""},
		{[]string{"section:journal:*", "contacts:view"}, "", ""},
		{[]string{"*", "*:*", "contacts", "contacts:", "contact:view", "contacts:vie", "contacts:view:x", "section:*"}, "scope", "scope"},
	} {
		s := person("api")
		s.Kind, s.Scopes = crmguard.KindIntegration, test.scopes
		for code, err := range map[*string]error{
			&test.view: e.Check(t.Context(), s, crmguard.View, card), &test.journal: e.Check(t.Context(), s, crmguard.Access, journal),
		} {
			if *code == "" {
				require.NoError(t, err, "%q", test.scopes)
			} else {
				requireDenied(t, err, *code)
			}
		}
	}
	s := person("vera")
	s.Scopes = []string{"contacts:*", "section:journal:*", "deals:*"}
	requireDenied(t, e.Check(t.Context(), s, crmguard.Access, journal), "no-rule") // scopes give nothing
}

func TestActingForSomebodyNeedsTheRightsOfBoth(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, teamOrg())
	mine := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "anna"}
	other := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "2", Owner: "boris", Shared: true}
	api := person("api")
	require.NoError(t, e.Check(t.Context(), api, crmguard.View, mine))
	require.NoError(t, e.Check(t.Context(), api, crmguard.View, other))
	api.OnBehalfOf = "anna"
	require.NoError(t, e.Check(t.Context(), api, crmguard.View, mine))
	requireDenied(t, e.Check(t.Context(), api, crmguard.View, other), "no-rule") // shared with api, not with anna
	requireDenied(t, e.Check(t.Context(), api, crmguard.Create, mine), "no-rule")
	require.NoError(t, e.Check(t.Context(), api, crmguard.List, crmguard.Resource{Tenant: "acme", Kind: "contacts"}))
	requireDenied(t, e.Check(t.Context(), api, crmguard.Access, crmguard.Resource{Tenant: "acme", Kind: "section:journal"}), "no-rule")
	api.OnBehalfOf = "locked"
	requireDenied(t, e.Check(t.Context(), api, crmguard.View, mine), "deny-rule")
	requireDenied(t, e.Check(t.Context(), api, crmguard.List, crmguard.Resource{Tenant: "acme", Kind: "contacts"}), "deny-rule")

	anna := person("anna") // and not the other way round
	anna.OnBehalfOf = "oleg"
	requireDenied(t, e.Check(t.Context(), anna, crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "3"}), "no-rule")
	_, err := e.Fields(t.Context(), anna, mine, "phone")
	require.NoError(t, err)
}

func TestJobsOfTheHostHaveTheRightsOfTheirRows(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, nil)
	job, _ := crmguard.SubjectFrom(crmguard.System(t.Context(), "acme", "import"))
	require.NoError(t, e.Check(t.Context(), job, crmguard.Create, card))
	requireDenied(t, e.Check(t.Context(), job, crmguard.View, card), "no-rule")
	other, _ := crmguard.SubjectFrom(crmguard.System(t.Context(), "acme", "reindex"))
	requireDenied(t, e.Check(t.Context(), other, crmguard.Create, card), "no-rule")
}

// Names of jobs are not for people, nor the other way round: whoever can choose a
// login must not choose one that the policy trusts.
func TestNamesOfJobsBelongToJobs(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, nil)
	for _, s := range []crmguard.Subject{
		{Tenant: "acme", ID: "system:import", Kind: crmguard.KindEmployee},
		{Tenant: "acme", ID: "system:import", Kind: crmguard.KindIntegration},
		{Tenant: "acme", ID: "oleg", Kind: crmguard.KindSystem},
		{Tenant: "acme", ID: "api", OnBehalfOf: "system:import", Kind: crmguard.KindIntegration},
		{Tenant: "acme", ID: "system:import", OnBehalfOf: "system:import", Kind: crmguard.KindSystem},
	} {
		requireDenied(t, e.Check(t.Context(), s, crmguard.Create, card), "system-name")
		requireDenied(t, e.CheckAll(t.Context(), s, crmguard.Create, []crmguard.Resource{card})[0], "system-name")
		_, err := e.Fields(t.Context(), s, card, "phone")
		requireDenied(t, err, "system-name")
		_, err = e.Filter(t.Context(), s, crmguard.Create, "contacts")
		requireDenied(t, err, "system-name")
		requireDenied(t, e.GrantRole(as(t.Context(), s), "acme", "boris", "seller"), "system-name")
	}
	requireDenied(t, e.GrantRole(crmguard.System(t.Context(), "acme", "setup"), "acme", "system:setup", "auditor"), "system-name")
}

// A question about a record that names none is a mistake of the caller, and the
// answer for the kind would be yes too often. Questions about kinds stay.
func TestAQuestionAboutARecordNamesIt(t *testing.T) {
	var text strings.Builder
	actions := slices.Concat(recordActions, []crmguard.Action{fieldRead, fieldWrite})
	for _, a := range recordActions {
		text.WriteString("p, u:anna, acme, contacts, " + string(a) + ", all, allow\np, u:anna, acme, section:x, " + string(a) + ", all, allow\n")
	}
	for _, a := range fieldActions {
		text.WriteString("p, u:anna, acme, contacts#phone, " + string(a) + ", all, allow\n")
	}
	e := engineFromCSV(t, text.String(), nil)
	ofARecord := []crmguard.Action{crmguard.View, crmguard.Reveal, crmguard.Unmask, crmguard.Call, crmguard.Update, crmguard.Delete, crmguard.Erase}
	for _, a := range actions {
		for _, r := range []crmguard.Resource{{}, {Field: "phone"}, {Owner: "anna"}, {Unit: "north"}} {
			r.Tenant, r.Kind = "acme", "contacts"
			if slices.Contains(ofARecord, a) {
				requireDenied(t, e.Check(t.Context(), person("anna"), a, r), "no-record")
				requireDenied(t, e.CheckAll(t.Context(), person("anna"), a, []crmguard.Resource{r})[0], "no-record")
				if r.ID = "1"; a != crmguard.Delete || r.Field == "" { // deleting a field is no right
					require.NoError(t, e.Check(t.Context(), person("anna"), a, r))
				}
			} else if r.Field == "" && slices.Contains(recordActions, a) {
				require.NoError(t, e.Check(t.Context(), person("anna"), a, r))
			}
		}
		if slices.Contains(recordActions, a) {
			require.NoError(t, e.Check(t.Context(), person("anna"), a, crmguard.Resource{Tenant: "acme", Kind: "section:x"}))
		}
	}
}

// Without Org nobody knows where the person stands whom a subject acts for. A
// rule that denies there must count as if it might apply.
func TestUnknownDepartmentsOfWhomASubjectActsFor(t *testing.T) {
	const rules = `
p, role:all, acme, contacts, view, all, allow
p, role:all, acme, contacts, list, all, allow
g, u:api, role:all, acme
g, u:boris, role:all, acme
g, u:dora, role:all, acme
p, u:dora, acme, contacts, view, dept, deny
p, u:dora, acme, contacts, list, dept, deny
g, u:tess, role:all, acme
p, u:tess, acme, contacts, view, tree, deny
p, u:tess, acme, contacts, list, tree, deny
p, u:dent, acme, contacts, view, tree, allow
p, u:dent, acme, contacts, list, tree, allow
`
	e := engineFromCSV(t, rules, nil)
	api := person("api")
	for _, test := range []struct{ owner, may string }{{"boris", "yes"}, {"dora", "no"}, {"tess", "no"}, {"dent", "own"}} {
		api.OnBehalfOf = test.owner
		own := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: test.owner, Unit: "north"}
		foreign := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "x", Unit: "north"}
		require.Equal(t, test.may != "no", e.Check(t.Context(), api, crmguard.View, own) == nil, test)
		require.Equal(t, test.may == "yes", e.Check(t.Context(), api, crmguard.View, foreign) == nil, test)
		require.Equal(t, test.may != "no", e.Check(t.Context(), api, crmguard.List, crmguard.Resource{Tenant: "acme", Kind: "contacts"}) == nil, test)
		f, err := e.Filter(t.Context(), api, crmguard.List, "contacts")
		require.NoError(t, err)
		where, _, err := f.SQL(Columns{Tenant: "tenant", Owner: "owner", Unit: "unit"}, 1)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"yes": "tenant = $1", "no": "1=0", "own": "(tenant = $1 AND owner = $2)"}[test.may], where)
	}
}

// A team is a unit whose people rows name. What it may is theirs, and being of a
// department of that name gives nothing.
func TestTeams(t *testing.T) {
	org := &StaticOrg{}
	org.Set("acme", Units{Members: map[string][]string{"boris": {"support"}}})
	e := engineFromCSV(t, goodRule+`
p, unit:support, acme, tickets, view, all, allow
g, unit:support, role:seller, acme
g, u:anna, unit:support, acme
p2, u:vera, unit:support, acme, 2999-12-31T00:00:00Z
`, org)
	ticket := crmguard.Resource{Tenant: "acme", Kind: "tickets", ID: "1", Unit: "support"}
	for id, want := range map[string]bool{"anna": true, "vera": true, "boris": false, "support": false} {
		mine := card
		mine.Owner = id
		require.Equal(t, want, e.Check(t.Context(), person(id), crmguard.View, ticket) == nil, id)
		require.Equal(t, want, e.Check(t.Context(), person(id), crmguard.View, mine) == nil, id)
	}
}

func TestRolesOfTheSubjectAreNotRead(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, nil)
	s := person("nobody")
	s.Roles = []string{"auditor", "role:auditor"}
	requireDenied(t, e.Check(t.Context(), s, crmguard.View, card), "no-rule")
}

func TestUnitsOfTheSubjectCountOnlyWithoutOrg(t *testing.T) {
	vera := person("vera")
	vera.Units = []string{"finance"}
	record := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Unit: "finance"}
	require.NoError(t, engineFromCSV(t, teamPolicy, nil).Check(t.Context(), vera, crmguard.View, record))
	requireDenied(t, engineFromCSV(t, teamPolicy, teamOrg()).Check(t.Context(), vera, crmguard.View, record), "no-rule")
}

func TestNamesWithoutEndAreNobody(t *testing.T) {
	e := engineFromCSV(t, "p, u:anna, acme, contacts, view, all, allow", nil)
	endless := strings.Repeat("x", 1<<20)
	requireDenied(t, e.Check(t.Context(), person(endless), crmguard.View, card), "no-rule")
	requireDenied(t, e.Check(t.Context(), person("anna"), crmguard.View, crmguard.Resource{Tenant: "acme", Kind: endless, ID: "1"}), "no-rule")
	requireDenied(t, e.Check(t.Context(), person("anna"), crmguard.Action(endless), card), "no-rule")
}

// Whatever is asked, and be it the first question to the policy.
func TestDecisionsAllocateNothing(t *testing.T) {
	e := engineFromCSV(t, teamPolicy+"p2, u:lara, role:auditor, acme, 2999-12-31T00:00:00Z\n"+
		"p3, u:dora, u:vera, acme, 2001-12-31T00:00:00Z, 2999-12-31T00:00:00Z\n", teamOrg())
	sound := e.current.Load()
	ctx := t.Context()
	vera, anna, api, lara := person("vera"), person("anna"), person("api"), person("lara")
	anna.Scopes = []string{"contacts:view"}
	api.OnBehalfOf = "anna"
	below := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "anna", Unit: "north-1"}
	kind := crmguard.Resource{Tenant: "acme", Kind: "contacts"}
	field := below
	field.Field = "phone"
	for name, test := range map[string]struct {
		s    crmguard.Subject
		a    crmguard.Action
		on   crmguard.Resource
		code string
	}{
		"tree":               {vera, crmguard.View, below, ""},
		"scopes":             {anna, crmguard.View, below, ""},
		"kind":               {vera, crmguard.List, kind, ""},
		"field":              {vera, crmguard.View, field, ""},
		"for somebody":       {api, crmguard.View, below, ""},
		"until":              {lara, crmguard.View, below, ""},
		"as deputy":          {person("dora"), crmguard.View, below, ""},
		"no rule":            {vera, crmguard.Delete, below, "no-rule"},
		"a rule that denies": {person("locked"), crmguard.View, below, "deny-rule"},
		"no record":          {vera, crmguard.View, kind, "no-record"},
		"out of scope":       {anna, crmguard.Export, below, "scope"},
		"a stranger":         {person("stranger"), crmguard.View, below, "no-rule"},
		"no such kind":       {vera, crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "x", ID: "1"}, "no-rule"},
		"no such field":      {vera, crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Field: "x"}, "no-rule"},
		"no such action":     {vera, "x", below, "no-rule"},
	} {
		if err := e.Check(ctx, test.s, test.a, test.on); test.code == "" {
			require.NoError(t, err, name)
		} else {
			requireDenied(t, err, test.code)
		}
		require.Zero(t, testing.AllocsPerRun(100, func() { _ = e.Check(ctx, test.s, test.a, test.on) }), name)
		rs := []crmguard.Resource{test.on, test.on}
		require.EqualValues(t, 1, testing.AllocsPerRun(100, func() { e.CheckAll(ctx, test.s, test.a, rs) }), name)
	}
	e.org.open(&hostOrg{StaticOrg: teamOrg()}, &e.uptime)
	require.NoError(t, e.Check(ctx, vera, crmguard.View, below))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = e.Check(ctx, vera, crmguard.View, below) }), "departments of the host")
	fresh := make([]*snapshot, 102) // one for each run, and one to warm up
	for i := range fresh {
		fresh[i] = newSnapshot(sound.rows)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		e.current.Store(fresh[0])
		fresh = fresh[1:]
		_ = e.Check(ctx, vera, crmguard.View, below)
	}), "the first question")
}
