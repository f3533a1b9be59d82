package rbac

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casbin/casbin/v2/model"
	fileadapter "github.com/casbin/casbin/v2/persist/file-adapter"
	"github.com/stretchr/testify/require"
)

func policyFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.csv")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestCSVChangesKeepTheRestOfTheFile(t *testing.T) {
	const text = "# sellers\n" + goodRule + "\n\ng, u:anna, role:seller, acme\n  g,  u:anna, role:seller, other # not a comment"
	path := policyFile(t, text)
	f := &csvFile{path: path}
	content := func() string {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(b)
	}

	require.NoError(t, f.AddPolicy("g", "g", []string{`u:Ann "A"`, "role:seller", "acme"}))
	require.Equal(t, text+"\n"+`g,"u:Ann ""A""",role:seller,acme`+"\n", content(), "the last line had no end")
	require.NoError(t, f.RemovePolicy("g", "g", []string{`u:Ann "A"`, "role:seller", "acme"}))
	require.NoError(t, f.RemovePolicy("g", "g", []string{"u:nobody", "role:seller", "acme"}))
	require.Equal(t, text+"\n", content())
	require.NoError(t, f.RemoveFilteredPolicy("g", "g", 0, "u:anna", "", "acme"))
	require.NotContains(t, content(), "u:anna, role:seller, acme")
	require.Contains(t, content(), "u:anna, role:seller, other")

	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".policy-*"))
	require.NoError(t, err)
	require.Empty(t, left)

	require.Error(t, f.SavePolicy(model.Model{}))
	f.path = filepath.Join(t.TempDir(), "missing.csv")
	require.ErrorIs(t, f.AddPolicy("g", "g", []string{"u:a", "role:b", "c"}), os.ErrNotExist)
	require.ErrorIs(t, f.RemovePolicy("g", "g", []string{"u:a", "role:b", "c"}), os.ErrNotExist)
}

// A policy that is deployed as a link to a file elsewhere stays one.
func TestCSVWritesThroughASymbolicLink(t *testing.T) {
	path := policyFile(t, goodRule+"\n")
	link := filepath.Join(t.TempDir(), "link.csv")
	require.NoError(t, os.Symlink(path, link))
	for range 2 { // a second time the row is there
		require.NoError(t, (&csvFile{path: link}).AddPolicy("g", "g", []string{"u:anna", "role:seller", "acme"}))
	}
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&os.ModeSymlink)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, goodRule+"\ng,u:anna,role:seller,acme\n", string(text))
	n, err := (&csvFile{path: link}).RemoveRules(t.Context(), "g", "u:anna", "", "acme")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// A text that is accepted here means to Casbin's own file adapter what it means here.
func FuzzCSV(f *testing.F) {
	for _, seed := range []string{
		goodRule, "", "#", "p", "p,,,,,,", "g, u:anna, role:a, acme\n" + goodRule, "\ufeff" + goodRule,
		`g, "u:a""b", role:seller, acme` + "\r\n" + goodRule, "\"p\n\"", goodRule + "\ng2, own, dept\ng2, own, all", "g, u:a\x00, role:b, c",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, rules, err := parseCSV("fuzz.csv", []byte(text))
		if err != nil {
			var refused *PolicyError
			require.ErrorAs(t, err, &refused)
			return
		}
		if lintText(text) != nil {
			return
		}
		m, err := model.NewModelFromString(Model)
		require.NoError(t, err)
		require.NoError(t, fileadapter.NewAdapter(policyFile(t, text)).LoadPolicy(m))
		for _, kind := range []string{"p", "g", "g2"} {
			var want []string
			for _, rule := range rules {
				if rule[0] == kind && !slices.Contains(want, strings.Join(rule[1:], "\x00")) {
					want = append(want, strings.Join(rule[1:], "\x00"))
				}
			}
			var got []string
			for _, rule := range m[kind[:1]][kind].Policy {
				got = append(got, strings.Join(rule, "\x00"))
			}
			require.Equal(t, want, got)
		}
	})
}
