package rbac

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// exceeds is the rule in one sentence: at some moment somebody may do what they may not by
// the old rows, though the author lacks it, or is that somebody.
func exceeds(old, next []row, tenant, author string) bool {
	for _, moment := range []int64{0, 100, 200, 300} {
		before, after := oracle{rows: aliveAt(old, moment)}, oracle{rows: aliveAt(next, moment)}
		for _, name := range slices.Concat(somePersons, []string{"new"}) {
			for _, kind := range append(slices.Clone(someKinds), "chained1") {
				for _, object := range []string{kind, kind + "#phone"} {
					for _, action := range []string{"view", "read", "export"} {
						for rel := range relation(relations) {
							f := factsIn(rel)
							if after.allows(tenant, name, object, action, f) && !before.allows(tenant, name, object, action, f) &&
								(name == author || !before.allows(tenant, author, object, action, f)) {
								return true
							}
						}
					}
				}
			}
		}
	}
	return false
}

// randomEdit takes rows of one tenant out of a policy, and puts others in: rules, roles of
// roles and of persons, and grants that end.
func randomEdit(rnd *rand.Rand, rows []row, tenant string) []row {
	next := slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r.tenant() == tenant && rnd.IntN(25) == 0 })
	for range rnd.IntN(3) {
		end := formatEnd(int64(100 * (1 + rnd.IntN(3))))
		next = append(next, pick(rnd, []row{
			{"", "p", []string{pick(rnd, []string{personPrefix + pick(rnd, somePersons), rolePrefix + pick(rnd, someRoles)}), tenant, pick(rnd, someKinds), "view", pick(rnd, scopes), "allow"}},
			{"", "p", []string{pick(rnd, []string{unitPrefix + pick(rnd, someUnits), rolePrefix + pick(rnd, someRoles)}), tenant, pick(rnd, someKinds) + "#phone", pick(rnd, []string{"read", "export"}), pick(rnd, scopes), "allow"}},
			{"", "g", []string{personPrefix + pick(rnd, somePersons), rolePrefix + pick(rnd, someRoles), tenant}},
			{"", "g", []string{unitPrefix + pick(rnd, someUnits), rolePrefix + pick(rnd, someRoles), tenant}},
			{"", "g", []string{rolePrefix + "top", rolePrefix + pick(rnd, someRoles), tenant}},
			{"", "p2", []string{personPrefix + pick(rnd, somePersons), rolePrefix + pick(rnd, someRoles), tenant, end}},
		}))
	}
	return next
}

type mayFunc func(author crmguard.Subject, old, next *snapshot, now int64) error

// wrongAnswers counts changes that are allowed and must not be, and those that nobody
// would gain by and that are refused.
func wrongAnswers(t *testing.T, may mayFunc) (open, closed, refused, allowed int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(31, 32)) //nolint:gosec // the same run every time
	for range 150 {
		rows := randomPolicy(rnd, 25, 2, 4)
		for range 5 { // some grants that end
			rows = append(rows, row{"", "p2", []string{personPrefix + pick(rnd, somePersons), rolePrefix + pick(rnd, someRoles), pick(rnd, someTenants), formatEnd(int64(100 * (1 + rnd.IntN(3))))}})
		}
		tenant, author := pick(rnd, someTenants), pick(rnd, somePersons[:4])
		edited := randomEdit(rnd, rows, tenant)
		err := may(crmguard.Subject{Tenant: tenant, ID: author, Kind: crmguard.KindEmployee}, snapshotOf(t, rows), snapshotOf(t, edited), 0)
		exceeded := exceeds(rows, edited, tenant, author)
		switch {
		case exceeded && err == nil:
			open++
		case exceeded:
			refused++
		case err == nil:
			allowed++
		default: // a role that nobody has may be refused too: somebody could get it
			closed++
		}
	}
	return open, closed, refused, allowed
}

func TestNoChangeGivesWhatItsAuthorLacks(t *testing.T) {
	open, closed, refused, allowed := wrongAnswers(t, mayChange)
	require.Zero(t, open)
	require.Greater(t, refused, 30)
	require.Greater(t, allowed, 30)
	require.Less(t, closed, 40)
}

func TestOpenDoorsForChangesAreFound(t *testing.T) {
	for name, fault := range map[string]mayFunc{
		"nobody looks": func(crmguard.Subject, *snapshot, *snapshot, int64) error { return nil },
		"jobs are believed": func(s crmguard.Subject, old, next *snapshot, now int64) error {
			s.Kind = crmguard.KindSystem
			return mayChange(s, old, next, now)
		},
		"only this moment": func(s crmguard.Subject, old, next *snapshot, _ int64) error {
			return mayChange(s, old, next, 250)
		},
		"only who is named": func(s crmguard.Subject, old, next *snapshot, now int64) error {
			rules := slices.DeleteFunc(next.rows.all(), func(r row) bool { return r.kind == "p" })
			return mayChange(s, old, newSnapshot(rowSetOf(rules)), now)
		},
	} {
		t.Run(name, func(t *testing.T) {
			open, _, _, _ := wrongAnswers(t, fault)
			require.NotZero(t, open)
		})
	}
}

// A role may be a shackle. To take it off is to grant, so it is no way around.
func TestNobodyTakesOffTheirShackles(t *testing.T) {
	const text = `p, role:careful, acme, contacts, export, all, deny
p, role:seller, acme, contacts, export, all, allow
g, role:trainee, role:careful, acme
g, u:anna, role:seller, acme
g, u:anna, role:trainee, acme
g, u:boris, role:seller, acme
p2, u:boris, role:careful, acme, 2026-12-31T18:00:00Z
g, u:oleg, role:seller, acme
g, u:vera, role:trainee, acme
`
	e, _ := engineAt(t, text, newHands("2026-11-22T12:00:00Z"))
	requireDenied(t, e.RevokeRole(as(t.Context(), person("anna")), "acme", "anna", "trainee"), "self-grant")
	requireDenied(t, e.RevokeRole(as(t.Context(), person("boris")), "acme", "boris", "careful"), "self-grant")
	requireDenied(t, e.RevokeRole(as(t.Context(), person("boris")), "acme", "anna", "trainee"), "lacks-right")
	requireDenied(t, e.Check(t.Context(), person("anna"), crmguard.Export, crmguard.Resource{Tenant: "acme", Kind: "contacts"}), "deny-rule")

	require.NoError(t, e.RevokeRole(as(t.Context(), person("vera")), "acme", "vera", "trainee"), "nothing comes free by it")
	require.NoError(t, e.RevokeRole(as(t.Context(), person("anna")), "acme", "anna", "seller"))
	require.NoError(t, e.RevokeRole(as(t.Context(), person("oleg")), "acme", "boris", "careful"), "who may export may let export")
	_, err := e.Revoke(as(t.Context(), person("anna")), "acme", "anna")
	require.NoError(t, err, "nothing is left that could come free")
	require.NoError(t, e.RevokeRole(t.Context(), "acme", "anna", "trainee"), "a job")
}
