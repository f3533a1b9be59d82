package app

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// TestSearchHasAnAddress: who goes back to what was found sees it again; the address says nothing,
// and to others, or later, it leads nowhere.
func TestSearchHasAnAddress(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(60))
		in.atNoon()
		owner := in.signedIn("owner")
		address := owner.searchFor("/contacts/search", "query", "quillfeather0")
		require.Regexp(t, `^/contacts/search\?q=[A-Z2-7]{26}$`, address)
		_, first := owner.get(address)
		has(t, first, `value="quillfeather0"`)
		second := moreLink.FindStringSubmatch(first)[1]
		for range 2 {
			status, page := owner.get(second)
			require.Equal(t, http.StatusOK, status)
			require.Equal(t, 10, strings.Count(page, `<th scope="row">`))
			has(t, page, `href="`+address+`"`, "the first page")
		}
		require.Len(t, in.searches(crmguard.Done), 4, "each page is a search")

		ended := func(b *browser, address string) {
			t.Helper()
			status, page := b.get(address)
			require.Equal(t, http.StatusGone, status)
			has(t, page, "This search has ended")
			has(t, page, `name="query"`)
			hasNot(t, page, "uillfeather")
		}
		seller := in.signedIn("seller1")
		for _, b := range []*browser{seller, in.signedIn("owner")} {
			ended(b, address)
		}
		ended(seller, "/contacts/search")
		require.Zero(t, in.refusals("seller1"), "nothing was tried")
		status, _ := in.signedIn("admin").get(address)
		require.Equal(t, http.StatusForbidden, status)
		status, _ = in.browser().get(address)
		require.Equal(t, http.StatusUnauthorized, status)
		require.Len(t, in.searches(crmguard.Done), 4)
		status, _ = owner.get(address)
		require.Equal(t, http.StatusOK, status)
	})
}

// TestQueriesAreForgotten: what was searched for stays in memory for a while, and not without end.
func TestQueriesAreForgotten(t *testing.T) {
	var q queries
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	word := q.keep("s", "anna", now)
	require.Equal(t, "anna", q.of("s", word, now.Add(queryAge-1)))
	require.Empty(t, q.of("s", word, now.Add(queryAge)))
	require.Empty(t, q.of("t", word, now))
	require.Empty(t, q.of("", "", now))
	q.keep("s", "petrov", now.Add(queryAge))
	require.Len(t, q.known, 1, "the older one has gone")
	for range keptQueries {
		word = q.keep("s", "x", now.Add(queryAge))
	}
	require.Len(t, q.known, keptQueries)
	require.Len(t, q.order, keptQueries)
	require.Equal(t, "x", q.of("s", word, now.Add(queryAge)))
}
