package app

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/quota"
)

// TestSearchBounds: a search that finds little stops, says how far it has come and goes
// on where it stopped; after many rows, and after a while.
func TestSearchBounds(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(120))
		owner := in.signedIn("owner")
		for name, bounds := range map[string]searchBounds{"rows": {batch: 10, rows: 50, time: time.Hour}, "time": {batch: 50, rows: 1000}} {
			t.Run(name, func(t *testing.T) {
				in.app.searches = bounds
				status, page := owner.post("/contacts/search", "query", "quillfeather0000")
				require.Equal(t, http.StatusOK, status)
				has(t, page, "Looked at 50 contacts, none yet")
				has(t, page, "Go on searching")
				hasNot(t, page, "Nothing found")
				require.Equal(t, [][]string{nil, nil, {in.idOf(0)}}, owner.searchPages("quillfeather0000", nil))
				_, page = owner.post("/contacts/search", "query", "quillfeather0110")
				has(t, page, "Looked at 50 contacts, only these so far")
				require.Equal(t, [][]string{{in.idOf(110)}, nil, nil}, owner.searchPages("quillfeather0110", nil))
				require.Len(t, slices.Concat(owner.searchPages("quillfeather", nil)...), 120)
				_, page = owner.post("/contacts/search", "query", phoneOf(0))
				has(t, page, in.idOf(0), "the index knows at once")
			})
		}
	})
}

// stuckStore is a store of norms that does not answer what a search asks.
type stuckStore struct {
	quota.Store
	asked chan struct{}
}

func (s stuckStore) Take(ctx context.Context, t quota.Taking) (quota.Taken, error) {
	if len(t.Limits) == 1 && t.Limits[0].Counter == "records search contacts" {
		s.asked <- struct{}{}
		<-ctx.Done()
		return quota.Taken{}, ctx.Err()
	}
	return s.Store.Take(ctx, t)
}

// TestSearchEndsWithItsRequest: when the browser leaves, the search ends, and the journal
// says that it did not come to an end.
func TestSearchEndsWithItsRequest(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(6))
		owner := in.signedIn("owner")
		store := stuckStore{in.app.norms.store, make(chan struct{}, 100)}
		in.app.norms.store = store
		rules := *in.app.norms.rules.Load()
		rules.Norms = append(slices.Clone(rules.Norms), quota.Norm{Action: crmguard.Search, Kind: kind, Hard: 1000})
		require.NoError(t, in.app.norms.use(rules))

		ctx, leave := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, in.web.URL+"/contacts/search", strings.NewReader("query=quill"))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		gone := make(chan error, 1)
		go func() {
			answer, err := owner.http.Do(r)
			if err == nil {
				err = answer.Body.Close()
			}
			gone <- err
		}()
		<-store.asked
		leave()
		require.ErrorIs(t, <-gone, context.Canceled)
		require.Eventually(t, func() bool {
			entries := in.searches(crmguard.Failed)
			return len(entries) == 1 && entries[0].Count == 0
		}, 10*time.Second, 10*time.Millisecond)
		require.Empty(t, in.searches(crmguard.Done))
		require.Empty(t, store.asked, "it looks at nothing more")
	})
}

// searches are those of the journal with an outcome, newest first.
func (in *installation) searches(outcome crmguard.Outcome) (events []crmguard.Event) {
	in.t.Helper()
	found, err := in.app.journal.Find(in.t.Context(), audit.Query{Tenant: tenant, Kind: kind, Outcome: outcome, Limit: 200})
	require.NoError(in.t, err)
	for _, e := range found.Entries {
		if e.Event.Action == crmguard.Search {
			events = append(events, e.Event)
		}
	}
	return events
}

// TestSearchLeavesNoTrace: the journal says who searched, in which fields, and how much
// was found; what was typed is in no row, file or line of the log.
func TestSearchLeavesNoTrace(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := unstarted(t, on)
		var log bytes.Buffer
		in.cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		in.cfg.Contacts = sample(30)
		in.start()
		owner, seller := in.signedIn("owner"), in.signedIn("seller1")
		for i, search := range []struct {
			by     *browser
			query  string
			count  int
			fields []string
		}{
			{seller, "xylophone umbridge0003", 0, plainly},
			{seller, "umbridge0003", 1, plainly},
			{seller, "+7 901 234-56-78", 0, []string{"name", "phone", "company", "city"}},
			{seller, "Xylophone@example.org", 0, []string{"name", "email", "company", "city"}},
			{owner, "zanzibar", 30, everything},
		} {
			status, page := search.by.post("/contacts/search", "query", search.query)
			require.Equal(t, http.StatusOK, status)
			require.Equal(t, search.count, strings.Count(page, `<th scope="row">`))
			has(t, page, `value="`+search.query+`"`, "it stands in the box again")
			done := in.searches(crmguard.Done)
			require.Len(t, done, i+1)
			require.Equal(t, search.count, done[0].Count)
			require.Equal(t, search.fields, done[0].Fields)
			require.Empty(t, done[0].Resource.ID)
			require.Empty(t, done[0].Private)
		}
		// Refused and broken searches leave no more.
		status, _ := in.signedIn("admin").post("/contacts/search", "query", "xylophone")
		require.Equal(t, http.StatusForbidden, status)
		_, err := in.app.db.ExecContext(t.Context(), `ALTER TABLE contacts RENAME TO aside`)
		require.NoError(t, err)
		status, _ = owner.post("/contacts/search", "query", "xylophone")
		require.Equal(t, http.StatusInternalServerError, status)
		_, err = in.app.db.ExecContext(t.Context(), `ALTER TABLE aside RENAME TO contacts`)
		require.NoError(t, err)

		needles := [][]byte{[]byte("xylophone"), []byte("901 234"), []byte("9012345678"), []byte("zanzibar")}
		in.stop()
		require.Empty(t, leaks(t, in.cfg, needles))
		require.NotEmpty(t, log.String())
		for _, needle := range needles {
			require.NotContains(t, strings.ToLower(log.String()), string(needle))
		}
	})
}

// TestSearchForms: what is typed wrong is said beside the box, another site's form is not
// read, and what a search shows counts as rows of a list, not as cards.
func TestSearchForms(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(180))
		in.atNoon()
		owner, seller := in.signedIn("owner"), in.signedIn("seller1")
		for query, says := range map[string]string{
			"": "Type what you look for", " \t ": "Type what you look for", strings.Repeat("я", maxQuery+1): "at most 200 characters", "+7 ••• 67": "masked value",
		} {
			status, page := seller.post("/contacts/search", "query", query)
			require.Equal(t, http.StatusUnprocessableEntity, status, query)
			has(t, page, says)
			has(t, page, `aria-invalid="true"`)
			require.Zero(t, strings.Count(page, `<th scope="row">`))
		}
		for _, query := range []string{strings.Repeat("я", maxQuery), strings.Repeat("1", maxQuery), strings.Repeat("ъ ", maxQuery/2), "-", "+", "@", "%", "_", "'"} {
			status, page := seller.post("/contacts/search", "query", query)
			require.Equal(t, http.StatusOK, status, query)
			has(t, page, "Nothing found", query)
		}
		status, _ := seller.post("/contacts/search", "query", strings.Repeat("x", maxForm))
		require.Equal(t, http.StatusRequestEntityTooLarge, status)
		status, _ = read(t, seller.do(http.MethodPost, "/contacts/search", fields("query", "quill"), "Sec-Fetch-Site", "cross-site"))
		require.Equal(t, http.StatusForbidden, status)
		status, _ = seller.get("/contacts/search?query=quill")
		require.Equal(t, http.StatusGone, status, "nothing is searched for by what an address says")
		answer := seller.do(http.MethodPost, "/contacts/search", fields("query", "quillfeather0000"))
		require.Equal(t, "no-store", answer.Header.Get("Cache-Control"))
		_, page := read(t, answer)
		has(t, page, "+7 ••• 00", "masked as in the list")
		hasNot(t, page, "5550000")
		has(t, page, "seller1 · 20", "the watermark")

		status, _ = owner.saveNorms("soft-0", "", "hard-0", "1", "soft-1", "", "hard-1", "70")
		require.Equal(t, http.StatusOK, status)
		status, page = owner.post("/contacts/search", "query", "quillfeather")
		require.Equal(t, http.StatusOK, status)
		more := moreLink.FindStringSubmatch(page)
		status, page = owner.get(more[1])
		require.Equal(t, http.StatusTooManyRequests, status, "as many rows as a list may show")
		has(t, page, "That is all for today")
		hasNot(t, page, "Quillfeather0")
		status, _ = owner.post("/contacts/search", "query", "quillfeather0170")
		require.Equal(t, http.StatusOK, status, "what was shown today")
		status, _ = owner.get("/contacts/" + in.idOf(0))
		require.Equal(t, http.StatusOK, status, "no card was counted")
	})
}
