package rbac

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// wrongReviews counts what reviews of random people in random policies say otherwise than
// the spec: rights, ways to roles and orphans.
func wrongReviews(t *testing.T, change func(LeaverReview) LeaverReview) (wrong, orphans int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(21, 22)) //nolint:gosec // the same run every time
	for range 40 {
		o := oracle{rows: randomPolicy(rnd, 12, 2, 5), units: map[string]Units{}}
		for _, tenant := range someTenants {
			o.units[tenant] = randomUnits(rnd)
		}
		e := engineOf(t, o.rows, randomOrg(rnd, o.units))
		for _, tenant := range someTenants {
			for _, leaver := range somePersons[:4] {
				l, err := e.ReviewLeaver(t.Context(), tenant, leaver, Records{Kind: "contacts", Owned: 1})
				require.NoError(t, err)
				l = change(l)
				w, n := o.contradicts(l, leaver)
				wrong, orphans = wrong+w, orphans+n
			}
		}
	}
	return wrong, orphans
}

func (o oracle) contradicts(l LeaverReview, leaver string) (wrong, orphans int) {
	others := slices.DeleteFunc(slices.Clone(somePersons), func(p string) bool { return p == leaver || kindOf(p) == crmguard.KindSystem })
	says := func(rights []Right, object string, action crmguard.Action, rel relation) bool {
		return slices.ContainsFunc(rights, func(r Right) bool {
			return r.Object == object && r.Action == action && slices.Contains(r.Relations, rel.String())
		})
	}
	differ := func(want, said bool) {
		if want != said {
			wrong++
		}
	}
	for _, kind := range append(slices.Clone(someKinds), "chained1") {
		for _, object := range []string{kind, kind + "#phone"} {
			for _, action := range []crmguard.Action{crmguard.View, crmguard.Export, fieldRead} {
				for rel := range relation(relations) {
					has := func(person string) bool { return o.allows(l.Tenant, person, object, string(action), factsIn(rel)) }
					orphan := has(leaver) && !slices.ContainsFunc(others, has)
					differ(has(leaver), says(l.Rights, object, action, rel))
					differ(orphan, says(l.Orphans.Rights, object, action, rel))
					if orphan {
						orphans++
					}
				}
			}
		}
	}
	var roles []string
	for _, way := range l.Roles {
		roles = append(roles, way[len(way)-1])
	}
	for _, role := range slices.Concat(someRoles, someUnits) {
		for _, name := range []string{rolePrefix + role, unitPrefix + role} {
			has := func(person string) bool { return slices.Contains(o.identities(l.Tenant, personPrefix+person), name) }
			differ(has(leaver), slices.Contains(roles, name))
			differ(has(leaver) && !slices.ContainsFunc(others, has), slices.Contains(l.Orphans.Roles, name))
		}
	}
	unseen := false
	units := o.units[l.Tenant]
	places := slices.DeleteFunc(slices.Concat(units.Members[leaver], units.Heads[leaver]), func(unit string) bool { return unit == "" })
	if len(places) == 0 {
		places = []string{""}
	}
	for _, unit := range places {
		card := crmguard.Resource{Tenant: l.Tenant, Kind: "contacts", ID: "1", Owner: leaver, Unit: unit}
		unseen = unseen || !slices.ContainsFunc(others, func(person string) bool {
			return o.allows(l.Tenant, person, "contacts", "view", o.factsOf(person, card, false))
		})
	}
	for _, unit := range someUnits {
		heads := func(person string) bool { return slices.Contains(units.Heads[person], unit) }
		differ(heads(leaver), slices.Contains(l.Heads, unit))
		differ(heads(leaver) && !slices.ContainsFunc(slices.DeleteFunc(slices.Clone(somePersons), func(p string) bool { return p == leaver }), heads), slices.Contains(l.Orphans.Units, unit))
	}
	differ(unseen, slices.Contains(l.Orphans.Kinds, "contacts"))
	return wrong, orphans
}

func TestReviewLeaverTellsWhatSpecSays(t *testing.T) {
	wrong, orphans := wrongReviews(t, asItIs)
	require.Zero(t, wrong)
	require.Greater(t, orphans, 500)
}

func TestFaultsOfLeaverReviewsAreFound(t *testing.T) {
	for name, fault := range map[string]func(LeaverReview) LeaverReview{
		"a right left out":       func(l LeaverReview) LeaverReview { l.Rights = l.Rights[min(1, len(l.Rights)):]; return l },
		"no orphans":             func(l LeaverReview) LeaverReview { l.Orphans.Rights = nil; return l },
		"all rights are orphans": func(l LeaverReview) LeaverReview { l.Orphans.Rights = l.Rights; return l },
		"only roles of one's own": func(l LeaverReview) LeaverReview {
			l.Roles = slices.DeleteFunc(l.Roles, func(way []string) bool { return len(way) > 2 })
			return l
		},
		"a role left out":           func(l LeaverReview) LeaverReview { l.Orphans.Roles = nil; return l },
		"a department without head": func(l LeaverReview) LeaverReview { l.Orphans.Units = nil; return l },
		"records that nobody sees":  func(l LeaverReview) LeaverReview { l.Orphans.Kinds = nil; return l },
	} {
		t.Run(name, func(t *testing.T) {
			wrong, _ := wrongReviews(t, fault)
			require.NotZero(t, wrong)
		})
	}
}

// What others have only for a while is nobody's soon, and jobs of the host are nobody.
func TestWhoHasSomethingForAWhileIsNobodysHeir(t *testing.T) {
	const text = `p, role:auditor, acme, section:journal, access, all, allow
p, u:system:nightly, acme, section:journal, access, all, allow
g, u:anna, role:auditor, acme
`
	only := []Right{{"section:journal", crmguard.Access, []string{"none"}}}
	for more, want := range map[string][]Right{
		"": only,
		"p2, u:boris, role:auditor, acme, 2026-12-31T18:00:00Z\n":                        only,
		"g, u:boris, role:auditor, globex\n":                                             only,
		"g, u:boris, role:auditor, acme\n":                                               nil,
		"g, unit:board, role:auditor, acme\ng, u:x, unit:board, acme\n":                  nil,
		"g, unit:board, role:auditor, acme\n":                                            only,
		"p, u:boris, acme, section:journal, access, all, allow\n":                        nil,
		"g, u:b, role:auditor, acme\np, u:b, acme, section:journal, access, all, deny\n": only,
	} {
		e, _ := engineAt(t, text+more, newHands("2026-11-22T12:00:00Z"))
		l, err := e.ReviewLeaver(t.Context(), "acme", "anna")
		require.NoError(t, err)
		require.Equal(t, want, l.Orphans.Rights, more)
	}
}

func TestReviewLeaverIsOfOneTenantAndHarmless(t *testing.T) {
	e := engineFromCSV(t, teamPolicy+"p, u:anna, globex, deals, view, all, allow\n", teamOrg())
	version := e.Version()
	foreign := as(t.Context(), crmguard.Subject{Tenant: "globex", ID: "olga", Kind: crmguard.KindEmployee})
	_, err := e.ReviewLeaver(foreign, "acme", "anna")
	require.ErrorContains(t, err, "tenant")
	_, err = e.ReviewLeaver(t.Context(), "acme", "")
	require.Error(t, err)
	l, err := e.ReviewLeaver(as(t.Context(), person("oleg")), "acme", "anna")
	require.NoError(t, err)
	require.NotContains(t, l.String(), "deals")
	require.Equal(t, version, e.Version())
	require.Equal(t, version, l.Policy)

	nobody, err := e.ReviewLeaver(t.Context(), "acme", "nobody\x1b[2J")
	require.NoError(t, err)
	require.Empty(t, slices.Concat(nobody.Rights, nobody.Orphans.Rights))
	require.False(t, strings.Contains(nobody.String(), "\x1b"))
}
