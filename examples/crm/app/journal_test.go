package app

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestJournalEntryNumbers: a number that no entry can have is not found.
func TestJournalEntryNumbers(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		owner := in.signedIn("owner")
		for _, number := range []string{"9223372036854775807", "9223372036854775806", "9223372036854775808", "-1", "", "x"} {
			status, _ := owner.post("/journal/open", "entry", number)
			require.Equal(t, http.StatusNotFound, status, number)
		}
		for _, before := range []string{"9223372036854775807", "1"} {
			status, _ := owner.get("/journal?before=" + before)
			require.Equal(t, http.StatusOK, status, before)
		}
	})
}

// TestJournalFilter: addresses are kept in histories and logs, so the journal is
// narrowed by logins and ids only, and gives nothing else back in a link.
func TestJournalFilter(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(1))
		owner := in.signedIn("owner")
		owner.get("/contacts/" + in.idOf(0))
		for _, good := range []string{"person=seller1", "person=+owner+", "record=" + in.idOf(0), "record=seller1", "record=2aaaaaaaaaaaaaaaaaaa", "outcome=done", "outcome=done&person=owner"} {
			status, _ := owner.get("/journal?" + good)
			require.Equal(t, http.StatusOK, status, good)
		}
		for _, bad := range []string{"Иванов", "Ivan Petrov", "+7 916 555-00-00", "79165550000", "quill0000@example.org", "Petrov"} {
			for _, name := range []string{"person", "record", "outcome"} {
				status, page := owner.get("/journal?" + url.Values{name: {bad}}.Encode())
				require.Equal(t, http.StatusUnprocessableEntity, status, "%s=%s", name, bad)
				has(t, page, "cannot be narrowed to that")
				hasNot(t, page, bad)
				hasNot(t, page, url.QueryEscape(bad))
				hasNot(t, page, url.PathEscape(bad))
			}
		}
		_, page := owner.get("/journal")
		has(t, page, `pattern="`, "a browser does not send it in the first place")
	})
}
