package app

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/quota"
)

// refusals are how many a person has today.
func (in *installation) refusals(person string) int {
	in.t.Helper()
	usage, err := in.app.norms.counter.Load().Usage(in.t.Context(), tenant, person)
	require.NoError(in.t, err)
	return usage.Refused
}

// notOf are the ids of n contacts of other people.
func (in *installation) notOf(person string, n int) (ids []string) {
	in.t.Helper()
	rows, err := in.app.db.QueryContext(in.t.Context(), `SELECT id FROM contacts WHERE owner <> $1 ORDER BY seq LIMIT $2`, person, n)
	require.NoError(in.t, err)
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	for rows.Next() {
		var id string
		require.NoError(in.t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(in.t, rows.Err())
	require.Len(in.t, ids, n)
	return ids
}

// TestWhoTriesEveryRecordIsStopped: a seller who asks for the contacts of others, one
// after the other, is refused by rights each time; after a hundred nothing new opens
// for them, and the owner sees it.
func TestWhoTriesEveryRecordIsStopped(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(180))
		in.atNoon()
		own, foreign := in.ofSeller1(2), in.notOf("seller1", 60)
		seller, owner := in.signedIn("seller1"), in.signedIn("owner")
		status, _ := seller.get("/contacts/" + own[0])
		require.Equal(t, http.StatusOK, status)
		status, page := seller.get("/contacts")
		require.Equal(t, http.StatusOK, status)
		hasNot(t, page, "/staff", "what a page asks to know what to offer")
		require.Zero(t, in.refusals("seller1"), "is no attempt")

		for i, id := range foreign {
			status, _ = seller.get("/contacts/" + id)
			require.Equal(t, http.StatusNotFound, status)
			require.Equal(t, i+1, in.refusals("seller1"))
		}
		for i := range 20 {
			status, _ = seller.get(fmt.Sprintf("/contacts/made-up-%d", i))
			require.Equal(t, http.StatusNotFound, status)
			require.Equal(t, 61+i, in.refusals("seller1"), "the absent count alike")
		}
		for range 10 {
			status, _ = seller.post("/contacts/"+foreign[0]+"/reveal", "field", "phone", "reason", "call-client")
			require.Equal(t, http.StatusNotFound, status)
			status, _ = seller.get("/staff")
			require.Equal(t, http.StatusForbidden, status)
		}
		require.Equal(t, 100, in.refusals("seller1"))
		require.Empty(t, in.alerts("seller1"))

		// Nothing new, though one card of fifty was opened.
		status, page = seller.get("/contacts/" + own[1])
		require.Equal(t, http.StatusTooManyRequests, status)
		has(t, page, "That is all for today")
		hasNot(t, page, "Quillfeather")
		status, _ = seller.post("/contacts/search", "query", phoneOf(0))
		require.Equal(t, http.StatusTooManyRequests, status)
		for _, path := range []string{"/contacts/" + own[0], "/contacts"} {
			status, _ = seller.get(path)
			require.Equal(t, http.StatusOK, status, "what was opened stays open")
		}
		for _, path := range []string{foreign[1], "made-up"} {
			status, _ = seller.get("/contacts/" + path)
			require.Equal(t, http.StatusNotFound, status, "the answer still tells nothing")
		}

		require.Len(t, in.alerts("seller1"), 1, "it tells once")
		for _, b := range []*browser{owner, in.signedIn("head")} {
			_, page = b.get("/contacts")
			has(t, page, `title="today">1<`)
			_, page = b.get("/alerts")
			has(t, page, "101 refusals in a day would pass the norm of 100")
			has(t, page, "seller1")
		}
		_, page = owner.get("/settings")
		has(t, page, "Refusals")

		in.stop()
		in.start()
		status, _ = in.signedIn("seller1").get("/contacts/" + own[1])
		require.Equal(t, http.StatusTooManyRequests, status, "a new start forgets nothing")
		in.late.Add(int64(13 * time.Hour))
		seller = in.signedIn("seller1")
		require.Zero(t, in.refusals("seller1"))
		status, _ = seller.get("/contacts/" + own[1])
		require.Equal(t, http.StatusOK, status, "a new day begins anew")

		// The planted fault: without the norm a hundred refusals change nothing.
		rules := *in.app.norms.rules.Load()
		require.Equal(t, quota.Attempts, rules.Norms[4].Of)
		rules.Norms = rules.Norms[:4]
		counter, err := in.app.norms.make(rules)
		require.NoError(t, err)
		in.app.norms.counter.Store(counter)
		for i := range 101 {
			status, _ = seller.get(fmt.Sprintf("/contacts/made-up-%d", i))
			require.Equal(t, http.StatusNotFound, status)
		}
		status, _ = seller.get("/contacts/" + own[0])
		require.Equal(t, http.StatusOK, status)
	})
}

// TestTriesAtOnce: ten browsers of one person ask for what they may not see; none of
// the refusals is lost, and one alert is made.
func TestTriesAtOnce(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(180))
		in.atNoon()
		foreign := in.notOf("seller1", 120)
		var hidden atomic.Int64
		var all sync.WaitGroup
		for i := range 10 {
			b := in.signedIn("seller1")
			all.Go(func() {
				for j := range 12 {
					if b.do(http.MethodGet, "/contacts/"+foreign[i*12+j], nil).StatusCode == http.StatusNotFound {
						hidden.Add(1)
					}
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 120, hidden.Load())
		require.Equal(t, 120, in.refusals("seller1"))
		require.Len(t, in.alerts("seller1"), 1)
	})
}
