package app

import (
	"net/http"
	"net/url"
	"strings"
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

// TestJournalInWords: the list says what a code means, to whoever has never seen one; the
// page of the entry has the code.
func TestJournalInWords(t *testing.T) {
	for code, words := range map[string]string{
		"quota:norm":                       "past the norm of the day",
		"quota:hard-norm:50":               "stopped at 50",
		"rbac:no-rule":                     "no right to it: no rule",
		"guard:lockdown":                   "the CRM is locked down",
		"handover:seller3:seller5":         "contacts of seller3 go to seller5",
		"leaver:seller3":                   "review of seller3",
		"proof:17":                         "entry 17",
		"version:3":                        "version 3",
		"version:3:reset":                  "version 3, reset",
		"call-client":                      "Call the client",
		"mailing:anna.example.org":         "A mailing or a campaign, for anna.example.org",
		"other":                            "Something else",
		"something that nobody translated": "something that nobody translated",
	} {
		require.Equal(t, words, reasonWords(code), code)
	}
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner, seller := in.signedIn("owner"), in.signedIn("seller1")
		status, _ := seller.get("/staff")
		require.Equal(t, http.StatusForbidden, status)
		_, page := owner.get("/journal?person=seller1")
		has(t, page, "no right to it: ")
		hasNot(t, page, "rbac:")
		_, _ = owner.post("/lockdown")
		_, _ = owner.post("/lockdown/reopen")
		_, page = owner.get("/journal?person=owner")
		has(t, page, "lock the CRM down")
		has(t, page, "reopen the CRM")
	})
}

// TestOpenedWhereItStands: what is sealed is shown on the page from which it was opened,
// narrowed as it was.
func TestOpenedWhereItStands(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner, mine := in.signedIn("owner"), in.idOf(0)
		status, _ := owner.post("/contacts/"+mine+"/reveal", "field", "phone", "reason", "call-client", "more", "the offer of May")
		require.Equal(t, http.StatusOK, status)
		_, page := owner.get("/journal?outcome=attempted&record=" + mine)
		_, form, found := strings.Cut(page, `name="entry" value="`)
		require.True(t, found)
		for _, part := range []string{`name="record" value="` + mine + `"`, `name="outcome" value="attempted"`} {
			has(t, form, part)
		}
		entry, _, _ := strings.Cut(form, `"`)
		status, page = owner.post("/journal/open", "entry", entry, "record", mine, "outcome", "attempted")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "the offer of May")
		has(t, page, "Timeline of record "+mine)
		has(t, page, "<option selected>attempted</option>")
		status, _ = owner.post("/journal/open", "entry", entry, "record", "Ivan Petrov")
		require.Equal(t, http.StatusUnprocessableEntity, status)
	})
}
