package app

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/masking/calltoken"
	"github.com/crmguard/crmguard/quota"
)

// line is what is behind the exchange in a test: it keeps the orders that a real
// one would get, and lets the exchange have them too.
type line struct {
	mu     sync.Mutex
	orders []calltoken.Order
	fails  error
}

func (in *installation) line() *line {
	l := new(line)
	exchange := in.app.calls.exchange
	exchange.line = calltoken.DialerFunc(func(ctx context.Context, o calltoken.Order) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.fails != nil {
			return l.fails
		}
		l.orders = append(l.orders, o)
		return exchange.note(ctx, o)
	})
	return l
}

func (l *line) rung() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.orders)
}

var (
	onceInput  = regexp.MustCompile(`name="once" value="([A-Z2-7]{26})"`)
	callOnCard = regexp.MustCompile(`Call <code>([A-Za-z0-9_-]+)</code>: (\w+)`)
)

// press presses the button on the card of a contact.
func (b *browser) press(id string) (int, string) {
	b.t.Helper()
	_, card := b.get("/contacts/" + id)
	match := onceInput.FindStringSubmatch(card)
	require.NotNil(b.t, match, "no button on %q", heading(card))
	return b.post("/contacts/"+id+"/call", "once", match[1])
}

// TestCall: who may call rings the client and never meets the number: not in an
// answer, the journal, the log, the database, or the exchange's page.
func TestCall(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		var logged racetest.Buffer
		in := unstarted(t, on)
		in.cfg.Contacts, in.cfg.Logger = sample(6), slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
		in.start()
		l := in.line()
		seller, mine := in.signedIn("seller1"), in.idOf(0)
		var seen strings.Builder
		keep := func(status int, page string) (int, string) {
			seen.WriteString(page)
			return status, page
		}

		status, page := keep(seller.press(mine))
		require.Equal(t, http.StatusOK, status, page)
		match := callOnCard.FindStringSubmatch(page)
		require.NotNil(t, match)
		require.Equal(t, "ringing", match[2])
		has(t, page, "+7 ••• 00", "still masked")
		require.Equal(t, 1, l.rung())
		require.Equal(t, phoneOf(0), l.orders[0].Number.Show())
		require.Equal(t, match[1], l.orders[0].CallID)
		require.Equal(t, "sip:seller1@crm", l.orders[0].Leg)

		// The head rings a client of the department below; the call is the head's own.
		head := in.signedIn("head")
		status, page = keep(head.press(in.idOf(1)))
		require.Equal(t, http.StatusOK, status, page)
		require.Equal(t, phoneOf(1), l.orders[1].Number.Show())
		_, page = keep(head.get("/contacts/" + mine + "?call=" + match[1]))
		hasNot(t, page, match[1], "another person's call")
		_, page = keep(head.get("/contacts/" + mine + "?call=%ff"))
		hasNot(t, page, "Call <code>")

		for _, login := range []string{"owner", "admin"} {
			status, page = keep(in.signedIn(login).get("/exchange"))
			require.Equal(t, http.StatusOK, status)
			has(t, page, "This exchange is a stand-in")
			has(t, page, match[1])
			has(t, page, "sip:seller1@crm")
			has(t, page, "+7 ••• 00")
			has(t, page, `href="/exchange"`)
		}
		_, page = keep(in.signedIn("owner").get("/journal"))
		has(t, page, "call phone")

		found, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Record: mine, Limit: 50})
		require.NoError(t, err)
		outcomes := map[string][]crmguard.Outcome{}
		for _, e := range found.Entries {
			if e.Event.Action == crmguard.Call {
				outcomes[e.Event.ID] = append(outcomes[e.Event.ID], e.Event.Outcome)
				require.Equal(t, "phone", e.Event.Resource.Field)
				require.Equal(t, "seller1", e.Event.Subject.ID)
			}
		}
		require.Len(t, outcomes, 2, "the button, and the call by its id")
		for _, o := range outcomes {
			require.Equal(t, []crmguard.Outcome{crmguard.Done, crmguard.Attempted}, o)
		}
		require.Contains(t, outcomes, match[1])

		// Who may not call: no button, and no call.
		for _, login := range []string{"admin", "accountant"} {
			b := in.signedIn(login)
			_, page = keep(b.get("/contacts/" + mine))
			hasNot(t, page, "/call")
			status, _ = keep(b.post("/contacts/"+mine+"/call", "once", rand.Text()))
			require.Equal(t, http.StatusForbidden, status, login)
		}
		status, page = keep(seller.post("/contacts/"+in.idOf(1)+"/call", "once", rand.Text()))
		require.Equal(t, http.StatusNotFound, status)
		_, missing := keep(seller.post("/contacts/aaaaaaaaaaaaaaaaaaaa/call", "once", rand.Text()))
		require.True(t, requestID.ReplaceAllString(missing, "") == requestID.ReplaceAllString(page, ""))
		status, _ = keep(seller.post("/contacts/"+mine+"/call", "once", "x"))
		require.Equal(t, http.StatusBadRequest, status)
		status, _ = keep(seller.get("/exchange"))
		require.Equal(t, http.StatusForbidden, status)
		require.Equal(t, 2, l.rung())

		in.stop()
		require.Empty(t, leaks(t, in.cfg, in.needlesOfNumbers()))
		for _, number := range in.needlesOfNumbers() {
			require.NotContains(t, seen.String(), string(number))
			require.NotContains(t, logged.String(), string(number))
		}
	})
}

// needlesOfNumbers are the numbers of the sample however they could be written.
func (in *installation) needlesOfNumbers() (needles [][]byte) {
	for _, number := range []string{"9165550000", "9165550001"} {
		needles = append(needles, []byte(number), []byte(number[:3]+" "+number[3:6]), []byte(number[3:6]+"-"+number[6:8]))
	}
	return needles
}

// TestCallOnce: a button rings once, however often the browser sends it, also when
// it goes away in between; another press is another call.
func TestCallOnce(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		l := in.line()
		seller, mine := in.signedIn("seller1"), in.idOf(0)
		_, card := seller.get("/contacts/" + mine)
		once := onceInput.FindStringSubmatch(card)[1]

		// The browser gives up its first request while the exchange is being asked.
		ctx, cancel := context.WithCancel(t.Context())
		resolve := in.app.calls.resolve
		in.app.calls.resolve = func(c context.Context, tenant, token string) (calltoken.Call, error) {
			cancel()
			<-ctx.Done()
			return resolve(c, tenant, token)
		}
		first, err := http.NewRequestWithContext(ctx, http.MethodPost, in.web.URL+"/contacts/"+mine+"/call", strings.NewReader("once="+once))
		require.NoError(t, err)
		first.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := seller.http.Do(first)
		if err == nil {
			_ = answer.Body.Close()
		}
		require.ErrorIs(t, err, context.Canceled)

		var wg sync.WaitGroup
		ids := make([]string, 50)
		for i := range ids {
			wg.Go(func() {
				_, page := seller.post("/contacts/"+mine+"/call", "once", once)
				if match := callOnCard.FindStringSubmatch(page); match != nil {
					ids[i] = match[1]
				}
			})
		}
		wg.Wait()
		require.NotEmpty(t, ids[0])
		for _, id := range ids {
			require.Equal(t, ids[0], id)
		}
		require.Equal(t, 1, l.rung())

		in.app.calls.resolve = func(c context.Context, tenant, token string) (calltoken.Call, error) {
			for range 3 { // somebody has copied the token
				if _, err := resolve(c, tenant, token); err != nil {
					return calltoken.Call{}, err
				}
			}
			return resolve(c, tenant, token)
		}
		status, page := seller.press(mine)
		require.Equal(t, http.StatusOK, status)
		require.NotEqual(t, ids[0], callOnCard.FindStringSubmatch(page)[1])
		require.Equal(t, 2, l.rung())

		// What was pressed is forgotten after a while.
		in.late.Add(int64(callMemory + time.Second))
		seller.press(mine)
		in.app.calls.mu.Lock()
		defer in.app.calls.mu.Unlock()
		require.Len(t, in.app.calls.placed, 1)
	})
}

// TestCallIsCutOff: who loses the right after the button was pressed and before the
// telephony side has resolved the token rings nobody.
func TestCallIsCutOff(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(6))
		l, mine, resolve := in.line(), in.idOf(0), in.app.calls.resolve
		meanwhile := func(do func() error) {
			in.app.calls.resolve = func(ctx context.Context, tenant, token string) (calltoken.Call, error) {
				require.NoError(t, do())
				return resolve(ctx, tenant, token)
			}
		}
		for name, way := range cutOff {
			seller := in.signedIn("seller1")
			meanwhile(func() error { return way.lose(t.Context(), in.app, "seller1", "seller") })
			status, page := seller.press(mine)
			require.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable}, status, name)
			hasNot(t, page, "555-00-00")
			require.Zero(t, l.rung(), name)
			require.NoError(t, way.restore(t.Context(), in.app, "seller1", "seller"))
		}
		seller := in.signedIn("seller1")
		meanwhile(func() error { // the contact goes to somebody else
			_, err := in.app.db.ExecContext(t.Context(), `UPDATE contacts SET owner = 'seller3', unit = 'sales-north' WHERE id = $1`, mine)
			return err
		})
		status, _ := seller.press(mine)
		require.Equal(t, http.StatusForbidden, status)
		require.Zero(t, l.rung())

		second := in.idOf(3)
		meanwhile(func() error {
			_, err := in.app.vault.keys.Erase(crmguard.System(t.Context(), tenant, "test"), tenant, second)
			return err
		})
		status, _ = seller.press(second)
		require.Equal(t, http.StatusGone, status)
		require.Zero(t, l.rung())
	})
}

// careless is a host that believes the token.
type careless struct{ callHost }

func (h careless) Person(ctx context.Context, s crmguard.Subject) (roles, units []string, err error) {
	return h.a.rights.Resolve(ctx, s.Tenant, s.ID)
}

// TestCallAsksAnew plants the fault that the test above is for: a telephony side
// that asks for rights only. It rings for people who are signed out, dismissed or
// locked out, and is seen.
func TestCallAsksAnew(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, sample(3))
	l := in.line()
	stand := in.app.calls
	resolver, err := calltoken.NewResolver(in.app.vault.keys, calltoken.NewMemory(), in.app.rights, in.app.journal, careless{callHost{in.app}},
		calltoken.DialerFunc(func(ctx context.Context, o calltoken.Order) error { return stand.exchange.line.Dial(ctx, o) }), nil)
	require.NoError(t, err)
	want := 0
	for _, name := range []string{"signed out", "dismissed", "lockdown"} {
		seller, way := in.signedIn("seller1"), cutOff[name]
		stand.resolve = func(ctx context.Context, tenant, token string) (calltoken.Call, error) {
			require.NoError(t, way.lose(t.Context(), in.app, "seller1", "seller"))
			return resolver.Resolve(ctx, tenant, token)
		}
		seller.press(in.idOf(0))
		want++
		require.Equal(t, want, l.rung(), name)
		require.NoError(t, way.restore(t.Context(), in.app, "seller1", "seller"))
	}
}

// TestCallFails: what keeps a call from being made is said in words, and the next
// press may succeed.
func TestCallFails(t *testing.T) {
	t.Parallel()
	var logged racetest.Buffer
	in := unstarted(t, onSQLite)
	in.cfg.Contacts = append(sample(6), "Nobody Phoneless,,nobody@example.org,,,,seller1,Sales,RU\n"...)
	in.cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	in.start()
	l, seller := in.line(), in.signedIn("seller1")

	_, card := seller.get("/contacts/" + in.idOf(6))
	hasNot(t, card, "/call", "no number, no button")
	status, page := seller.post("/contacts/"+in.idOf(6)+"/call", "once", rand.Text())
	require.Equal(t, http.StatusConflict, status)
	has(t, page, "has no phone number")

	mine := in.idOf(0)
	_, card = seller.get("/contacts/" + mine)
	once := onceInput.FindStringSubmatch(card)[1]
	l.fails = errors.New("cannot ring " + phoneOf(0))
	status, page = seller.post("/contacts/"+mine+"/call", "once", once)
	require.Equal(t, http.StatusBadGateway, status)
	has(t, page, "did not take the call")
	l.fails = nil
	status, _ = seller.post("/contacts/"+mine+"/call", "once", once)
	require.Equal(t, http.StatusOK, status, "the same button again")
	require.Equal(t, 1, l.rung())

	require.NoError(t, in.app.calls.exchange.close())
	status, page = seller.press(mine)
	require.Equal(t, http.StatusBadGateway, status)
	for _, number := range in.needlesOfNumbers() {
		hasNot(t, page, string(number))
		require.NotContains(t, logged.String(), string(number))
	}
}

// TestCallCounts: a call opens a client's data, so that the norm of cards holds.
func TestCallCounts(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, sample(6))
	l, seller := in.line(), in.signedIn("seller1")
	counter, err := in.app.norms.make(normRules{Zone: "Europe/Moscow", Norms: []quota.Norm{{Action: crmguard.View, Kind: kind, Hard: 1}}})
	require.NoError(t, err)
	in.app.norms.counter.Store(counter)
	status, _ := seller.post("/contacts/"+in.idOf(0)+"/call", "once", rand.Text())
	require.Equal(t, http.StatusOK, status)
	status, _ = seller.post("/contacts/"+in.idOf(3)+"/call", "once", rand.Text())
	require.Equal(t, http.StatusTooManyRequests, status)
	require.Equal(t, 1, l.rung())
}

// TestExchangeTakesSignedOrdersOnly: another program of this machine gives it none.
func TestExchangeTakesSignedOrdersOnly(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, nil)
	exchange := in.app.calls.exchange
	require.Contains(t, exchange.address, "http://127.0.0.1:")
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	key, err := calltoken.NewKey(secret)
	require.NoError(t, err)
	forger, err := calltoken.NewSender(exchange.address, key, nil)
	require.NoError(t, err)
	number, err := calltoken.NewNumber("+79165550000", "")
	require.NoError(t, err)
	order := calltoken.Order{Tenant: tenant, CallID: "abcdefghijklmnopqrstuv", Leg: "sip:x@crm", Number: number, Expires: time.Now().Add(time.Minute).Truncate(time.Second).UTC()}
	require.Error(t, forger.Dial(t.Context(), order))
	require.Empty(t, exchange.received())

	// It remembers the newest only.
	for range maxOrders + 5 {
		require.NoError(t, exchange.note(t.Context(), order))
	}
	require.Len(t, exchange.received(), maxOrders)
	status, _ := in.browser().post("/orders")
	require.Equal(t, http.StatusNotFound, status, "the CRM itself takes no orders")
}
