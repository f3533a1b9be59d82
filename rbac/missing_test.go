package rbac

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// What is proposed as missing is a row that the policy takes, or nothing is.
func TestProposedRowsAreTaken(t *testing.T) {
	const allows = "p, role:a, acme, contacts, view, all, allow\n"
	for name, test := range map[string]struct {
		policy, person string
		proposed       [][]string
	}{
		"a role":              {allows, "anna", [][]string{{"g", "u:anna", "role:a", "acme"}}},
		"a name with a comma": {allows, "a,b", nil},
		"a name in form NFD":  {allows, "Zoe\u0308", nil},
		"a role like another": {allows, "role:a", nil},
		"an excluded role": {allows + "p, role:b, acme, orders, list, all, allow\ng, u:anna, role:b, acme\np4, acme, role:a, role:b", "anna",
			[][]string{{"p", "u:anna", "acme", "contacts", "view", "all", "allow"}}},
		"excluded as a deputy": {allows + "p, role:b, acme, orders, list, all, allow\ng, u:boris, role:b, acme\np4, acme, role:a, role:b\n" +
			"p3, u:anna, u:boris, acme, 2026-01-01T00:00:00Z, 2100-01-01T00:00:00Z", "anna",
			[][]string{{"p", "u:anna", "acme", "contacts", "view", "all", "allow"}}},
	} {
		t.Run(name, func(t *testing.T) {
			e := engineFromCSV(t, test.policy, nil)
			x, err := e.Explain(t.Context(), person(test.person), crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1"})
			require.NoError(t, err)
			require.Equal(t, "no-rule", x.Denial.Code)
			require.Equal(t, test.proposed, x.By[0].Missing)
			for _, row := range x.By[0].Missing {
				more := engineFromCSV(t, test.policy+"\n"+strings.Join(row, ","), nil)
				require.NoError(t, more.Check(t.Context(), person(test.person), crmguard.View, card))
			}
		})
	}
}
