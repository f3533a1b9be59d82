package app

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSearchLimitsWhatOneMaySee: rows that somebody may not see take no place in
// what a search shows, and a search that shows not everything says so.
func TestSearchLimitsWhatOneMaySee(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		var file strings.Builder
		file.WriteString("name,phone,owner\n")
		for i := range 3 * maxHits {
			fmt.Fprintf(&file, "Foreign%d,+79160000000,seller5\n", i)
		}
		for i := range 5 {
			fmt.Fprintf(&file, "Mine%d,+79160000000,seller1\n", i)
		}
		in := newInstallation(t, on, []byte(file.String()))
		_, page := in.signedIn("seller1").post("/contacts/search", "by", "phone", "value", "+79160000000")
		has(t, page, "5 contacts found")
		hasNot(t, page, "There are more")
		hasNot(t, page, "Foreign")
		status, page := in.signedIn("owner").post("/contacts/search", "by", "phone", "value", "+79160000000")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, maxHits, strings.Count(page, `<th scope="row">`))
		has(t, page, "There are more")
		has(t, page, "Mine0", "the newest")
		has(t, page, fmt.Sprintf("Foreign%d", 3*maxHits-maxHits+5))
		hasNot(t, page, fmt.Sprintf(">Foreign%d<", 3*maxHits-maxHits+4))
	})
}
