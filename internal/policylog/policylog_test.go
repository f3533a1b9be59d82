package policylog

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func TestWhatAChangeIs(t *testing.T) {
	for name, test := range map[string]struct {
		added, removed string
		whole          bool
		action         crmguard.Action
		widens         bool
	}{
		"a role":                   {"g u:a role:b t", "", false, crmguard.Grant, true},
		"roles for a time":         {"p2 u:a role:b t end,g u:a role:c t", "", false, crmguard.Grant, true},
		"a deputy":                 {"p3 u:a u:b t from end", "", false, crmguard.Grant, true},
		"a rule":                   {"p role:a t k view all allow", "", false, crmguard.Configure, true},
		"roles that exclude":       {"p4 t role:a role:b", "", false, crmguard.Configure, true},
		"a role for another":       {"g u:a role:b t", "g u:a role:c t", false, crmguard.Configure, true},
		"the first version":        {"g u:a role:b t", "", true, crmguard.Configure, true},
		"a role taken":             {"", "g u:a role:b t,p2 u:a role:b t end", false, crmguard.Revoke, false},
		"a rule taken":             {"", "p role:a t k view all allow", false, crmguard.Revoke, false},
		"what denies, taken":       {"", "g u:a role:b t,p role:a t k view all deny", false, crmguard.Revoke, true},
		"roles that excluded each": {"", "p4 t role:a role:b", false, crmguard.Revoke, true},
		"nothing":                  {"", "", false, crmguard.Revoke, false},
	} {
		c := Change{Added: rules(test.added), Removed: rules(test.removed), Whole: test.whole}
		require.Equal(t, test.action, c.action(), name)
		require.Equal(t, test.widens, c.widens(), name)
	}
}

func rules(text string) (rules [][]string) {
	for rule := range strings.SplitSeq(text, ",") {
		if rule != "" {
			rules = append(rules, strings.Fields(rule))
		}
	}
	return rules
}

func TestNoJournalTakesEverything(t *testing.T) {
	e, err := Log{}.Begin(t.Context(), Change{})
	require.NoError(t, err)
	e.End(t.Context(), "", "")
	Log{}.Found(t.Context(), Change{})
}
