package rbac

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// In each case one who gives a deputy, or something by way of one, has not what it gives.
func TestWhoMaySetADeputy(t *testing.T) {
	clock := newHands("2026-07-02T00:00:00Z")
	end := clock.now().AddDate(0, 1, 0)
	scoped := person("anna")
	scoped.Scopes = []string{"contacts:list"}
	forAnna := person("olga")
	forAnna.OnBehalfOf = "dora"
	for name, test := range map[string]struct {
		granter      crmguard.Subject
		deputy, whom string
		code         string
	}{
		"the person":                     {person("anna"), "dora", "anna", ""},
		"who has all rights":             {person("olga"), "dora", "anna", ""},
		"oneself":                        {person("dora"), "dora", "anna", "self-grant"},
		"oneself, with all rights":       {person("olga"), "olga", "anna", "self-grant"},
		"the same rights, other records": {person("boris"), "dora", "anna", "lacks-right"},
		"a head's tree":                  {person("vera"), "dora", "anna", "lacks-right"},
		"a stranger":                     {person("zoe"), "dora", "anna", "lacks-right"},
		"narrowed by a credential":       {scoped, "dora", "anna", "lacks-right"},
		"for somebody without rights":    {forAnna, "zoe", "anna", "lacks-right"},
		"for the one who would be it":    {forAnna, "dora", "anna", "self-grant"},
		"for one who has more":           {person("anna"), "dora", "olga", "lacks-right"},
		"to oneself as one's own":        {person("anna"), "anna", "anna", "self-grant"},
		"for a deputy's other":           {person("boris"), "zoe", "boris", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := engineAt(t, deputyPolicy, clock)
			err := e.Deputize(as(t.Context(), test.granter), "acme", test.deputy, test.whom, clock.now(), end)
			if test.code != "" {
				requireDenied(t, err, test.code)
				return
			}
			require.NoError(t, err)
			require.NoError(t, e.Check(t.Context(), person(test.deputy), crmguard.View, viewOf(test.whom)))
			require.Error(t, e.Check(t.Context(), person("zoe"), crmguard.View, viewOf("anna")), "not of a deputy")
			require.NoError(t, e.Reload(t.Context()))
			require.NoError(t, e.Check(t.Context(), person(test.deputy), crmguard.View, viewOf(test.whom)), "it is stored")
		})
	}
	e, _ := engineAt(t, deputyPolicy, clock)
	job := crmguard.System(t.Context(), "acme", "holidays")
	require.NoError(t, e.Deputize(job, "acme", "dora", "olga", clock.now(), end))
	require.ErrorContains(t, e.Deputize(job, "acme", "dora", "anna", clock.now(), clock.now()), "is over")
	require.ErrorContains(t, e.Deputize(job, "acme", "dora", "anna", end, end), "before it begins")
	require.ErrorContains(t, e.Deputize(job, "acme", "dora", "dora", clock.now(), end), "themselves")
	require.ErrorContains(t, e.Deputize(t.Context(), "acme", "dora", "anna", clock.now(), end), "nobody acts")
	require.Error(t, e.Deputize(job, "other", "dora", "anna", clock.now(), end))
	require.Equal(t, []Deputy{
		{"u:dora", "u:olga", "acme", clock.now(), end},
		{"u:boris", "u:anna", "acme", time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 7, 15, 0, 0, 0, 0, time.UTC)},
	}, must(e.Deputies(t.Context(), "acme")))
}

// What somebody has as a deputy they cannot give, nor give the other what they then have.
func TestADeputyGrantsNothingByIt(t *testing.T) {
	clock := newHands("2026-07-02T00:00:00Z")
	e, _ := engineAt(t, deputyPolicy+"p3, u:zoe, u:olga, acme, 2026-07-01T00:00:00Z, 2026-07-15T00:00:00Z\np3, u:olga, u:dora, acme, 2026-07-10T00:00:00Z, 2026-07-15T00:00:00Z\n", clock)
	zoe := as(t.Context(), person("zoe"))
	require.NoError(t, e.Check(t.Context(), person("zoe"), crmguard.View, viewOf("anna")))
	requireDenied(t, e.GrantRole(zoe, "acme", "anna", "owner"), "lacks-right")
	requireDenied(t, e.GrantRole(zoe, "acme", "olga", "seller"), "self-grant")
	requireDenied(t, e.Deputize(zoe, "acme", "dora", "olga", clock.now(), clock.now().AddDate(0, 1, 0)), "lacks-right")
	olga := as(t.Context(), person("olga"))
	requireDenied(t, e.GrantRole(olga, "acme", "dora", "owner"), "self-grant") // she stands in for dora soon
	require.NoError(t, e.GrantRole(olga, "acme", "anna", "owner"))
}

func TestDeputiesEnd(t *testing.T) {
	clock := newHands("2026-07-02T00:00:00Z")
	for name, end := range map[string]func(e *Engine) error{
		"EndDeputy":             func(e *Engine) error { return e.EndDeputy(t.Context(), "acme", "boris", "anna") },
		"the deputy leaves":     func(e *Engine) error { _, err := e.Revoke(t.Context(), "acme", "boris"); return err },
		"the other leaves":      func(e *Engine) error { _, err := e.Revoke(t.Context(), "acme", "anna"); return err },
		"planted fault: nobody": nil,
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := engineAt(t, deputyPolicy+"p, u:anna, acme, contacts, view, own, allow\n", clock)
			if end != nil {
				require.NoError(t, end(e))
				require.NoError(t, e.Reload(t.Context()))
			}
			require.Equal(t, end == nil, e.Check(t.Context(), person("boris"), crmguard.View, viewOf("anna")) == nil)
			require.Equal(t, end == nil, len(must(e.Deputies(t.Context(), "acme"))) > 0)
		})
	}
}

// Duties that are separated stay so: whoever stands in for somebody has not both roles by
// it, be it the deputy who comes last, the role, or the row that separates.
func TestADeputyDoesNotJoinWhatIsSeparated(t *testing.T) {
	clock := newHands("2026-07-02T00:00:00Z")
	const duties = `
p, role:buyer, acme, orders, create, all, allow
p, role:payer, acme, invoices, create, all, allow
g, u:anna, role:payer, acme
g, u:boris, role:buyer, acme
p4, acme, role:buyer, role:payer
`
	job := crmguard.System(t.Context(), "acme", "x")
	end := clock.now().AddDate(0, 1, 0)
	e, _ := engineAt(t, duties, clock)
	requireDenied(t, e.Deputize(job, "acme", "boris", "anna", clock.now(), end), "separation-of-duties")
	requireDenied(t, e.Deputize(job, "acme", "anna", "boris", end, end.AddDate(1, 0, 0)), "separation-of-duties")
	require.NoError(t, e.Deputize(job, "acme", "zoe", "anna", clock.now(), end))
	requireDenied(t, e.GrantRole(job, "acme", "zoe", "buyer"), "separation-of-duties")
	require.NoError(t, e.GrantRole(job, "acme", "zoe", "payer"))

	const standsIn = "p3, u:boris, u:anna, acme, 2026-07-01T00:00:00Z, 2026-07-15T00:00:00Z\n"
	refused := func(text string, now int64) bool {
		_, rules, err := parseCSV("", []byte(text))
		require.NoError(t, err)
		var rows []row
		for _, rule := range rules {
			rows = append(rows, rowOf("", rule))
		}
		_, err = compileAt(rows, func() int64 { return now })
		return err != nil
	}
	now := clock.now().Unix()
	require.True(t, refused(duties+standsIn, now))
	require.False(t, refused(strings.ReplaceAll(duties+standsIn, "p4,", "#"), now), "nothing is separated")
	require.False(t, refused(duties+standsIn, now+14*24*3600), "it is over")
}
