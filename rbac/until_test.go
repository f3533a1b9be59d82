package rbac

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	fileadapter "github.com/casbin/casbin/v2/persist/file-adapter"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// hands is a clock that a test sets.
type hands struct{ at atomic.Pointer[time.Time] }

func newHands(at string) *hands {
	h := &hands{}
	h.set(at)
	return h
}

func (h *hands) set(at string) {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		panic(err)
	}
	h.at.Store(&t)
}

func (h *hands) now() time.Time { return *h.at.Load() }

func engineAt(t testing.TB, text string, clock *hands) (*Engine, string) {
	t.Helper()
	o := quiet()
	o.Clock = clock.now
	path := policyFile(t, text)
	e, err := FromCSV(t.Context(), path, o)
	require.NoError(t, err)
	return e, path
}

const untilPolicy = `
p, role:head, acme, contacts, view, all, allow
p, role:auditor, acme, contacts, export, all, allow
p, role:careful, acme, contacts, export, all, deny
g, role:deputy, role:head, acme
p2, u:anna, role:deputy, acme, 2026-12-31T18:00:00Z
p2, u:anna, role:auditor, acme, 2026-12-30T18:00:00Z
p2, u:vera, role:careful, acme, 2026-12-30T18:00:00Z
g, u:vera, role:auditor, acme
p2, u:boris, role:head, acme, 2026-12-30T18:00:00Z
p2, u:boris, role:head, acme, 2026-12-31T18:00:00Z
g, u:oleg, role:head, acme
p2, u:oleg, role:head, acme, 2026-12-30T18:00:00Z
`

// Nothing happens when a grant ends but that its time is over: no reload, no change of
// the policy, no moment in which it still counts.
func TestGrantsEndByThemselves(t *testing.T) {
	clock := newHands("2026-12-01T00:00:00Z")
	e, _ := engineAt(t, untilPolicy, clock)
	before := e.current.Load()
	for _, test := range []struct {
		at    string
		may   string // view
		mayEx string // export
		roles string // of anna
	}{
		{"2026-12-01T00:00:00Z", "anna boris oleg", "anna", "auditor deputy head"},
		{"2026-12-30T17:59:59.999999999Z", "anna boris oleg", "anna", "auditor deputy head"},
		{"2026-12-30T18:00:00Z", "anna boris oleg", "vera", "deputy head"},
		{"2026-12-31T17:59:59.9Z", "anna boris oleg", "vera", "deputy head"},
		{"2026-12-31T18:00:00Z", "oleg", "vera", ""},
		{"2100-01-01T00:00:00Z", "oleg", "vera", ""},
		{"2026-12-30T18:00:00+03:00", "anna boris oleg", "anna", "auditor deputy head"}, // a clock that was set back
	} {
		clock.set(test.at)
		var may, mayEx []string
		for _, id := range []string{"anna", "boris", "oleg", "vera"} {
			if e.Check(t.Context(), person(id), crmguard.View, card) == nil {
				may = append(may, id)
			}
			if e.Check(t.Context(), person(id), crmguard.Export, card) == nil {
				mayEx = append(mayEx, id)
			}
			f, err := e.Filter(t.Context(), person(id), crmguard.View, "contacts")
			require.NoError(t, err)
			where, _, err := f.SQL(Columns{Tenant: "tenant"}, 1)
			require.NoError(t, err)
			require.Equal(t, slices.Contains(may, id), where != "1=0", "lists, too")
		}
		require.Equal(t, test.may, strings.Join(may, " "), test.at)
		require.Equal(t, test.mayEx, strings.Join(mayEx, " "), test.at)
		roles, _, err := e.Resolve(t.Context(), "acme", "anna")
		require.NoError(t, err)
		require.Equal(t, test.roles, strings.Join(roles, " "), test.at)
	}
	require.Same(t, before, e.current.Load(), "the policy was not touched")
}

// A page is decided at one moment.
func TestAPageHasOneMoment(t *testing.T) {
	asked := 0
	o := quiet()
	o.Clock = func() time.Time {
		asked++
		return time.Date(2026, 12, 30, 17, 59, 58+asked, 0, time.UTC)
	}
	e, err := FromCSV(t.Context(), policyFile(t, untilPolicy), o)
	require.NoError(t, err)
	asked = 0 // what loading asks is not counted
	for _, err := range e.CheckAll(t.Context(), person("anna"), crmguard.Export, page(50)) {
		require.NoError(t, err)
	}
	for _, err := range e.CheckAll(t.Context(), person("anna"), crmguard.Export, page(50)) {
		requireDenied(t, err, "no-rule")
	}
	require.Equal(t, 2, asked)
	require.NoError(t, e.Check(t.Context(), person("anna"), crmguard.View, card))
	require.Equal(t, 3, asked)
	require.NoError(t, e.Check(t.Context(), person("oleg"), crmguard.View, card))
	require.Equal(t, 3, asked, "nobody asks for the time of grants that add nothing")
	e = engineFromCSV(t, teamPolicy, nil)
	e.clock = nil // nobody asks for the time of grants that have no end
	require.NoError(t, e.Check(t.Context(), person("oleg"), crmguard.View, card))
}

func TestGrantRoleUntil(t *testing.T) {
	clock := newHands("2026-12-01T00:00:00Z")
	e, path := engineAt(t, untilPolicy, clock)
	job := crmguard.System(t.Context(), "acme", "test")
	end := time.Date(2026, 12, 5, 12, 0, 0, 999, time.FixedZone("MSK", 3*3600))
	require.NoError(t, e.GrantRoleUntil(job, "acme", "new", "head", end))
	require.NoError(t, e.GrantRoleUntil(job, "acme", "new", "head", end), "again")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(text), "p2,u:new,role:head,acme,2026-12-05T09:00:00Z\n"))
	require.NoError(t, e.Check(t.Context(), person("new"), crmguard.View, card))
	version := e.Version()
	require.NoError(t, e.Reload(job))
	require.Equal(t, version, e.Version())
	clock.set("2026-12-05T09:00:00Z")
	requireDenied(t, e.Check(t.Context(), person("new"), crmguard.View, card), "no-rule")
	require.ErrorContains(t, e.GrantRoleUntil(job, "acme", "new", "head", end), "is over")
	require.ErrorContains(t, e.GrantRoleUntil(job, "acme", "new", "head", time.Time{}), "is over")
	require.ErrorContains(t, e.GrantRoleUntil(job, "acme", "new", "head", clock.now().Add(time.Millisecond)), "is over", "what is left when the fraction is cut off")
	var refused *PolicyError
	require.ErrorAs(t, e.GrantRoleUntil(job, "acme", "new", "head", time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)), &refused)

	// RevokeRole and Revoke take both kinds.
	clock.set("2026-12-01T00:00:00Z")
	require.NoError(t, e.Check(t.Context(), person("new"), crmguard.View, card))
	require.NoError(t, e.RevokeRole(job, "acme", "new", "head"))
	requireDenied(t, e.Check(t.Context(), person("new"), crmguard.View, card), "no-rule")
	require.NoError(t, e.Check(t.Context(), person("oleg"), crmguard.View, card))
	got, err := e.Revoke(job, "acme", "oleg")
	require.NoError(t, err)
	require.Equal(t, 2, got.Count)
	requireDenied(t, e.Check(t.Context(), person("oleg"), crmguard.View, card), "no-rule")
	require.NoError(t, e.Reload(job))
	text, err = os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(text), "u:oleg")
	require.NotContains(t, string(text), "u:new")
}

// Nobody gives for longer than they have.
func TestNobodyGrantsBeyondTheirOwnEnd(t *testing.T) {
	clock := newHands("2026-12-01T00:00:00Z")
	e, _ := engineAt(t, untilPolicy, clock)
	until := func(at string) time.Time {
		end, _ := parseEnd(at)
		return end
	}
	anna := as(t.Context(), person("anna"))
	require.NoError(t, e.GrantRoleUntil(anna, "acme", "a", "head", until("2026-12-31T18:00:00Z")))
	requireDenied(t, e.GrantRoleUntil(anna, "acme", "b", "head", until("2026-12-31T18:00:01Z")), "lacks-right")
	requireDenied(t, e.GrantRole(anna, "acme", "b", "head"), "lacks-right")
	require.NoError(t, e.GrantRole(as(t.Context(), person("oleg")), "acme", "b", "head"))
	// Vera may export only once what denies it has ended.
	vera := as(t.Context(), person("vera"))
	requireDenied(t, e.GrantRole(vera, "acme", "c", "auditor"), "lacks-right")
	clock.set("2026-12-30T18:00:00Z")
	require.NoError(t, e.GrantRole(vera, "acme", "c", "auditor"))
}

// At every moment the answers are those that Casbin gives for the grants that have not
// ended; by itself it takes all of them for ended.
func TestGrantsThatEndAgainstCasbin(t *testing.T) {
	rnd := rand.New(rand.NewPCG(19, 20)) //nolint:gosec // the same run every time
	asked, yes, matters := 0, 0, 0
	for range 15 {
		rows := randomPolicy(rnd, 40, 3, 6)
		for i, r := range rows { // half of the persons' links end
			if r.kind == "g" && strings.HasPrefix(r.fields[0], personPrefix) && rnd.IntN(2) == 0 {
				rows[i].kind, rows[i].fields = "p2", append(slices.Clone(r.fields), formatEnd(int64(1000+rnd.IntN(4))))
			}
		}
		clock := &hands{}
		e := engineOf(t, rows, nil)
		e.clock = clock.now
		ended := plainCasbin(t, Model, rows, ScopeRows())
		for moment := int64(999); moment < 1005; moment++ {
			at := time.Unix(moment, 0)
			clock.at.Store(&at)
			alive := aliveAt(rows, moment)
			plain := plainCasbin(t, Model, alive, ScopeRows())
			for range 60 {
				q := randomQuestion(rnd, oracle{rows: alive})
				want := enforce(t, plain, q)
				s := e.current.Load()
				holder := s.people[who{q.tenant, q.person}].at(clock.now)
				got := s.decideFor(holder, q) == allowed
				require.Equal(t, want, got, "%v\n%+v at %d", rows, q, moment)
				asked++
				if want {
					yes++
				}
				if enforce(t, ended, q) != want {
					matters++
				}
			}
		}
	}
	require.Greater(t, yes, asked*3/10)
	require.Greater(t, matters, asked/50)
	t.Logf("%d questions, %d allowed; in %d the ends matter", asked, yes, matters)
}

// aliveAt are the rows with grants that have not ended as if they never did.
func aliveAt(rows []row, moment int64) []row {
	var alive []row
	for _, r := range rows {
		if r.kind == "p2" {
			end, _ := parseEnd(r.fields[3])
			if end.Unix() <= moment {
				continue
			}
			r.kind, r.fields = "g", r.fields[:3]
		}
		alive = append(alive, r)
	}
	return alive
}

// The file loads in a plain Casbin, which takes grants that end for ended.
func TestGrantsThatEndLoadInCasbin(t *testing.T) {
	m, err := model.NewModelFromString(Model)
	require.NoError(t, err)
	c, err := casbin.NewEnforcer(m, fileadapter.NewAdapter(policyFile(t, untilPolicy)))
	require.NoError(t, err)
	_, err = c.AddNamedGroupingPolicies("g2", ScopeRows())
	require.NoError(t, err)
	for id, want := range map[string]bool{"anna": false, "boris": false, "oleg": true} {
		got, err := c.Enforce(personPrefix+id, "acme", "contacts", "view", "none")
		require.NoError(t, err)
		require.Equal(t, want, got, id)
	}
}
