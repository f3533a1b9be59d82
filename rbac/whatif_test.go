package rbac

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// untold counts the answers that differ between two policies and of which a change says
// otherwise.
func untold(rows, others []row, before, after *snapshot, tenant string, c Change) (wrong, differ int) {
	objects := map[right]bool{}
	for _, r := range slices.Concat(rows, others) {
		if r.kind == "p" {
			objects[right{r.fields[2], r.fields[3]}] = true
		}
	}
	for _, person := range somePersons {
		for what := range objects {
			i := slices.IndexFunc(c.Rights, func(r RightChange) bool {
				return r.Person == personPrefix+person && r.Object == what.object && string(r.Action) == what.action
			})
			var told RightChange
			if i >= 0 {
				told = c.Rights[i]
			}
			for rel := range relation(relations) {
				q := question{tenant: tenant, person: person, kind: what.object, action: crmguard.Action(what.action), relation: rel}
				had, has := before.decide(q) == allowed, after.decide(q) == allowed
				if had != has {
					differ++
				}
				if slices.Contains(told.Gains, rel.String()) != (has && !had) || slices.Contains(told.Loses, rel.String()) != (had && !has) {
					wrong++
				}
			}
		}
	}
	return wrong, differ
}

// changesAtRandom looks at random changes of random policies.
func changesAtRandom(t *testing.T, between func(before, after *snapshot, tenant string, now int64) Change) (wrong, differ int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(7, 8)) //nolint:gosec // the same run every time
	for range 60 {
		rows := randomPolicy(rnd, 10+rnd.IntN(20), 9, 5)
		more := randomPolicy(rnd, 3, 0, 3)
		others := slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return rnd.IntN(6) == 0 })
		for _, r := range more {
			if r.kind == "p" {
				others = append(others, r)
			}
		}
		before, after := snapshotOf(t, rows), snapshotOf(t, others)
		for _, tenant := range someTenants {
			w, d := untold(rows, others, before, after, tenant, between(before, after, tenant, 0))
			wrong, differ = wrong+w, differ+d
		}
	}
	return wrong, differ
}

func TestWhatIfTellsEachDifference(t *testing.T) {
	wrong, differ := changesAtRandom(t, changeBetween)
	require.Zero(t, wrong)
	require.Greater(t, differ, 1000)
}

func TestFaultsOfWhatIfAreFound(t *testing.T) {
	for name, fault := range map[string]func(before, after *snapshot, tenant string, now int64) Change{
		"the wrong way round": func(before, after *snapshot, tenant string, now int64) Change {
			return changeBetween(after, before, tenant, now)
		},
		"a right left out": func(before, after *snapshot, tenant string, now int64) Change {
			c := changeBetween(before, after, tenant, now)
			c.Rights = c.Rights[:max(0, len(c.Rights)-1)]
			return c
		},
		"another tenant's": func(before, after *snapshot, tenant string, now int64) Change {
			return changeBetween(before, after, someTenants[(slices.Index(someTenants, tenant)+1)%2], now)
		},
	} {
		t.Run(name, func(t *testing.T) {
			wrong, _ := changesAtRandom(t, fault)
			require.NotZero(t, wrong)
		})
	}
}

func TestDraft(t *testing.T) {
	e := engineFromCSV(t, teamPolicy+"p, u:zoe, globex, contacts, view, all, allow\n", teamOrg())
	ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme", ID: "root", Kind: crmguard.KindEmployee})
	version := e.Version()
	draft, err := e.Draft(ctx, "acme", [][]string{
		{"p", "role:seller", "acme", "contacts", "view", "tree", "allow"},
		{"p", "role:seller", "acme", "section:journal", "access", "all", "allow"},
		{"g", "u:anna", "role:seller", "acme"},
	})
	require.NoError(t, err)
	c, err := e.WhatIf(ctx, "acme", draft)
	require.NoError(t, err)
	require.Equal(t, version, e.Version(), "nothing is changed")
	require.Contains(t, c.Rights, RightChange{"u:anna", "contacts", crmguard.View, []string{"dept", "tree", "dept+headed", "tree+headed"}, []string{"shared", "headed+shared"}, ""})
	require.Contains(t, c.Rights, RightChange{"u:anna", "section:journal", crmguard.Access, []string{"none"}, nil, ""})
	require.Contains(t, c.String(), "u:anna gains view contacts of records that are dept, tree and loses view contacts of records that are shared\n")
	require.Contains(t, c.String(), "u:anna gains access section:journal\n")
	require.Contains(t, c.String(), "u:oleg loses view contacts of all records\n")
	require.Contains(t, c.String(), "+ p, role:seller, acme, contacts, view, tree, allow\n")
	require.NotContains(t, c.String(), "globex")

	anna := crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}
	ofUnit := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Unit: "north-1"}
	requireDenied(t, e.Check(ctx, anna, crmguard.View, ofUnit), "no-rule")
	require.NoError(t, draft.Check(ctx, anna, crmguard.View, ofUnit), "the departments are the same")
	zoe := crmguard.Subject{Tenant: "globex", ID: "zoe", Kind: crmguard.KindEmployee}
	require.NoError(t, draft.Check(t.Context(), zoe, crmguard.View, crmguard.Resource{Tenant: "globex", Kind: "contacts", ID: "1"}))
	_, err = draft.Revoke(ctx, "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, version, e.Version(), "what is changed in a draft goes nowhere")

	_, err = e.Draft(ctx, "acme", [][]string{{"p", "u:zoe", "globex", "contacts", "view", "all", "allow"}})
	require.ErrorContains(t, err, "another tenant")
	_, err = e.Draft(ctx, "acme", [][]string{{"p", "anna", "acme", "contacts", "view", "all", "allow"}})
	require.IsType(t, &PolicyError{}, err)
	_, err = e.Draft(ctx, "globex", nil)
	require.ErrorContains(t, err, "tenant")
	_, err = e.WhatIf(ctx, "globex", draft)
	require.ErrorContains(t, err, "tenant")
}

// TestWhatNobodyHasAnyMore: a right is lost when the last one loses it who has it without end.
func TestWhatNobodyHasAnyMore(t *testing.T) {
	const before = `p, role:owner, acme, contacts, export, all, allow
p, role:seller, acme, contacts, export, own, allow
p, role:owner, acme, section:journal, access, all, allow
g, u:olga, role:owner, acme
g, u:anna, role:seller, acme
`
	for name, test := range map[string]struct{ without, with, lost string }{
		"nothing changes":           {},
		"of some records":           {"p, role:owner, acme, contacts, export, all, allow\n", "p, role:owner, acme, contacts, export, own, allow\n", "export contacts of records that are none, dept, tree"},
		"from the last":             {"p, role:owner, acme, section:journal, access, all, allow\n", "", "access section:journal"},
		"somebody else has it":      {"p, role:seller, acme, contacts, export, own, allow\n", "", ""},
		"only somebody for a while": {"g, u:olga, role:owner, acme\n", "p2, u:olga, role:owner, acme, 2999-01-01T00:00:00Z\n", "access section:journal"},
		"only a job":                {"g, u:olga, role:owner, acme\n", "g, u:system:sweep, role:owner, acme\n", "access section:journal"},
		"another company":           {"g, u:olga, role:owner, acme\n", "g, u:olga, role:owner, globex\n", "access section:journal"},
		"a denial":                  {"", "p, u:olga, acme, section:journal, access, all, deny\n", "access section:journal"},
		"handed on":                 {"g, u:olga, role:owner, acme\n", "g, u:anna, role:owner, acme\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			is, would := engineFromCSV(t, before, nil), engineFromCSV(t, strings.Replace(before, test.without, test.with, 1), nil)
			c, err := is.WhatIf(t.Context(), "acme", would)
			require.NoError(t, err)
			if test.lost == "" {
				require.Empty(t, c.Lost)
				return
			}
			require.Contains(t, c.String(), "nobody has any more: "+test.lost)
		})
	}
}
