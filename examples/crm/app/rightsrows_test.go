package app

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWordsOfRows(t *testing.T) {
	zone := time.FixedZone("", 3*60*60)
	for words, row := range map[string][]string{
		"anna is head until 2026-12-31 21:00":                                {"p2", "u:anna", "role:head", tenant, "2026-12-31T18:00:00Z"},
		"anna is unit:support until 9999":                                    {"p2", "u:anna", "unit:support", tenant, "9999"},
		"boris stands in for anna from 2026-07-01 03:00 to 2026-07-15 03:00": {"p3", "u:boris", "u:anna", tenant, "2026-07-01T00:00:00Z", "2026-07-15T00:00:00Z"},
		"nobody is both buyer and payer":                                     {"p4", tenant, "role:buyer", "role:payer"},
		"anna is head":                                                       {"g", "u:anna", "role:head", tenant},
		"head can export contacts: department and below":                     {"p", "role:head", tenant, kind, "export", "tree", "allow"},
		"seller can never reveal the phone of contacts: own":                 {"p", "role:seller", tenant, kind + "#phone", "reveal", "own", "deny"},
		"admin can open staff":                                               {"p", "role:admin", tenant, "section:staff", "access", "all", "allow"},
	} {
		require.Equal(t, words, wordsOf(row, zone))
		require.Empty(t, wordsOf(row[:len(row)-1], zone))
		require.Empty(t, wordsOf(row[:1], zone))
	}
}

// TestRowsAreShownInWords: whoever reads a draft or the history need not know what p3 is.
func TestRowsAreShownInWords(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		owner := in.signedIn("owner")
		page := owner.prepare("+ p4, default, role:head, role:accountant")
		has(t, page, "nobody is both head and accountant")
		has(t, page, "p4, default, role:head, role:accountant")
		status, _ := owner.put(page, "who sells does not pay")
		require.Equal(t, http.StatusOK, status)
		status, _ = owner.post("/deputies/head/set", "deputy", "head2", "from", in.day(0), "to", in.day(1))
		require.Equal(t, http.StatusOK, status)
		_, page = owner.get("/rights/history")
		has(t, page, "nobody is both head and accountant")
		has(t, page, "head2 stands in for head from "+in.day(0)+" 00:00 to "+in.day(2)+" 00:00")
	})
}
