package rbac

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/casbin/casbin/v2/persist"
	"github.com/stretchr/testify/require"
)

const goodRule = "p, role:seller, acme, contacts, view, own, allow"

// textSource is a policy file in memory.
type textSource struct {
	persist.Adapter
	text string
}

func (s textSource) Rules(context.Context) ([]string, [][]string, error) {
	return parseCSV("policy.csv", []byte(s.text))
}

// lintText runs a policy file through all checks.
func lintText(text string) error {
	_, err := New(context.Background(), textSource{text: text}, &Options{Logger: slog.New(slog.DiscardHandler)})
	return err
}

func chainOfRoles(links int) string {
	lines := []string{"g, u:anna, role:r1, acme"}
	for i := 1; i < links; i++ {
		lines = append(lines, fmt.Sprintf("g, role:r%d, role:r%d, acme", i, i+1))
	}
	return strings.Join(lines, "\n")
}

func TestUnsafePoliciesAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		text   string // below a good rule, so in line 2
		reason string
	}{
		"effect with a capital":      {"p, role:a, acme, contacts, view, own, Deny", `effect "Deny" is neither`},
		"effect left out":            {"p, role:a, acme, contacts, view, own", "5 fields; want 6"},
		"long rule":                  {"p, role:a, acme, contacts, view, own, allow, x", "7 fields; want 6"},
		"short link":                 {"g, u:anna, role:a", "2 fields; want 3"},
		"long link":                  {"g, u:anna, role:a, acme, x", "4 fields; want 3"},
		"only a type":                {"p", "0 fields"},
		"type with a capital":        {"P, role:a, acme, contacts, view, own, allow", "unknown type of row"},
		"another policy type":        {"p5, role:a, acme, contacts, view, own, allow", "unknown type of row"},
		"deputy of a role":           {"p3, u:a, role:b, acme, 2026-12-30T18:00:00Z, 2026-12-31T18:00:00Z", "starts with one of"},
		"role as a deputy":           {"p3, role:a, u:b, acme, 2026-12-30T18:00:00Z, 2026-12-31T18:00:00Z", "starts with one of"},
		"deputy of oneself":          {"p3, u:a, u:a, acme, 2026-12-30T18:00:00Z, 2026-12-31T18:00:00Z", "for themselves"},
		"deputy of a job":            {"p3, u:a, u:system:import, acme, 2026-12-30T18:00:00Z, 2026-12-31T18:00:00Z", "a job of the host"},
		"job as a deputy":            {"p3, u:system:import, u:a, acme, 2026-12-30T18:00:00Z, 2026-12-31T18:00:00Z", "a job of the host"},
		"deputy backwards":           {"p3, u:a, u:b, acme, 2026-12-31T18:00:00Z, 2026-12-31T18:00:00Z", "before it begins"},
		"deputy without beginning":   {"p3, u:a, u:b, acme, 2026-12-31, 2026-12-31T18:00:00Z", "the beginning"},
		"deputy without end":         {"p3, u:a, u:b, acme, 2026-12-31T18:00:00Z, never", "the end"},
		"deputy for ever":            {"p3, u:a, u:b, acme, 2026-12-31T18:00:00Z", "4 fields; want 5"},
		"grant that ends, as a rule": {"p2, role:a, acme, contacts, view, own, allow", "6 fields; want 4"},
		"grant to a role that ends":  {"p2, role:a, role:b, acme, 2026-12-31T18:00:00Z", "starts with one of"},
		"grant of a person":          {"p2, u:a, u:b, acme, 2026-12-31T18:00:00Z", "starts with one of"},
		"end without a zone":         {"p2, u:a, role:b, acme, 2026-12-31T18:00:00", "want a time in UTC"},
		"end in another zone":        {"p2, u:a, role:b, acme, 2026-12-31T18:00:00+03:00", "want a time in UTC"},
		"end with a fraction":        {"p2, u:a, role:b, acme, 2026-12-31T18:00:00.5Z", "want a time in UTC"},
		"end without a time":         {"p2, u:a, role:b, acme, 2026-12-31", "want a time in UTC"},
		"end that is no day":         {"p2, u:a, role:b, acme, 2026-02-30T18:00:00Z", "want a time in UTC"},
		"byte order mark":            {"\ufeffp, role:a, acme, contacts, view, own, allow", "unknown type of row"},
		"subject without prefix":     {"p, seller, acme, contacts, view, own, allow", `starts with one of`},
		"prefix alone":               {"p, role:, acme, contacts, view, own, allow", "want a name behind"},
		"user named like a role":     {"g, u:role:admin, role:a, acme", "no other prefix"},
		"role named like a user":     {"g, u:anna, role:u:boris, acme", "no other prefix"},
		"user as a role":             {"g, u:anna, u:boris, acme", `starts with one of`},
		"link without prefix":        {"g, anna, role:a, acme", `starts with one of`},
		"link to no prefix":          {"g, u:anna, admin, acme", `starts with one of`},
		"unknown scope":              {"p, role:a, acme, contacts, view, mine, allow", `unknown scope "mine"`},
		"relation as a scope":        {"p, role:a, acme, contacts, view, none, allow", `unknown scope "none"`},
		"combined relation as scope": {"p, role:a, acme, contacts, view, own+shared, allow", `unknown scope`},
		"unknown action":             {"p, role:a, acme, contacts, read, own, allow", `unknown action "read"`},
		"action with a capital":      {"p, role:a, acme, contacts, View, own, deny", `unknown action "View"`},
		"no right on a field":        {"p, role:a, acme, contacts#phone, view, own, allow", `no right on a field`},
		"wildcard of fields":         {"p, role:a, acme, contacts#*, read, own, allow", "has a *"},
		"wildcard of tenants":        {"p, role:a, *, contacts, view, own, allow", "has a *"},
		"field without kind":         {"p, role:a, acme, \"#phone\", read, own, allow", "want kind#field"},
		"kind without field":         {"p, role:a, acme, contacts#, read, own, allow", "want kind#field"},
		"field of a field":           {"p, role:a, acme, contacts#phone#home, read, own, allow", "more than one #"},
		"section with a scope":       {"p, role:a, acme, section:journal, access, own, deny", `its scope is "all"`},
		"empty tenant":               {"p, role:a, , contacts, view, own, allow", `"" is empty`},
		"empty subject":              {`p, "", acme, contacts, view, own, allow`, `"" is empty`},
		"empty tenant of a link":     {"g, u:anna, role:a,", `"" is empty`},
		"comma":                      {`g, u:anna, "role:a,b", acme`, "has a comma"},
		"NUL":                        {"g, u:an\x00na, role:a, acme", "invisible character"},
		"two dollars":                {"g, u:an$$na, role:a, acme", "has $$"},
		"NFD":                        {"g, u:Зои\u0306, role:a, acme", "NFC"},
		"zero-width space":           {"g, u:an\u200bna, role:a, acme", "invisible character"},
		"no-break space":             {"g, u:anna, role:head\u00a0of, acme", "invisible character"},
		"Hangul filler":              {"g, u:an\u3164na, role:a, acme", "invisible character"},
		"Hangul choseong filler":     {"g, u:an\u115fna, role:a, acme", "invisible character"},
		"half-width Hangul filler":   {"g, u:an\uffa0na, role:a, acme", "invisible character"},
		"Khmer inherent vowel":       {"g, u:an\u17b4na, role:a, acme", "invisible character"},
		"grapheme joiner":            {"g, u:an\u034fna, role:a, acme", "invisible character"},
		"variation selector":         {"g, u:anna\ufe0f, role:a, acme", "invisible character"},
		"variation selector 256":     {"g, u:anna\U000e01ef, role:a, acme", "invisible character"},
		"Mongolian selector":         {"g, u:anna\u180b, role:a, acme", "invisible character"},
		"blank Braille":              {"g, u:an\u2800na, role:a, acme", "invisible character"},
		"section without a name":     {"p, role:a, acme, section:, access, all, allow", "want a name behind"},
		"field of no section":        {"p, role:a, acme, section:#x, read, all, allow", "want a name behind"},
		"space at the end":           {"g, u:anna , role:a, acme", "space"},
		"not UTF-8":                  {"g, u:\xff, role:a, acme", "not UTF-8"},
		"very long name":             {"g, u:" + strings.Repeat("a", 300) + ", role:a, acme", "longer than 256"},
		"very long line":             {"# " + strings.Repeat("a", 1<<16), "line is longer"},
		"bare quote":                 {`g, u:an"na, role:a, acme`, "not a row"},
		"open quote":                 {`g, "u:anna, role:a, acme`, "not a row"},
		"own graph of scopes":        {"g2, own, all", "built in"},
		"link of the scopes turned":  {"g2, all, own", "built in"},
		"role of itself":             {"g, role:a, role:a, acme", "cycle"},
		"cycle":                      {"g, role:a, role:b, acme\ng, role:b, role:c, acme\ng, role:c, role:a, acme", "cycle"},
		"chain of 11":                {chainOfRoles(11), "chain of 11"},
	} {
		t.Run(name, func(t *testing.T) {
			err := lintText(goodRule + "\n" + test.text + "\n")
			var refused *PolicyError
			require.ErrorAs(t, err, &refused)
			require.Len(t, refused.Findings, 1, "%v", err)
			require.Contains(t, refused.Findings[0].Reason, test.reason)
			require.Contains(t, refused.Findings[0].Where, "policy.csv:")
			require.ErrorContains(t, err, test.reason)
		})
	}
}

// A chain of roles as long as a file is refused like one of eleven, and does not end the
// process as a stack without end would.
func TestAVeryLongChainOfRolesIsRefused(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(8 << 20))
	const links = 100_000
	for name, extra := range map[string]string{"chain": "", "cycle": fmt.Sprintf("g, role:r%d, role:r1, acme\n", links)} {
		t.Run(name, func(t *testing.T) {
			var refused *PolicyError
			require.ErrorAs(t, lintText(goodRule+"\n"+chainOfRoles(links)+"\n"+extra), &refused)
		})
	}
}

func TestSafePoliciesAreAccepted(t *testing.T) {
	scopeGraph := ""
	for _, r := range ScopeRows() {
		scopeGraph += "g2, " + r[0] + ", " + r[1] + "\n"
	}
	for name, text := range map[string]string{
		"starter":               StarterPolicy(),
		"chain of 10":           chainOfRoles(10),
		"diamond":               "g, role:a, role:b, acme\ng, role:a, role:c, acme\ng, role:b, role:d, acme\ng, role:c, role:d, acme",
		"cycle of two tenants":  "g, role:a, role:b, acme\ng, role:b, role:a, other",
		"the same row twice":    goodRule,
		"scopes written out":    scopeGraph,
		"quotes, spaces, #":     "# comment\n\n  # another\n\tg,\"u:Анна \"\"А\"\" П.\",role:a,acme\r\n",
		"job of the host":       "g, u:system:import, role:seller, acme",
		"one $ and one more":    "g, u:a$b$c, role:a, acme",
		"unit and personal row": "g, unit:Юг, role:seller, acme\np, u:anna, acme, Сделки#Сумма, unmask, tree, deny",
	} {
		t.Run(name, func(t *testing.T) { require.NoError(t, lintText(goodRule+"\n"+text)) })
	}
}

func TestEveryFindingIsReported(t *testing.T) {
	text := []string{goodRule}
	for i := range 25 {
		text = append(text, fmt.Sprintf("p, role:a, acme, contacts, view, own, deny%d", i))
	}
	var refused *PolicyError
	require.ErrorAs(t, lintText(strings.Join(text, "\n")), &refused)
	require.Len(t, refused.Findings, 25)
	require.Equal(t, "policy.csv:26", refused.Findings[24].Where)
	require.Contains(t, refused.Error(), "and 15 more")

	require.ErrorAs(t, lintText("g, \"u:a\np\ng, \"u:b\n"+goodRule), &refused)
	require.Len(t, refused.Findings, 3, "lines that are no rows, then rows")
	require.NotContains(t, lintText(goodRule+"\ng, u:a\x00, role:a, acme").Error(), "\x00", "findings are safe to print")
}

func TestEmptyPolicyIsRefused(t *testing.T) {
	for _, text := range []string{"", "\n# only a comment\n", "g, u:anna, role:a, acme\n", "g2, own, dept"} {
		var refused *PolicyError
		require.ErrorAs(t, lintText(text), &refused, "%q", text)
		require.Contains(t, refused.Error(), "no rule")
	}
}

// The version is kept in journals, so it must not change with the program.
func TestVersionOfAPolicy(t *testing.T) {
	golden, err := os.ReadFile("testdata/v1/version")
	require.NoError(t, err)
	want := strings.TrimSpace(string(golden))

	e, err := FromCSV(t.Context(), "testdata/v1/policy.csv", &Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.Equal(t, want, e.Version())

	rows := e.current.Load().rows.all()
	slices.Reverse(rows)
	require.Equal(t, want, snapshotOf(t, rows).version, "order does not matter")
	require.Equal(t, want, snapshotOf(t, append(rows, rows[0], row{"", "g2", []string{"own", "dept"}})).version, "nor do rows that change nothing")
	require.NotEqual(t, want, snapshotOf(t, rows[1:]).version)
}
