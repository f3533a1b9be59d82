package rbac

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// Rules are sorted as numbers, and the version wants them sorted as text.
func TestWordsAreInTheOrderOfTheirEncoding(t *testing.T) {
	require.True(t, slices.IsSortedFunc(actWords[:], func(a, b crmguard.Action) int { return compareNames(string(a), string(b)) }))
	require.True(t, slices.IsSortedFunc(scopeWords[:], compareNames))
	require.True(t, slices.IsSortedFunc(effectWords[:], compareNames))
	for n, word := range actWords {
		require.Equal(t, act(n), actOf(word)) // #nosec G115 -- twenty
	}
	for _, a := range slices.Concat(recordActions, fieldActions) {
		require.NotZero(t, actOf(a), a)
	}
	require.Zero(t, actOf("View"))
	require.Zero(t, actOf("anything"))
	require.ElementsMatch(t, scopes, scopeWords[:])
}

// Rows go in as text and come out as they were, wherever they stood, and the version is
// that of the text.
func TestRowsComeOutAsTheyWentIn(t *testing.T) {
	rnd := rand.New(rand.NewPCG(21, 22)) //nolint:gosec // the same run every time
	for range 30 {
		rows := randomPolicy(rnd, 40, 3, 4)
		for i := range rows {
			rows[i].where = pick(rnd, []string{"policy.csv:17", "row 4294967295", "row 4294967296", "row 007", "row 0", "grant", "", "12"})
			if rnd.IntN(9) == 0 {
				rows[i].kind, rows[i].fields = "p3", []string{"u:" + pick(rnd, somePersons), "u:" + pick(rnd, somePersons), pick(rnd, someTenants), formatEnd(rnd.Int64N(1 << 33)), formatEnd(rnd.Int64N(1 << 33))}
			}
			if r := rows[i]; r.kind == "g" && strings.HasPrefix(r.fields[0], personPrefix) && rnd.IntN(2) == 0 {
				rows[i].kind, rows[i].fields = "p2", append(slices.Clone(r.fields), formatEnd(rnd.Int64N(1<<33)))
			}
		}
		set := rowSetOf(rows)
		var want, got []string
		seen := map[[7]string]bool{}
		var rules [][]string
		for _, r := range rows {
			rules = append(rules, r.rule())
			if !seen[r.key()] {
				seen[r.key()] = true
				want = append(want, r.where+" "+strings.Join(r.rule(), ","))
			}
		}
		for _, r := range set.all() {
			got = append(got, r.where+" "+strings.Join(r.rule(), ","))
		}
		require.ElementsMatch(t, want, got)
		require.Equal(t, Digest(rules), set.version())
		again := rowSetOf(set.all())
		require.Equal(t, set.rules, again.rules)
		require.Equal(t, set.links, again.links)
		require.Equal(t, set.deputies, again.deputies)
	}
}

// A million rows are kept without pointers to follow, and no name keeps a file alive.
func TestNamesAreCopies(t *testing.T) {
	file := strings.Repeat(goodRule+"\n", 2)
	b := newRowBuilder(1)
	id := b.id(file[3:14])
	require.Equal(t, "role:seller", b.set.names[id])
	require.Zero(t, testing.AllocsPerRun(100, func() { b.id(file[3:14]) }))
}

// The quick way to read a line is the slow one.
func FuzzLines(f *testing.F) {
	for _, line := range []string{
		goodRule, "g, u:anna, role:a, acme", "  p,\ta ,\u00a0b, , c,", ",", "a,,", "p", `p, "a, b", c`, `p, a"b`, "#", " # x", "a\rb, c\r", "p, #a", "\u2028a, b", "a\x00, b", "p2, u:a, role:b, t, 2026-12-31T18:00:00Z",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		got, err := parseLine(line)
		trimmed := strings.TrimSpace(line)
		if err == nil && got == nil {
			require.True(t, trimmed == "" || strings.HasPrefix(trimmed, "#"))
			return
		}
		if len(line) > maxLine || strings.ContainsAny(line, "\n") {
			return
		}
		want, wantErr := parseQuoted(trimmed)
		if err != nil && strings.Contains(err.Error(), "UTF-8") {
			return
		}
		require.Equal(t, wantErr == nil, err == nil, "%v, %v", wantErr, err)
		require.Equal(t, want, got)
	})
}
