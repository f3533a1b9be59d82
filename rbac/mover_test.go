package rbac

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// wrongMoves counts what reviews of random moves say otherwise than the spec.
func wrongMoves(t *testing.T, change func(*MoverReview)) (wrong, kept int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(51, 52)) //nolint:gosec // the same run every time
	for range 60 {
		rows := randomPolicy(rnd, 25, 2, 5)
		e := engineOf(t, rows, nil)
		for _, tenant := range someTenants {
			mover := personPrefix + pick(rnd, somePersons)
			known := slices.DeleteFunc(slices.Clone(someRoles), func(role string) bool {
				return !slices.Contains(e.current.Load().knownRoles(tenant), role)
			})
			from, to := []string{rolePrefix + pick(rnd, someRoles), rolePrefix + pick(rnd, someRoles)}, []string{rolePrefix + pick(rnd, known)}
			m, err := e.ReviewMover(t.Context(), tenant, mover[len(personPrefix):], Place{Roles: from}, Place{Roles: to})
			require.NoError(t, err)
			change(&m)
			isLink := func(r row) bool { return r.kind == "g" && r.fields[0] == mover && r.fields[2] == tenant }
			isOwn := func(r row) bool { return isLink(r) || r.kind == "p" && r.fields[0] == mover && r.fields[1] == tenant }
			next := row{"", "g", []string{mover, to[0], tenant}}
			after := append(slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return isLink(r) && slices.Contains(from, r.fields[1]) }), next)
			place := append(slices.DeleteFunc(slices.Clone(rows), isOwn), next)
			w, k := contradictsMove(m, oracle{rows: rows}, oracle{rows: after}, oracle{rows: place})
			wrong, kept = wrong+w, kept+k
			stay := slices.DeleteFunc(slices.Clone(after), func(r row) bool { return !isOwn(r) || slices.Equal(r.fields, next.fields) })
			for _, r := range stay {
				if !slices.ContainsFunc(m.Rows, func(a Authored) bool { return slices.Equal(a.Rule, r.rule()) }) {
					wrong++
				}
			}
			if len(m.Rows) > len(stay) {
				wrong++
			}
		}
	}
	return wrong, kept
}

func contradictsMove(m MoverReview, before, after, place oracle) (wrong, kept int) {
	person := m.Person[len(personPrefix):]
	for _, object := range []string{someKinds[0], someKinds[0] + "#phone", someKinds[1], someKinds[1] + "#phone", "chained1"} {
		for _, action := range []crmguard.Action{crmguard.View, crmguard.Export, fieldRead} {
			var c RightChange
			for _, r := range m.Change.Rights {
				if r.Person == m.Person && r.Object == object && r.Action == action {
					c = r
				}
			}
			k := slices.IndexFunc(m.Keeps, func(k Kept) bool { return k.Object == object && k.Action == action })
			for rel := range relation(relations) {
				may := func(o oracle) bool { return o.allows(m.Tenant, person, object, string(action), factsIn(rel)) }
				keeps := may(after) && !may(place)
				if slices.Contains(c.Gains, rel.String()) != (may(after) && !may(before)) || slices.Contains(c.Loses, rel.String()) != (may(before) && !may(after)) {
					wrong++
				}
				if (k >= 0 && slices.Contains(m.Keeps[k].Relations, rel.String())) != keeps {
					wrong++
				}
				if keeps {
					kept++
				}
				if keeps && k >= 0 && !slices.ContainsFunc(m.Keeps[k].By, func(r Reason) bool {
					f := factsIn(rel)
					return r.Path[0] == m.Person && !r.Denies() && r.Rule[3] == object && contains[r.Rule[5]](f)
				}) {
					wrong++
				}
			}
		}
	}
	return wrong, kept
}

func TestReviewMoverTellsWhatSpecSays(t *testing.T) {
	wrong, kept := wrongMoves(t, func(*MoverReview) {})
	require.Zero(t, wrong)
	require.Greater(t, kept, 100)
}

func TestFaultsOfMoverReviewsAreFound(t *testing.T) {
	for name, fault := range map[string]func(m *MoverReview){
		"keeps nothing": func(m *MoverReview) { m.Keeps = nil },
		"no reasons": func(m *MoverReview) {
			for i := range m.Keeps {
				m.Keeps[i].By = nil
			}
		},
		"no rows":           func(m *MoverReview) { m.Rows = nil },
		"gains left out":    func(m *MoverReview) { m.Change.Rights = nil },
		"one right forgone": func(m *MoverReview) { m.Keeps = m.Keeps[min(1, len(m.Keeps)):] },
	} {
		t.Run(name, func(t *testing.T) {
			wrong, _ := wrongMoves(t, fault)
			require.NotZero(t, wrong)
		})
	}
}

func TestReviewMoverKnowsDepartments(t *testing.T) {
	org := &StaticOrg{}
	org.Set("acme", Units{
		Parent:  map[string]string{"north": "sales", "south": "sales", "shop": "retail"},
		Members: map[string][]string{"anna": {"north", "board"}},
		Heads:   map[string][]string{"anna": {"north", "shop"}},
	})
	e := engineFromCSV(t, teamPolicy, org)
	m, err := e.ReviewMover(t.Context(), "acme", "anna", Place{Units: []string{"north"}}, Place{Units: []string{"retail"}}, Records{"contacts", 17, 2})
	require.NoError(t, err)
	require.Equal(t, []string{"retail", "shop"}, m.GainsUnits)
	require.Equal(t, []string{"north"}, m.LosesUnits)
	require.Equal(t, []string{"board"}, m.KeepsUnits)
	require.Equal(t, []string{"north"}, m.KeepsHeads)
	require.Contains(t, m.String(), "contacts: responsible for 17, shared 2")
}

func TestReviewMoverRefuses(t *testing.T) {
	e, _ := engineAt(t, dutiesPolicy, newHands("2026-11-22T12:00:00Z"))
	version := e.Version()
	_, err := e.ReviewMover(t.Context(), "acme", "anna", Place{}, Place{Roles: []string{"role:payer"}})
	require.IsType(t, &PolicyError{}, err, "both at once")
	m, err := e.ReviewMover(t.Context(), "acme", "anna", Place{Roles: []string{"role:buyer"}}, Place{Roles: []string{"role:payer"}})
	require.NoError(t, err)
	require.Empty(t, m.Keeps)
	require.Equal(t, version, e.Version())
	_, err = e.ReviewMover(t.Context(), "acme", "anna", Place{}, Place{Roles: []string{"role:pyaer"}})
	require.ErrorContains(t, err, "knows")
	_, err = e.ReviewMover(t.Context(), "acme", "anna", Place{}, Place{Roles: []string{"u:anna"}})
	require.Error(t, err)
	foreign := as(t.Context(), crmguard.Subject{Tenant: "globex", ID: "olga", Kind: crmguard.KindEmployee})
	_, err = e.ReviewMover(foreign, "acme", "anna", Place{}, Place{})
	require.ErrorContains(t, err, "tenant")
}
