package rbac

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func TestNobodyGrantsWhatTheyLack(t *testing.T) {
	e := engineFromCSV(t, `
p, role:own, acme, contacts, view, own, allow
p, role:tree, acme, contacts, view, tree, allow
p, role:all, acme, contacts, view, all, allow
p, role:shared, acme, contacts, view, shared, allow
p, role:field, acme, contacts#phone, reveal, own, allow
p, role:export, acme, contacts, export, all, allow
p, role:section, acme, section:journal, access, all, allow
p, role:limited, acme, contacts, view, all, allow
p, role:limited, acme, contacts, view, own, deny
p, role:denies, acme, contacts, view, all, deny
g, role:through, role:export, acme
p, role:export2, acme, contacts, export, all, allow
g, role:unit, unit:north, acme
p, unit:north, acme, contacts, export, all, allow
g, u:own, role:own, acme
g, u:all, role:all, acme
g, u:tree, role:tree, acme
g, u:both, role:tree, acme
g, u:both, role:shared, acme
g, u:export, role:through, acme
g, u:limited, role:limited, acme
g, u:denied, role:all, acme
p, u:denied, acme, contacts, view, shared, deny
p, u:personal, acme, section:journal, access, all, allow
p, role:all, other, contacts, export, all, allow
`, nil)
	for granter, may := range map[string]string{
		"nobody":   "denies",
		"own":      "own denies",
		"tree":     "own tree denies",
		"both":     "own tree shared denies",
		"all":      "own tree all shared limited denies",
		"export":   "export denies through export2 unit",
		"limited":  "limited denies",
		"denied":   "denies", // own, tree and all of them cover what is shared
		"personal": "section denies",
	} {
		for role := range strings.FieldsSeq("own tree all shared field export section limited denies through export2 unit") {
			err := e.GrantRole(as(t.Context(), person(granter)), "acme", "new", role)
			if strings.Contains(" "+may+" ", " "+role+" ") {
				require.NoError(t, err, "%s gives %s", granter, role)
			} else {
				requireDenied(t, err, "lacks-right")
			}
		}
	}

	all := person("all")
	all.OnBehalfOf = "own" // the rights of both
	require.NoError(t, e.GrantRole(as(t.Context(), all), "acme", "new", "own"))
	requireDenied(t, e.GrantRole(as(t.Context(), all), "acme", "new", "tree"), "lacks-right")
	all.OnBehalfOf, all.Scopes = "", []string{"contacts:export"}
	requireDenied(t, e.GrantRole(as(t.Context(), all), "acme", "new", "own"), "lacks-right")
	all.Scopes = []string{"contacts:view"}
	require.NoError(t, e.GrantRole(as(t.Context(), all), "acme", "new", "own"))

	job, _ := crmguard.SubjectFrom(crmguard.System(t.Context(), "acme", "setup"))
	require.NoError(t, e.GrantRole(as(t.Context(), job), "acme", "new", "export"))
	job.OnBehalfOf = "own" // then it has that person's rights and no more
	requireDenied(t, e.GrantRole(as(t.Context(), job), "acme", "new", "export"), "lacks-right")
	requireDenied(t, e.GrantRole(as(t.Context(), job), "acme", "own", "own"), "self-grant")
}

// Whoever may grant a role could not get more by granting it to themselves; if the
// comparison of rights were left out, they could.
func TestAGrantGivesNothingThatTheGranterLacks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(13, 14)) //nolint:gosec // the same run every time
	may, mayNot := 0, 0
	for range 60 {
		rows := randomPolicy(rnd, 25, 2, 6)
		s := snapshotOf(t, rows)
		for range 10 {
			tenant, granter, role := pick(rnd, someTenants), pick(rnd, somePersons[:4]), pick(rnd, someRoles)
			_, lacks := s.lacks(crmguard.Subject{Tenant: tenant, ID: granter, Kind: crmguard.KindEmployee}, "u:new", role, 0, noEnd)
			alone := oracle{rows: append(slices.Clip(rows), row{"", "g", []string{"u:new", rolePrefix + role, tenant}})}
			more := false
			for _, kind := range someKinds {
				for _, object := range []string{kind, kind + "#phone"} {
					for _, action := range []string{"view", "read", "export"} {
						for rel := range relation(relations) {
							f := factsIn(rel)
							more = more || alone.allows(tenant, "new", object, action, f) && !alone.allows(tenant, granter, object, action, f)
						}
					}
				}
			}
			require.Equal(t, more, lacks, "%s grants %s", granter, role)
			if lacks {
				mayNot++
			} else {
				may++
			}
		}
	}
	require.Greater(t, min(may, mayNot), 50)
}

func TestRightsAreThoseThatCasbinFinds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(15, 16)) //nolint:gosec // the same run every time
	for range 20 {
		s := snapshotOf(t, randomPolicy(rnd, 40, 9, 6))
		for range 100 {
			q := randomQuestion(rnd, oracle{rows: s.rows.all()})
			has := s.rights(q.tenant, personPrefix+q.person, 0)[right{q.object(), string(q.action)}]
			require.Equal(t, s.decide(q) == allowed, has.has(q.relation))
		}
	}
}

// One contract for all that asks or changes who has which role.
func TestASubjectReachesItsOwnTenantOnly(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, nil)
	foreign := as(t.Context(), crmguard.Subject{Tenant: "other", ID: "x", Kind: crmguard.KindEmployee})
	incomplete := as(t.Context(), crmguard.Subject{Tenant: "acme", ID: "x"})
	pretender := as(t.Context(), crmguard.Subject{Tenant: "acme", ID: "system:x", Kind: crmguard.KindEmployee})
	before := e.Version()
	for _, ctx := range []func() error{
		func() error { _, _, err := e.Resolve(foreign, "acme", "oleg"); return err },
		func() error { _, err := e.Revoke(foreign, "acme", "oleg"); return err },
		func() error { return e.RevokeRole(foreign, "acme", "oleg", "auditor") },
		func() error { return e.GrantRole(foreign, "acme", "boris", "auditor") },
		func() error { _, err := e.Revoke(incomplete, "acme", "oleg"); return err },
		func() error { _, err := e.Revoke(pretender, "acme", "oleg"); return err },
		func() error { return e.GrantRole(t.Context(), "acme", "boris", "auditor") },
	} {
		require.Error(t, ctx())
	}
	require.Equal(t, before, e.Version())

	own := as(t.Context(), person("anna"))
	_, _, err := e.Resolve(own, "acme", "oleg")
	require.NoError(t, err)
	require.NoError(t, e.RevokeRole(own, "acme", "oleg", "auditor"))
	_, err = e.Revoke(t.Context(), "acme", "anna") // nobody acts: a job that ends access
	require.NoError(t, err)
}
