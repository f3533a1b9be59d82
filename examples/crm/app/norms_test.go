package app

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/quota"
)

// atNoon moves the clock to noon of the company's next day, so that no test meets a
// midnight.
func (in *installation) atNoon() {
	in.t.Helper()
	place := in.app.norms.place.Load()
	now := in.app.now().In(place)
	noon := time.Date(now.Year(), now.Month(), now.Day()+1, 12, 0, 0, 0, place)
	in.late.Add(int64(noon.Sub(now)))
}

// alerts are what the journal holds of a person's alerts, newest first.
func (in *installation) alerts(person string) []crmguard.Event {
	in.t.Helper()
	found, err := in.app.journal.Find(in.t.Context(), audit.Query{Tenant: tenant, Kind: alertKind, Record: person})
	require.NoError(in.t, err)
	events := make([]crmguard.Event, len(found.Entries))
	for i, e := range found.Entries {
		events[i] = e.Event
	}
	return events
}

// openCards opens the cards of a seller of the sample, and returns how many opened.
func (in *installation) openCards(b *browser, ids []string) (opened int, last string) {
	in.t.Helper()
	for _, id := range ids {
		status, page := b.get("/contacts/" + id)
		if status == http.StatusOK {
			opened++
		} else {
			require.Equal(in.t, http.StatusTooManyRequests, status)
		}
		last = page
	}
	return opened, last
}

// ofSeller1 are the ids of the first n contacts of seller1.
func (in *installation) ofSeller1(n int) []string {
	in.t.Helper()
	rows, err := in.app.db.QueryContext(in.t.Context(), `SELECT id FROM contacts WHERE owner = 'seller1' ORDER BY seq LIMIT $1`, n)
	require.NoError(in.t, err)
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	var ids []string
	for rows.Next() {
		var id string
		require.NoError(in.t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(in.t, rows.Err())
	require.Len(in.t, ids, n)
	return ids
}

// TestFiftyFirstCard: fifty cards a day open; the next one is refused, and the head
// and the owner see it at once.
func TestFiftyFirstCard(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(180))
		in.atNoon()
		ids := in.ofSeller1(52)
		seller, head, owner := in.signedIn("seller1"), in.signedIn("head"), in.signedIn("owner")
		_, page := head.get("/alerts")
		has(t, page, "No alerts")

		opened, page := in.openCards(seller, ids[:39])
		require.Equal(t, 39, opened)
		hasNot(t, page, "cards today")
		opened, page = in.openCards(seller, ids[39:40])
		require.Equal(t, 1, opened)
		has(t, page, "40 of your 50 cards today")
		require.Empty(t, in.alerts("seller1"))
		opened, page = in.openCards(seller, ids[40:50])
		require.Equal(t, 10, opened)
		has(t, page, "50 of your 50 cards today")
		require.Len(t, in.alerts("seller1"), 1, "the soft norm tells once")
		_, page = head.get("/contacts")
		has(t, page, `title="today">1<`)
		_, page = head.get("/alerts")
		has(t, page, "41 cards opened in a day; the norm tells after 40")

		answer := seller.do(http.MethodGet, "/contacts/"+ids[50], nil)
		wait, err := strconv.Atoi(answer.Header.Get("Retry-After"))
		require.NoError(t, err)
		require.InDelta(t, 12*3600, wait, 600, "until midnight")
		status, page := read(t, answer)
		require.Equal(t, http.StatusTooManyRequests, status)
		has(t, page, "That is all for today")
		has(t, page, "begins anew at 00:00, in about 12 hours (Europe/Moscow)")
		hasNot(t, page, "Quillfeather")
		status, page = seller.get("/contacts/" + ids[51] + "/edit")
		require.Equal(t, http.StatusTooManyRequests, status)
		hasNot(t, page, "Quillfeather")
		status, page = seller.post("/contacts/"+ids[51]+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusTooManyRequests, status)
		hasNot(t, page, "Quillfeather")
		events := in.alerts("seller1")
		require.Len(t, events, 2, "the hard norm tells once")
		require.Equal(t, crmguard.Denied, events[0].Outcome)
		require.Equal(t, 51, events[0].Count)
		require.Equal(t, "sales", events[0].Resource.Unit)

		for _, b := range []*browser{head, owner, in.signedIn("admin")} {
			_, page = b.get("/contacts")
			has(t, page, `title="today">2<`, "on the next page, whatever it is")
			_, page = b.get("/alerts")
			has(t, page, "51 cards opened in a day would pass the norm of 50")
		}
		_, page = owner.get("/alerts")
		has(t, page, `/journal?person=seller1`)
		_, page = head.get("/alerts")
		hasNot(t, page, "/journal", "heads do not read the journal")
		foreign := in.signedIn("head2")
		_, page = foreign.get("/alerts")
		has(t, page, "No alerts")
		hasNot(t, page, "seller1")
		_, page = foreign.get("/contacts")
		hasNot(t, page, `title="today"`)
		for _, path := range []string{"/alerts", "/alerts/live"} {
			status, _ = seller.get(path)
			require.Equal(t, http.StatusForbidden, status)
		}

		// In a lockdown the owner still sees what led to it.
		status, _ = owner.post("/lockdown")
		require.Equal(t, http.StatusOK, status)
		_, page = owner.get("/alerts")
		has(t, page, "51 cards opened in a day")
		status, _ = head.get("/alerts")
		require.Equal(t, http.StatusServiceUnavailable, status)
		status, _ = owner.post("/lockdown/reopen")
		require.Equal(t, http.StatusOK, status)

		// What was opened stays open, in every form; the list goes on.
		for _, path := range []string{"/contacts/" + ids[0], "/contacts/" + ids[49] + "/edit", "/contacts"} {
			status, _ = seller.get(path)
			require.Equal(t, http.StatusOK, status, path)
		}
		status, page = seller.post("/contacts/"+ids[3]+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "+7 916 555-")
		status, page = seller.post("/contacts/new", "name", "Quillfeather New", "owner", "seller1", "country", "RU")
		require.Equal(t, http.StatusTooManyRequests, status, "saved, but the card is one more")
		has(t, page, "That is all for today")

		// A new start forgets nothing; a new day begins anew.
		in.stop()
		in.start()
		seller, head = in.signedIn("seller1"), in.signedIn("head")
		opened, _ = in.openCards(seller, ids[48:])
		require.Equal(t, 2, opened)
		require.Len(t, in.alerts("seller1"), 2)
		_, page = head.get("/contacts")
		has(t, page, `title="today">2<`)
		in.late.Add(int64(13 * time.Hour))
		seller, head = in.signedIn("seller1"), in.signedIn("head")
		opened, _ = in.openCards(seller, ids[48:])
		require.Equal(t, 4, opened)
		_, page = head.get("/contacts")
		hasNot(t, page, `title="today"`, "they were yesterday's")
		_, page = head.get("/alerts")
		has(t, page, "51 cards opened in a day would pass the norm of 50")
	})
}

// TestCardsAtOnce: ten browsers of one person open sixty cards, and get fifty.
func TestCardsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(180))
		in.atNoon()
		ids := in.ofSeller1(60)
		var opened atomic.Int64
		var all sync.WaitGroup
		for i := range 10 {
			b := in.signedIn("seller1")
			all.Go(func() {
				for j := range 6 {
					answer := b.do(http.MethodGet, "/contacts/"+ids[i*6+j], nil)
					if answer.StatusCode == http.StatusOK {
						opened.Add(1)
					}
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 50, opened.Load())
		require.Len(t, in.alerts("seller1"), 2)
	})
}

// TestForgottenRoute: a handler that is mounted without Protect opens no more cards
// than all others, and a keyring that asks nobody is noticed.
func TestForgottenRoute(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(180))
		in.atNoon()
		ids := in.ofSeller1(60)
		drain := func() (opened int) {
			ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: tenant, ID: "seller1", Kind: employee})
			for _, id := range ids {
				c, err := in.app.db.contact(ctx, id)
				require.NoError(t, err)
				if in.app.openContacts(ctx, []*Contact{c}) == nil {
					opened++
				}
			}
			return opened
		}
		require.Equal(t, 50, drain())
		require.Len(t, in.alerts("seller1"), 2)

		// The planted fault: a keyring that was made without OnOpen.
		kek, err := encrypt.OpenKeyFile(filepath.Join(in.cfg.Keys, "kek.json"), in.cfg.Data, false)
		require.NoError(t, err)
		careless, err := encrypt.New(kek, in.app.vault.store, &encrypt.Options{Index: in.app.index})
		require.NoError(t, err)
		defer careless.Close() //nolint:errcheck // nothing was written
		in.app.table, err = encrypt.NewTable[Contact](careless, kind, nil)
		require.NoError(t, err)
		require.Equal(t, 60, drain(), "so the count above was the keyring's doing")
	})
}

// TestAlertOutlivesACrash: what was counted when the process died before the journal
// had it is told at the next start; and an alert that cannot be recorded opens
// nothing.
func TestAlertOutlivesACrash(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(180))
		in.atNoon()
		ids := in.ofSeller1(43)
		seller := in.signedIn("seller1")
		opened, _ := in.openCards(seller, ids[:40])
		require.Equal(t, 40, opened)

		// The journal's disk is full in the moment of the alert.
		told := in.app.norms.alert
		in.app.norms.alert = func(context.Context, quota.Alert) error { return fmt.Errorf("disk full") }
		require.NoError(t, in.app.norms.use(*in.app.norms.rules.Load()))
		status, page := seller.get("/contacts/" + ids[40])
		require.Equal(t, http.StatusInternalServerError, status)
		hasNot(t, page, "Quillfeather")
		require.Empty(t, in.alerts("seller1"))

		// The process dies in it.
		in.app.norms.alert = func(context.Context, quota.Alert) error { return nil }
		require.NoError(t, in.app.norms.use(*in.app.norms.rules.Load()))
		opened, _ = in.openCards(seller, ids[41:])
		require.Equal(t, 2, opened)
		require.Empty(t, in.alerts("seller1"))
		in.app.norms.alert = told
		for range 2 {
			in.stop()
			in.start()
			require.Len(t, in.alerts("seller1"), 1)
		}
		_, page = in.signedIn("head").get("/contacts")
		has(t, page, `title="today">1<`)
		require.True(t, strings.HasPrefix(in.alerts("seller1")[0].Reason, "quota:soft-norm:40"))
	})
}

// getOrPost sends a form if there is one.
func (b *browser) getOrPost(path string, form []string) (int, string) {
	b.t.Helper()
	if form == nil {
		return b.get(path)
	}
	return b.post(path, form...)
}

// TestWhatCounts: each way to a client's data counts toward a norm, and toward the
// right one.
func TestWhatCounts(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(60))
		in.atNoon()
		owner := in.signedIn("owner")
		limit := func(b *browser, changed ...string) {
			status, _ := b.saveNorms(changed...)
			require.Equal(t, http.StatusOK, status)
		}
		refused := func(b *browser, path string, form ...string) {
			t.Helper()
			status, page := b.getOrPost(path, form)
			require.Equal(t, http.StatusTooManyRequests, status, path)
			hasNot(t, page, "Quillfeather", path)
		}
		opens := func(b *browser, path string, form ...string) string {
			t.Helper()
			status, page := b.getOrPost(path, form)
			require.Equal(t, http.StatusOK, status, path)
			return page
		}

		t.Run("rows of lists", func(t *testing.T) {
			limit(owner, "soft-1", "30", "hard-1", "50")
			page := opens(owner, "/contacts")
			opens(owner, "/contacts") // the same rows again
			refused(owner, regexp.MustCompile(`/contacts\?before=\d+`).FindString(page))
			require.Len(t, in.alerts("owner"), 2, "both norms by one batch")
			opens(owner, "/contacts/"+in.idOf(0)) // cards have a norm of their own
		})
		t.Run("searches", func(t *testing.T) {
			limit(owner, "soft-2", "1", "hard-2", "2")
			head := in.signedIn("head")
			search := []string{"query", phoneOf(0)}
			opens(head, "/contacts/search", search...)
			opens(head, "/contacts/search", "query", "+79169999999")
			refused(head, "/contacts/search", search...)
			require.Len(t, in.alerts("head"), 2)
		})
		t.Run("masked cards", func(t *testing.T) {
			limit(owner, "soft-0", "", "hard-0", "1")
			admin := in.signedIn("admin")
			has(t, opens(admin, "/contacts/"+in.idOf(0)), "•••")
			refused(admin, "/contacts/"+in.idOf(1))
		})
		t.Run("forms and reveals", func(t *testing.T) {
			support := in.signedIn("seller5") // of every third
			opens(support, "/contacts/"+in.idOf(2)+"/edit")
			opens(support, "/contacts/"+in.idOf(2)+"/reveal", "field", "phone", "reason", "call-client")
			opens(support, "/contacts/"+in.idOf(2)+"/edit", "version", "1", "name", "Quillfeather Renamed")
			refused(support, "/contacts/"+in.idOf(5)+"/edit")
			refused(support, "/contacts/"+in.idOf(5)+"/reveal", "field", "phone", "reason", "call-client")
			refused(support, "/contacts/"+in.idOf(5)+"/edit", "version", "1", "name", "Blind")
		})
		t.Run("what the journal sealed", func(t *testing.T) {
			limit(owner, "soft-0", "", "hard-0", "2")
			seller := in.signedIn("seller1")
			for _, i := range []int{3, 6} {
				opens(seller, "/contacts/"+in.idOf(i)+"/reveal", "field", "phone", "reason", "other", "more", "Wafflewords")
			}
			_, page := owner.get("/journal?person=seller1&outcome=attempted")
			sealed := regexp.MustCompile(`name="entry" value="(\d+)"`).FindAllStringSubmatch(page, -1)
			require.Len(t, sealed, 2)
			has(t, opens(owner, "/journal/open", "entry", sealed[0][1]), "Wafflewords") // with the card above, two
			status, page := owner.post("/journal/open", "entry", sealed[1][1])
			require.Equal(t, http.StatusTooManyRequests, status)
			hasNot(t, page, "Wafflewords")
		})
		t.Run("refusals", func(t *testing.T) {
			limit(owner, "hard-4", "2")
			seller := in.signedIn("seller3")
			opens(seller, "/contacts/"+in.idOf(1))
			limit(owner, "soft-0", "", "hard-0", "1", "hard-4", "2")
			for range 3 {
				refused(seller, "/contacts/"+in.idOf(4))
			}
			refused(seller, "/contacts")
			opens(seller, "/contacts/"+in.idOf(1))
			events := in.alerts("seller3")
			require.Equal(t, []string{"attempts"}, events[0].Fields)
			_, page := in.signedIn("head").get("/alerts")
			has(t, page, "3 refusals in a day would pass the norm of 2")
		})
	})
}
