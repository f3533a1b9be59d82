package rbac

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// lends is the rule in one sentence: at some moment a deputy may do on a record what they
// could not before, by themselves or in that person's place, though the author lacks it on some
// record and is not that person, or is the deputy.
func lends(old, next []row, tenant, author string) bool {
	standsIn := func(rows []row, pair []string, moment int64) bool {
		return slices.ContainsFunc(rows, func(r row) bool {
			if r.kind != "p3" || !slices.Equal(r.fields[:3], pair) {
				return false
			}
			from, _ := parseEnd(r.fields[3])
			end, _ := parseEnd(r.fields[4])
			return from.Unix() <= moment && moment < end.Unix()
		})
	}
	under := func(o oracle, name, action, kind string) (allowed, denied relationSet) {
		for rel := range relation(relations) {
			allow, deny := o.rules(tenant, name[len(personPrefix):], kind, action, factsIn(rel))
			if allow && !deny {
				allowed |= 1 << rel
			}
			if deny {
				denied |= 1 << rel
			}
		}
		return allowed, denied
	}
	for _, p3 := range next {
		if p3.kind != "p3" || p3.fields[2] != tenant {
			continue
		}
		deputy, whom := p3.fields[0], p3.fields[1]
		for _, moment := range []int64{0, 50, 100, 150, 200, 250, 300} {
			if !standsIn(next, p3.fields[:3], moment) {
				continue
			}
			before, after := oracle{rows: aliveAt(old, moment)}, oracle{rows: aliveAt(next, moment)}
			for _, kind := range someKinds {
				for _, action := range []string{"view", "export"} {
					var had, has relationSet // of the other
					own, deniedBefore := under(before, deputy, action, kind)
					_, deniedAfter := under(after, deputy, action, kind)
					if standsIn(old, p3.fields[:3], moment) {
						had, _ = under(before, whom, action, kind)
					}
					has, _ = under(after, whom, action, kind)
					had, has = had&(had>>relShared)&unsharedRelations, has&(has>>relShared)&unsharedRelations
					gains := false
					for rel := range relation(relations) { // of the deputy
						was := had
						if deniedBefore.has(rel) {
							was = 0
						}
						gains = gains || !deniedAfter.has(rel) && !own.has(rel) && has&^was != 0
					}
					held, _ := under(before, personPrefix+author, action, kind)
					if gains && (deputy == personPrefix+author || whom != personPrefix+author && held != everyRelation) {
						return true
					}
				}
			}
		}
	}
	return false
}

// lentAnswers counts random changes by which a deputy gets what must not be given, and how
// many of them are let through.
func lentAnswers(t *testing.T, may mayFunc) (open, refused, allowed int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(41, 42)) //nolint:gosec // the same run every time
	persons := somePersons[:4]           // jobs have no deputies
	for range 600 {
		tenant, author := pick(rnd, someTenants), pick(rnd, persons)
		p3 := func() row {
			pair := shuffled(rnd, persons)
			from := rnd.Int64N(200)
			return row{"", "p3", []string{personPrefix + pair[0], personPrefix + pair[1], tenant, formatEnd(from), formatEnd(from + 1 + rnd.Int64N(200))}}
		}
		rows := append(randomPolicy(rnd, 25, 2, 3), p3(), p3())
		edited := randomEdit(rnd, rows, tenant)
		if rnd.IntN(3) == 0 {
			edited = append(edited, p3())
		}
		if rnd.IntN(2) == 0 { // whoever may do everything may give it
			for _, kind := range someKinds {
				for _, action := range someActions {
					all := row{"", "p", []string{personPrefix + author, tenant, kind, string(action), "all", "allow"}}
					rows, edited = append(rows, all), append(edited, all)
				}
			}
		}
		err := may(crmguard.Subject{Tenant: tenant, ID: author, Kind: crmguard.KindEmployee}, snapshotOf(t, rows), snapshotOf(t, edited), 0)
		switch lends := lends(rows, edited, tenant, author); {
		case lends && err == nil:
			open++
		case lends:
			refused++
		case err == nil:
			allowed++
		}
	}
	return open, refused, allowed
}

func TestNoChangeGivesDeputiesWhatItsAuthorLacks(t *testing.T) {
	open, refused, allowed := lentAnswers(t, mayChange)
	require.Zero(t, open)
	require.Greater(t, refused, 30)
	require.Greater(t, allowed, 30)
	t.Logf("%d refused, %d allowed", refused, allowed)
}

func TestOpenDoorsForDeputiesAreFound(t *testing.T) {
	open, _, _ := lentAnswers(t, func(author crmguard.Subject, old, next *snapshot, now int64) error {
		without := func(s *snapshot) *snapshot {
			return newSnapshot(rowSetOf(slices.DeleteFunc(s.rows.all(), func(r row) bool { return r.kind == "p3" })))
		}
		return mayChange(author, without(old), without(next), now)
	})
	require.NotZero(t, open, "planted fault: nobody looks at deputies")
}
