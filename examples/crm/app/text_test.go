package app

import (
	"net/http"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTextThatNoColumnHolds: a database that takes no NUL, or nothing but UTF-8,
// refuses what another would look for in vain. Nobody learns which one it is, and
// nothing fails.
func TestTextThatNoColumnHolds(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner, mine := in.signedIn("owner"), in.idOf(0)
		var strangers sync.WaitGroup // each is kept waiting for a second
		for _, odd := range []string{"\x00", "a\x00b", "\xff", "\xed\xa0\x80", "\ufffd", "'", "\\"} {
			path := url.PathEscape(odd)
			for _, at := range []string{"/contacts/" + path, "/contacts/" + path + "/edit", "/contacts/" + path + "/forget"} {
				status, _ := owner.get(at)
				require.Equal(t, http.StatusNotFound, status, "%q %s", odd, at)
			}
			for _, query := range []string{"/journal?person=", "/journal?record=", "/journal?outcome="} {
				status, _ := owner.get(query + url.QueryEscape(odd))
				require.Equal(t, http.StatusUnprocessableEntity, status, "%q %s", odd, query)
			}
			status, _ := owner.post("/contacts/"+path+"/reveal", "field", "phone", "reason", "call-client")
			require.Equal(t, http.StatusNotFound, status, odd)
			status, _ = owner.post("/staff/"+path+"/dismiss", "reason", odd)
			require.Equal(t, http.StatusNotFound, status, odd)
			for _, query := range []string{odd, odd + "1", odd + "@"} {
				status, _ = owner.post("/contacts/search", "query", query)
				require.Less(t, status, 500, query)
			}
			status, _ = owner.post("/contacts/"+mine+"/edit", "version", "1", "name", "x", "owner", odd)
			require.Equal(t, http.StatusUnprocessableEntity, status, odd)
			status, _ = owner.post("/contacts/new", "name", "x", "country", odd)
			require.Equal(t, http.StatusUnprocessableEntity, status, odd)
			stranger := in.browser()
			strangers.Go(func() {
				status, _ := in.browser().post("/sign-in", "login", odd, "password", odd)
				require.Contains(t, []int{http.StatusUnauthorized, http.StatusTooManyRequests}, status, odd)
			})
			answer := stranger.do(http.MethodGet, "/contacts", nil, "Cookie", "session="+url.QueryEscape(odd), "User-Agent", "\xff\xfe", "X-Request-Id", "\xff")
			require.Equal(t, http.StatusUnauthorized, answer.StatusCode, odd)
		}
		strangers.Wait()
		status, _ := read(t, in.browser().do(http.MethodPost, "/sign-in", fields("login", "seller1", "password", in.password()), "User-Agent", "\xff\xfe"))
		require.Less(t, status, 500)
	})
}
