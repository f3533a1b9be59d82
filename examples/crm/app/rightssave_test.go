package app

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDraftIsTypedAsItIsShown: the pages write −, and take it.
func TestDraftIsTypedAsItIsShown(t *testing.T) {
	draft, problem := parseDraft("− p4, default, role:a, role:b\n-g, role:a, role:b, default\n+ g, role:b, role:c, default\n")
	require.Empty(t, problem)
	require.Equal(t, [][]string{{"p4", "default", "role:a", "role:b"}, {"g", "role:a", "role:b", "default"}}, draft.Remove)
	require.Equal(t, [][]string{{"g", "role:b", "role:c", "default"}}, draft.Add)
	for _, sign := range []string{"–", "—", "²", "\xe2", "p", ""} {
		_, problem = parseDraft(sign + " p4, default, role:a, role:b")
		require.NotEmpty(t, problem, sign)
	}
}

// TestRightsThatNobodyHasAnyMore: who takes a right from the last who have it is told that
// nobody can undo it, and says that it is meant.
func TestRightsThatNobodyHasAnyMore(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner := in.signedIn("owner")
		stored, err := in.app.policy.Load(t.Context())
		require.NoError(t, err)
		exports := slices.DeleteFunc(slices.Clone(stored.Rules), func(row []string) bool { return row[0] != "p" || row[3] != kind || row[4] != "export" })
		page := owner.prepare(rightsDraft{Remove: exports}.text())
		has(t, page, "Nobody would have this any more")
		has(t, page, "<li>export contacts of all records</li>")
		has(t, owner.prepare("- p, role:owner, default, contacts, export, all, allow"), "<li>export contacts, as widely as now</li>")
		page = owner.prepare(rightsDraft{Remove: exports}.text())
		before := in.app.rights.Version()
		for _, agreed := range []string{"", "on", "another draft"} {
			status, again := owner.post("/rights/draft/save", "version", version(t, page), "draft", in.app.drafts.of("owner").ID, "reason", "a slip", "lost", agreed)
			require.Equal(t, http.StatusUnprocessableEntity, status)
			has(t, again, "Say that this is meant")
			require.Equal(t, before, in.app.rights.Version())
		}
		status, _ := owner.put(page, "nobody exports")
		require.Equal(t, http.StatusOK, status)
		_, page = owner.post(fmt.Sprintf("/rights/history/%d/back", stored.Version.Number))
		has(t, page, "Nobody gives what they lack: export contacts", "which is what was said")
		hasNot(t, owner.prepare(strings.ReplaceAll(phonesOfHeads, "+", "-"), "+ p4, default, role:head, role:seller"), "any more")
	})
}

// TestThePageAsksWhoDecides: what saving would be refused for is said before, be it for what
// somebody has in another's place.
func TestThePageAsksWhoDecides(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner := in.signedIn("owner")
		denied := "p, role:head, default, contacts, export, tree, deny"
		owner.change("+ "+denied, "- p, role:head, default, contacts, export, tree, allow")
		status, page := owner.post("/deputies/owner/set", "deputy", "head", "from", in.day(0), "to", in.day(1))
		require.Equal(t, http.StatusOK, status, page)
		page = in.signedIn("head").prepare("- " + denied)
		has(t, page, "You would get a right yourself")
		hasNot(t, page, "Put it in force")
		hasNot(t, owner.prepare("- "+denied), "This cannot be saved")
	})
}
