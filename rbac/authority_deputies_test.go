package rbac

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

const shackledPolicy = `
p, role:boss, acme, contacts, export, all, allow
p, role:own, acme, contacts, export, own, allow
p, role:intern, acme, contacts, export, all, deny
g, u:anna, role:boss, acme
g, u:boris, role:boss, acme
g, u:olga, role:own, acme
g, u:dora, role:intern, acme
p3, u:dora, u:anna, acme, 2026-07-01T00:00:00Z, 2026-07-15T00:00:00Z
`

// What is denied to a deputy keeps the other's rights from them, so to end that is to give
// these, now or when the deputy begins.
func TestADenialIsNotTakenFromADeputy(t *testing.T) {
	boss := person("boris")
	narrowed := boss
	narrowed.Scopes = []string{"contacts:view"}
	for name, test := range map[string]struct {
		author crmguard.Subject
		code   string
	}{
		"the deputy":               {person("dora"), "self-grant"},
		"who has nothing":          {person("zoe"), "lacks-right"},
		"who has it on own only":   {person("olga"), "lacks-right"},
		"narrowed by a credential": {narrowed, "lacks-right"},
		"who has it":               {boss, ""},
		"who is stood in for":      {person("anna"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, at := range []string{"2026-06-01T00:00:00Z", "2026-07-02T00:00:00Z"} {
				for change, text := range map[string]string{
					"the rule":           strings.Replace(shackledPolicy, "p, role:intern, acme, contacts, export, all, deny\n", "", 1),
					"a part of the rule": strings.Replace(shackledPolicy, "export, all, deny", "export, own, deny", 1),
					"the role ends":      strings.Replace(shackledPolicy, "g, u:dora, role:intern, acme", "p2, u:dora, role:intern, acme, 2026-07-14T23:59:59Z", 1),
				} {
					e, _ := engineAt(t, shackledPolicy, newHands(at))
					next, _ := engineAt(t, text, newHands(at))
					err := mayChange(test.author, e.current.Load(), next.current.Load(), e.now())
					if test.code == "" {
						require.NoError(t, err, change)
					} else {
						requireDenied(t, err, test.code)
					}
				}
				e, _ := engineAt(t, shackledPolicy, newHands(at))
				err := e.RevokeRole(as(t.Context(), test.author), "acme", "dora", "intern")
				if test.code == "" {
					require.NoError(t, err)
				} else {
					requireDenied(t, err, test.code)
				}
			}
		})
	}
	late := strings.Replace(shackledPolicy, "g, u:dora, role:intern, acme", "p2, u:dora, role:intern, acme, 2026-07-15T00:00:00Z", 1)
	e, _ := engineAt(t, shackledPolicy, newHands("2026-07-02T00:00:00Z"))
	next, _ := engineAt(t, late, newHands("2026-07-02T00:00:00Z"))
	require.NoError(t, mayChange(person("zoe"), e.current.Load(), next.current.Load(), e.now()), "it ends when the deputy does")
}

const lentPolicy = `
p, role:seller, acme, contacts, view, own, allow
p, role:owner, acme, contacts, view, all, allow
g, u:mallory, role:seller, acme
g, u:olga, role:owner, acme
`

// Who has a right on their own records cannot give a third person those of another, in
// whatever order: first the deputy, or first the role, or both at once.
func TestWhatSomebodyGetsTheirDeputiesGet(t *testing.T) {
	clock := newHands("2026-07-02T00:00:00Z")
	end := clock.now().AddDate(0, 0, 7)
	for name, order := range map[string]func(e *Engine, author crmguard.Subject) error{
		"the deputy first": func(e *Engine, author crmguard.Subject) error {
			require.NoError(t, e.RevokeRole(as(t.Context(), author), "acme", "anna", "seller"))
			require.NoError(t, e.Deputize(as(t.Context(), author), "acme", "friend", "anna", clock.now(), end))
			return e.GrantRole(as(t.Context(), author), "acme", "anna", "seller")
		},
		"a deputy to be": func(e *Engine, author crmguard.Subject) error {
			require.NoError(t, e.RevokeRole(as(t.Context(), author), "acme", "anna", "seller"))
			require.NoError(t, e.Deputize(as(t.Context(), author), "acme", "friend", "anna", end.AddDate(0, 0, -1), end))
			return e.GrantRoleUntil(as(t.Context(), author), "acme", "anna", "seller", end)
		},
		"the role first": func(e *Engine, author crmguard.Subject) error {
			return e.Deputize(as(t.Context(), author), "acme", "friend", "anna", clock.now(), end)
		},
		"both at once": func(e *Engine, author crmguard.Subject) error {
			old, _ := engineAt(t, lentPolicy, clock)
			next, _ := engineAt(t, lentPolicy+"g, u:anna, role:seller, acme\np3, u:friend, u:anna, acme, 2026-07-01T00:00:00Z, 2026-07-15T00:00:00Z\n", clock)
			return mayChange(author, old.current.Load(), next.current.Load(), old.now())
		},
		"a rule": func(e *Engine, author crmguard.Subject) error {
			text := lentPolicy + "g, u:anna, role:new, acme\np3, u:friend, u:anna, acme, 2026-07-04T00:00:00Z, 2026-07-15T00:00:00Z\n"
			old, _ := engineAt(t, text, clock)
			next, _ := engineAt(t, text+"p, role:new, acme, contacts, view, own, allow\n", clock)
			return mayChange(author, old.current.Load(), next.current.Load(), old.now())
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := engineAt(t, lentPolicy+"g, u:anna, role:seller, acme\n", clock)
			requireDenied(t, order(e, person("mallory")), "lacks-right")
			require.Error(t, e.Check(t.Context(), person("friend"), crmguard.View, viewOf("anna")))
			e, _ = engineAt(t, lentPolicy+"g, u:anna, role:seller, acme\n", clock)
			require.NoError(t, order(e, person("olga")))
		})
	}
	e, _ := engineAt(t, lentPolicy+"p3, u:friend, u:anna, acme, 2026-07-10T00:00:00Z, 2026-07-15T00:00:00Z\n", clock)
	require.NoError(t, e.GrantRoleUntil(as(t.Context(), person("mallory")), "acme", "anna", "seller", end), "it ends before the deputy begins")
}

// A rule that denies less to a deputy gives more, though nobody has a right more by itself.
func TestWhatIfTellsOfDenialsOfDeputies(t *testing.T) {
	clock := newHands("2026-07-02T00:00:00Z")
	for name, test := range map[string]struct{ before, after, want string }{
		"some of it goes":  {"all", "dept", "u:dora, as deputy of u:anna, gains export contacts of all records"},
		"a part goes":      {"dept", "", "u:dora, as deputy of u:anna, gains export contacts of all records"},
		"a part stays":     {"dept", "own", "u:dora, as deputy of u:anna, gains export contacts of all records"},
		"a part comes":     {"", "dept", "u:dora, as deputy of u:anna, loses export contacts of all records"},
		"nothing is other": {"dept", "dept", ""},
	} {
		t.Run(name, func(t *testing.T) {
			denying := func(scope string) *Engine {
				const rule = "p, role:intern, acme, contacts, export, all, deny\n"
				of := strings.Replace(rule, "all", scope, 1)
				if scope == "" {
					of = "p, role:intern, acme, tasks, export, all, deny\n"
				}
				e, _ := engineAt(t, strings.Replace(shackledPolicy, rule, of, 1), clock)
				return e
			}
			c, err := denying(test.before).WhatIf(t.Context(), "acme", denying(test.after))
			require.NoError(t, err)
			c.Added, c.Removed = nil, nil
			require.Equal(t, test.want, strings.TrimSpace(c.String()))
		})
	}
}

// What keeps two roles apart is not ended by who has one of them.
func TestNobodyEndsWhatKeepsThemApart(t *testing.T) {
	const text = `
p, role:buyer, acme, orders, create, all, allow
p, role:payer, acme, orders, update, all, allow
g, unit:desk, role:buyer, acme
g, u:adam, unit:desk, acme
g, u:pia, role:payer, acme
p2, u:once, role:payer, acme, 2026-07-01T00:00:00Z
p3, u:dora, u:pia, acme, 2026-07-10T00:00:00Z, 2026-07-15T00:00:00Z
p4, acme, role:buyer, role:payer
`
	forPia, job := person("zoe"), crmguard.Subject{Tenant: "acme", ID: "system:job", Kind: crmguard.KindSystem}
	forPia.OnBehalfOf = "pia"
	jobForPia := job
	jobForPia.OnBehalfOf = "pia"
	clock := newHands("2026-07-02T00:00:00Z")
	old, _ := engineAt(t, text, clock)
	without, _ := engineAt(t, strings.Replace(text, "p4, acme, role:buyer, role:payer\n", "", 1), clock)
	turned, _ := engineAt(t, strings.Replace(text, "role:buyer, role:payer\n", "role:payer, role:buyer\n", 1), clock)
	for name, test := range map[string]struct {
		author crmguard.Subject
		code   string
	}{
		"through a team":    {person("adam"), "self-grant"},
		"has the other":     {person("pia"), "self-grant"},
		"is deputy soon":    {person("dora"), "self-grant"},
		"acts for one":      {forPia, "self-grant"},
		"a job for one":     {jobForPia, "self-grant"},
		"has neither":       {person("zoe"), ""},
		"has none any more": {person("once"), ""},
		"a job":             {job, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := mayChange(test.author, old.current.Load(), without.current.Load(), old.now())
			if test.code == "" {
				require.NoError(t, err)
			} else {
				requireDenied(t, err, test.code)
			}
			require.NoError(t, mayChange(test.author, old.current.Load(), turned.current.Load(), old.now()), "they are kept apart as before")
		})
	}
}

// Members of a role who have nothing else are judged as one, and a role that somebody was
// given again and again ends once.
func TestJudgingIsForWhoDiffers(t *testing.T) {
	judged := func(members, grants int) (kinds, moments int) {
		var text strings.Builder
		text.WriteString("p, role:seller, acme, contacts, view, all, allow\ng, role:boss, role:seller, acme\np, role:boss, acme, orders, view, all, allow\ng, u:author, role:boss, acme\n")
		for i := range members {
			fmt.Fprintf(&text, "g, u:p%d, role:seller, acme\n", i)
		}
		for i := range grants {
			fmt.Fprintf(&text, "p2, u:once, role:boss, acme, %s\n", formatEnd(4_000_000_000+int64(i)))
		}
		clock := newHands("2026-07-02T00:00:00Z")
		old, _ := engineAt(t, text.String(), clock)
		next, _ := engineAt(t, text.String()+"p, role:seller, acme, orders, view, own, allow\n", clock)
		require.NoError(t, mayChange(person("author"), old.current.Load(), next.current.Load(), old.now()))
		j := newJudge(person("author"), old.current.Load(), next.current.Load(), old.now())
		for i := range members {
			require.NoError(t, j.own(fmt.Sprintf("u:p%d", i)))
		}
		return len(j.judged), len(j.moments(nil, "u:once"))
	}
	kinds, moments := judged(500, 100)
	require.Equal(t, 1, kinds)
	require.Equal(t, 2, moments)
}
