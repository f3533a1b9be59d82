package main

import (
	"encoding/csv"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/rbac"
)

const someDepartments = `# who works where
unit, sales
unit, north, sales
member, u:anna, north
tenant, Ромашка
unit, "Юг, центр"
head, vera, "Юг, центр"
member, vera, "Юг, центр"
`

func TestDepartments(t *testing.T) {
	d, err := parseDepartments(someDepartments)
	require.NoError(t, err)
	require.Equal(t, departments{
		"default": rbac.Units{Parent: map[string]string{"sales": "", "north": "sales"}, Members: map[string][]string{"anna": {"north"}}, Heads: map[string][]string{}},
		"Ромашка": rbac.Units{Parent: map[string]string{"Юг, центр": ""}, Members: map[string][]string{"vera": {"Юг, центр"}}, Heads: map[string][]string{"vera": {"Юг, центр"}}},
	}, d)
	for text, want := range map[string]string{
		"unit, a\nmember, anna, b":            "2: the department b has no line of its own; is the name right?",
		"unit, a\ntenant, t\nmember, anna, a": "3: the department a has no line",
		"unit, a\n\nunit, a":                  "3: the department a has a line already: 1",
		"unit, a, b\nunit, b, a":              "lies below itself",
		"unit, a, a":                          "1: the department a lies below itself",
		"unit":                                "1: want tenant",
		"chief, anna, a":                      "1: want tenant",
		"tenant, t, x":                        "1: want tenant",
		"unit, ":                              "1: a field is empty",
		"unit, \"a":                           "1: not a row",
	} {
		_, err := parseDepartments(text)
		require.ErrorContains(t, err, want, text)
	}
}

// What is understood says the same when it is written again, and names only departments that
// there are.
func FuzzDepartments(f *testing.F) {
	for _, seed := range []string{someDepartments, "unit, a, b\nunit, b, a", "unit,a\nunit,b,a\nhead,x,a\nhead,x,b", "tenant, \"\"\"\"", "unit,\"\na\"\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDepartments(text)
		if err != nil {
			return
		}
		var b strings.Builder
		w := csv.NewWriter(&b)
		write := func(fields ...string) { require.NoError(t, w.Write(fields)) }
		for tenant, units := range d {
			write("tenant", tenant)
			for kind, of := range map[string]map[string][]string{"member": units.Members, "head": units.Heads} {
				for person, list := range of {
					for _, unit := range list {
						require.Contains(t, units.Parent, unit)
						write(kind, "u:"+person, unit)
					}
				}
			}
			for unit, above := range units.Parent {
				write(slices.DeleteFunc([]string{"unit", unit, above}, func(field string) bool { return field == "" })...)
			}
		}
		w.Flush()
		again, err := parseDepartments(b.String())
		require.NoError(t, err, b.String())
		require.Equal(t, d, again)
	})
}
