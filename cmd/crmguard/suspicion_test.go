package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

var (
	persons = []string{"anna", "boris", "clara"}
	objects = []string{"contacts", "contacts#phone", "deals"}
	actions = []crmguard.Action{crmguard.Reveal, crmguard.Export}
)

// resources are records in every relation to the persons.
func resources() []crmguard.Resource {
	var list []crmguard.Resource
	for _, object := range objects {
		kind, field, _ := strings.Cut(object, "#")
		for _, owner := range []string{"anna", "boris", ""} {
			for _, unit := range []string{"", "sales", "north"} {
				for _, shared := range []bool{false, true} {
					list = append(list, crmguard.Resource{Tenant: "acme", Kind: kind, ID: "1", Field: field, Owner: owner, Unit: unit, Shared: shared})
				}
			}
		}
	}
	return list
}

// answers asks a policy everything, or returns why rbac refuses it.
func answers(ctx context.Context, path string, lines []string) ([]bool, error) {
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		return nil, err
	}
	org := &rbac.StaticOrg{}
	org.Set("acme", rbac.Units{
		Parent:  map[string]string{"north": "sales"},
		Members: map[string][]string{"anna": {"sales"}, "boris": {"north"}},
		Heads:   map[string][]string{"anna": {"north"}, "boris": {"sales"}},
	})
	e, err := rbac.FromCSV(ctx, path, &rbac.Options{Org: org, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	var list []bool
	for _, person := range persons {
		s := crmguard.Subject{Tenant: "acme", ID: person, Kind: crmguard.KindEmployee}
		for _, r := range resources() {
			for _, action := range actions {
				list = append(list, e.Check(ctx, s, action, r) == nil)
			}
		}
	}
	return list, nil
}

// policies are generated so that most are accepted, and much in them overlaps.
func policies() *rapid.Generator[[]string] {
	who := []string{"u:anna", "u:boris", "role:a", "role:b", "role:c", "unit:d"}
	rule := rapid.Custom(func(t *rapid.T) string {
		pick := func(from ...string) string { return rapid.SampledFrom(from).Draw(t, "field") }
		return strings.Join([]string{"p", pick(who...), "acme", pick(objects...), pick("reveal", "export"),
			pick("own", "dept", "tree", "headed", "shared", "all"), pick("allow", "allow", "deny")}, ", ")
	})
	link := rapid.Custom(func(t *rapid.T) string {
		from := rapid.IntRange(0, 4).Draw(t, "who")
		to := rapid.IntRange(max(from+1, 2), 5).Draw(t, "role") // later ones only, so that there are no cycles
		return strings.Join([]string{"g", who[from], who[to], "acme"}, ", ")
	})
	return rapid.Custom(func(t *rapid.T) []string {
		return slices.Concat(rapid.SliceOfN(rule, 2, 14).Draw(t, "rules"), rapid.SliceOfN(link, 0, 5).Draw(t, "links"))
	})
}

// without is a policy with a line left empty, so that the others keep their numbers.
func without(lines []string, line int) []string {
	fewer := slices.Clone(lines)
	fewer[line-1] = ""
	return fewer
}

// A row that is reported can go, and nobody is answered otherwise.
func TestReportedRowsChangeNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "policy.csv")
	reported := map[string]int{}
	unreported, decisive := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		lines := policies().Draw(rt, "policy")
		want, err := answers(t.Context(), path, lines)
		if err != nil {
			rt.Fatalf("%v", err)
		}
		p, err := readPolicy(strings.Join(lines, "\n"))
		if err != nil {
			rt.Fatalf("%v", err)
		}
		told := map[int]string{}
		for _, s := range p.suspicions() {
			told[s.line] = s.text
			reported[strings.Fields(s.text)[0]]++
		}
		other := false
		for number := range lines {
			text, ok := told[number+1]
			if !ok && other {
				continue // one of them is enough
			}
			other = other || !ok
			got, err := answers(t.Context(), path, without(lines, number+1))
			if err != nil {
				continue // no rule is left
			}
			changed := !slices.Equal(want, got)
			switch {
			case ok && changed && !strings.HasPrefix(text, "gives a field"):
				rt.Fatalf("line %d: %s\nbut without it the answers differ:\n%s", number+1, text, strings.Join(lines, "\n"))
			case !ok:
				unreported++
				if changed {
					decisive++
				}
			}
		}
	})
	t.Logf("reported %v; of %d other rows %d are decisive", reported, unreported, decisive)
	for _, kind := range []string{"the", "gives", "denies", "allows", "changes", "nobody"} {
		require.NotZero(t, reported[kind], "the generator never makes what %q tells of", kind)
	}
	require.NotZero(t, decisive, "the planted fault: rows that do count are noticed when they go")
}

// The policy that people copy is clean, also once people have roles.
func TestStarterPolicyIsClean(t *testing.T) {
	text := rbac.StarterPolicy()
	path := filepath.Join(t.TempDir(), "policy.csv")
	for range 2 {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		code, out, _ := invoke(t, "policy", "lint", "-strict", path)
		require.Equal(t, good, code, out)
		code, out, _ = invoke(t, "policy", "matrix", "-policy", path)
		require.Equal(t, good, code)
		require.Contains(t, out, "deals#margin")
		for _, role := range []string{"owner", "admin", "head", "accountant", "support", "marketer", "integration"} {
			text += "g, u:" + role + ", role:" + role + ", default\n"
		}
	}
}

// Casbin's parser and rbac's read the same rows, so that no line is judged that
// rbac has not accepted.
func FuzzReadPolicy(f *testing.F) {
	f.Add(rbac.StarterPolicy())
	f.Add("p, role:a, acme, \"contacts\", view, own, allow\r\n\n# x\n g,u:anna , role:a, acme")
	f.Add("g2, own, dept\np, u:a, b, c, view, all, deny")
	path := filepath.Join(f.TempDir(), "policy.csv")
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		e, err := rbac.FromCSV(t.Context(), path, &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return
		}
		p, err := readPolicy(text)
		require.NoError(t, err)
		p.suspicions()
		var rewritten strings.Builder
		for _, r := range p.rows {
			rewritten.WriteString(r.kind + "," + strings.Join(r.fields, ",") + "\n") // rbac accepts no commas in fields
		}
		require.NoError(t, os.WriteFile(path, []byte(rewritten.String()), 0o600))
		again, err := rbac.FromCSV(t.Context(), path, &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		require.Equal(t, e.Version(), again.Version())
	})
}
