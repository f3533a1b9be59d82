package rbac

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// Grants that ended stay stored until somebody takes them away, so a person who got a role
// again and again must not cost more for each time.
func TestEndedGrantsAddNothingToADecision(t *testing.T) {
	const times = 20_000
	var b strings.Builder
	b.WriteString("p, role:seller, acme, contacts, view, all, allow\np, role:head, acme, contacts, view, all, allow\ng, u:anna, role:seller, acme\n")
	for i := range times {
		for _, grant := range []string{"u:anna, role:seller", "u:anna, role:head", "u:boris, role:head"} {
			fmt.Fprintf(&b, "p2, %s, acme, %s\n", grant, formatEnd(1_000_000_000+int64(i)))
		}
	}
	clock := newHands("2026-12-01T00:00:00Z")
	e, _ := engineAt(t, b.String(), clock)
	steps := func(id string) (n int) {
		for h := e.current.Load().people[who{"acme", id}]; h != nil; h = h.then {
			n++
		}
		return n
	}
	require.Equal(t, 2, steps("anna"), "with the role that ended, and without")
	require.Equal(t, 2, steps("boris"))
	require.NoError(t, e.Check(t.Context(), person("anna"), crmguard.View, card))
	requireDenied(t, e.Check(t.Context(), person("boris"), crmguard.View, card), "no-rule")
	clock.set("2001-09-09T00:00:00Z") // before the first end
	require.NoError(t, e.Check(t.Context(), person("boris"), crmguard.View, card))
}

func TestEndedDeputiesAddNothingToADecision(t *testing.T) {
	const times = 5000
	var b strings.Builder
	b.WriteString("p, role:seller, acme, contacts, view, all, allow\np, role:auditor, acme, contacts, export, all, allow\n" +
		"p4, acme, role:seller, role:auditor\ng, u:anna, role:seller, acme\n")
	for i := range times { // days, one after the other
		from := 1_000_000_000 + 86400*int64(i)
		fmt.Fprintf(&b, "p3, u:boris, u:anna, acme, %s, %s\n", formatEnd(from), formatEnd(from+86400))
	}
	clock := newHands("2100-01-01T00:00:00Z")
	e, _ := engineAt(t, b.String(), clock)
	policy := e.current.Load()
	standIns := policy.standIns[who{"acme", "boris"}]
	require.Len(t, standIns, times)
	for _, ended := range []int{0, 1, times / 2, times} {
		require.Len(t, notEnded(standIns, 1_000_000_000+86400*int64(ended)), times-ended)
	}
	d := &decision{subject: &crmguard.Subject{}, clock: clock.now, policy: policy}
	d.identify(&d.parties[0], who{"acme", "boris"})
	require.Empty(t, d.parties[0].standIns, "nobody looks at what has ended")
	requireDenied(t, e.Check(t.Context(), person("boris"), crmguard.View, card), "no-rule")
	clock.set("2010-01-01T00:00:00Z")
	require.NoError(t, e.Check(t.Context(), person("boris"), crmguard.View, card))
}
