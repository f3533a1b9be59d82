package app

import (
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/ipfilter"
)

// from makes a browser's connections come from another address of this machine.
func (b *browser) from(addr string) *browser {
	b.http.Transport = &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}).DialContext}
	b.t.Cleanup(b.http.CloseIdleConnections)
	return b
}

var listField = regexp.MustCompile(`name="((?:allow|deny)-[^"]+|person)"`)

// addressFields are all fields of the address rules in the version that is in force,
// empty but for these.
func (b *browser) addressFields(lists ...string) []string {
	b.t.Helper()
	_, page := b.get("/settings")
	_, page, found := strings.Cut(page, `action="/settings/addresses#addresses"`)
	require.True(b.t, found, heading(page))
	page, _, _ = strings.Cut(page, "</form>")
	form := []string{"version", version(b.t, page)}
	for _, field := range listField.FindAllStringSubmatch(page, -1) {
		form = append(form, field[1], "")
	}
	return append(form, lists...)
}

// saveAddresses sends the form of address rules.
func (b *browser) saveAddresses(lists ...string) (int, string) {
	b.t.Helper()
	return b.post("/settings/addresses", b.addressFields(lists...)...)
}

// changes are the entries of the journal about a setting, newest first.
func (in *installation) changes(setting string, outcome crmguard.Outcome) []crmguard.Event {
	in.t.Helper()
	found, err := in.app.journal.Find(in.t.Context(), audit.Query{Tenant: tenant, Kind: setting, Outcome: outcome})
	require.NoError(in.t, err)
	events := make([]crmguard.Event, len(found.Entries))
	for i, e := range found.Entries {
		events[i] = e.Event
	}
	return events
}

func TestAddressRules(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner, admin, seller := in.signedIn("owner"), in.signedIn("admin"), in.signedIn("seller1")
		elsewhere := in.signedIn("seller1").from("127.0.0.2")
		for _, login := range []string{"head", "seller1", "accountant"} {
			b := in.signedIn(login)
			status, _ := b.get("/settings")
			require.Equal(t, http.StatusForbidden, status)
			status, _ = b.post("/settings/addresses", "version", "0")
			require.Equal(t, http.StatusForbidden, status)
			status, _ = b.post("/settings/addresses/explain", "login", "owner", "addr", "127.0.0.1")
			require.Equal(t, http.StatusForbidden, status)
		}
		status, page := in.session("owner", crmguard.AssurancePassword, 0).saveAddresses()
		require.Equal(t, http.StatusUnauthorized, status, "a change wants a fresh code")
		has(t, page, "Confirm that it is you")

		// What is wrong is shown where it is, and nothing changes.
		status, page = owner.saveAddresses("allow-company", "127.0.0.1\n\n 203.0.113.7/24\nhere", "person", "stranger", "deny-new", "203.0.113.0/24")
		require.Equal(t, http.StatusUnprocessableEntity, status)
		has(t, page, "Line 3: ")
		has(t, page, "Line 4: ")
		has(t, page, "There is nobody with this login.")
		has(t, page, " 203.0.113.7/24\nhere", "what was typed is still there")
		status, _ = elsewhere.get("/contacts")
		require.Equal(t, http.StatusOK, status)

		// The company works from one address; a session from elsewhere is over.
		status, page = admin.saveAddresses("allow-company", "127.0.0.1", "deny-role:integration", "203.0.113.0/24", "person", "head2", "allow-new", "127.0.0.2")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The address rules are in force")
		status, _ = seller.get("/contacts")
		require.Equal(t, http.StatusOK, status)
		status, page = elsewhere.get("/contacts")
		require.Equal(t, http.StatusForbidden, status)
		hasNot(t, page, "Quillfeather")
		status, _ = elsewhere.get("/contacts/" + in.idOf(0))
		require.Equal(t, http.StatusNotFound, status)
		status, _ = in.signedIn("head2").from("127.0.0.2").get("/contacts")
		require.Equal(t, http.StatusOK, status, "a person's list replaces the company's")
		status, _ = in.signedIn("head2").get("/contacts")
		require.Equal(t, http.StatusForbidden, status)

		// At the door a foreign address and a wrong password look the same.
		right := []string{"login", "seller1", "password", in.password(), "code", in.code("seller1")}
		foreign, foreignPage := in.browser().from("127.0.0.2").post("/sign-in", right...)
		wrong, wrongPage := in.browser().post("/sign-in", "login", "seller1", "password", "guess", "code", "123456")
		require.Equal(t, wrong, foreign)
		require.Equal(t, http.StatusUnauthorized, foreign)
		require.True(t, wrongPage == foreignPage)
		status, _ = in.browser().post("/sign-in", "login", "seller1", "password", in.password(), "code", in.code("seller1"))
		require.Equal(t, http.StatusOK, status, "and it is the address that was refused")

		status, page = admin.post("/settings/addresses/explain", "login", "head2", "addr", "127.0.0.1")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "head2 may not come from there")
		has(t, page, "127.0.0.1 is in no prefix that person head2 allows; rules 1.")
		_, page = admin.post("/settings/addresses/explain", "login", "integration", "addr", "203.0.113.9")
		has(t, page, "203.0.113.9 is in 203.0.113.0/24, which role integration denies")
		_, page = admin.post("/settings/addresses/explain", "login", "nobody", "addr", "x")
		has(t, page, "There is nobody with this login.")
		_, page = admin.post("/settings/addresses/explain", "login", "seller1", "addr", "x")
		has(t, page, "Type one address")

		// Each change has its version and digest in the journal.
		done := in.changes(addressSetting, crmguard.Done)
		require.Len(t, done, 1)
		require.Equal(t, "version:1", done[0].Reason)
		require.Equal(t, "admin", done[0].Subject.ID)
		document, _ := in.app.addresses.InForce(tenant)
		require.Equal(t, document.Policy(), done[0].Policy)

		// Of many who saw the same version one saves.
		var won atomic.Int64
		var all sync.WaitGroup
		form := fields(owner.addressFields("allow-company", "127.0.0.0/8")...)
		require.Equal(t, "1", form.Get("version"))
		for range 8 {
			b := in.signedIn("owner")
			all.Go(func() {
				answer := b.do(http.MethodPost, "/settings/addresses", form)
				if answer.StatusCode == http.StatusOK {
					won.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 1, won.Load())
		status, page = admin.post("/settings/addresses", "version", "1", "allow-company", "127.0.0.1\n198.51.100.0/24")
		require.Equal(t, http.StatusConflict, status)
		has(t, page, "Somebody changed the address rules meanwhile")
		has(t, page, "198.51.100.0/24")
		has(t, page, `name="version" value="2"`)

		in.stop()
		in.start()
		document, _ = in.app.addresses.InForce(tenant)
		require.EqualValues(t, 2, document.Version)
	})
}

// TestTheWholeAddressForm: a form that lacks a field, or has one that means nothing,
// changes no rule.
func TestTheWholeAddressForm(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		owner := in.signedIn("owner")
		status, _ := owner.saveAddresses("deny-company", "127.0.0.9", "person", "seller1", "deny-new", "127.0.0.10")
		require.Equal(t, http.StatusOK, status)
		whole := fields(owner.addressFields("deny-company", "127.0.0.9", "deny-person:seller1", "127.0.0.10")...)
		require.Contains(t, whole, "deny-role:owner")
		unreadable := func(why string, change func(form url.Values)) {
			t.Helper()
			form := maps.Clone(whole)
			change(form)
			status, page := read(t, owner.do(http.MethodPost, "/settings/addresses", form))
			require.Equal(t, http.StatusBadRequest, status, why)
			has(t, page, "The form could not be read", why)
		}
		unreadable("nothing else", func(form url.Values) {
			maps.DeleteFunc(form, func(name string, _ []string) bool { return name != "version" })
		})
		for name := range whole {
			unreadable("no "+name, func(form url.Values) { delete(form, name) })
			unreadable("twice "+name, func(form url.Values) { form[name] = append(form[name], form[name]...) })
		}
		for _, name := range []string{"allow-role:zzz", "deny-person:seller2", "deny-persn:seller1", "allow-", "comment"} {
			unreadable(name, func(form url.Values) { form.Set(name, "203.0.113.7") })
		}
		unreadable("no version", func(form url.Values) { form.Set("version", "one") })
		document, _ := in.app.addresses.InForce(tenant)
		require.EqualValues(t, 1, document.Version)
		require.Len(t, document.Rules.People, 1)

		// A form of an older version lacks the list that was added since, which stays.
		status, page := owner.post("/settings/addresses", "version", "0", "deny-company", "127.0.0.11")
		require.Equal(t, http.StatusConflict, status)
		has(t, page, "127.0.0.11")
		has(t, page, "\n127.0.0.10</textarea>")
		status, _ = read(t, owner.do(http.MethodPost, "/settings/addresses", whole))
		require.Equal(t, http.StatusOK, status)
	})
}

// TestOldAndForgedAddressRules: rules that were put back or made up in the database
// are not started with.
func TestOldAndForgedAddressRules(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		owner := in.signedIn("owner")
		status, _ := owner.saveAddresses("deny-company", "127.0.0.9")
		require.Equal(t, http.StatusOK, status)
		first, err := in.app.db.setting(t.Context(), addressSetting)
		require.NoError(t, err)
		status, _ = owner.saveAddresses("deny-company", "127.0.0.9\n127.0.0.10")
		require.Equal(t, http.StatusOK, status)
		second, err := in.app.db.setting(t.Context(), addressSetting)
		require.NoError(t, err)
		in.stop()

		put := func(document []byte) {
			alter(t, in.cfg, `UPDATE settings SET value = $1 WHERE name = 'addresses'`, document)
		}
		put(first)
		in.refused(in.cfg, "older than those that were in force")
		var fields map[string]any
		require.NoError(t, json.Unmarshal(second, &fields))
		delete(fields, "company")
		forged, err := json.Marshal(fields)
		require.NoError(t, err)
		put(forged)
		in.refused(in.cfg, "changed past the CRM")
		put([]byte{})
		in.refused(in.cfg, "changed past the CRM")
		alter(t, in.cfg, `DELETE FROM settings WHERE name = 'addresses'`)
		in.refused(in.cfg, "older than those that were in force")
		alter(t, in.cfg, `INSERT INTO settings (name, value) VALUES ('addresses', $1)`, second)
		in.start()
		status, _ = in.signedIn("seller1").from("127.0.0.10").get("/contacts")
		require.Equal(t, http.StatusForbidden, status)
	})
}

// TestBehindAProxy: only a trusted proxy says where a request comes from.
func TestBehindAProxy(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		secret, err := in.app.AddAccount(t.Context(), NewAccount{Login: "anna", Role: "owner"})
		require.NoError(t, err)
		status, _ := in.signedIn("owner").saveAddresses("allow-company", "127.0.0.1\n203.0.113.0/24")
		require.Equal(t, http.StatusOK, status)

		// Without a proxy the header says nothing, to nobody.
		stranger := in.signedIn("owner").from("127.0.0.2")
		answer := stranger.do(http.MethodGet, "/contacts", nil, "X-Forwarded-For", "203.0.113.7", "Forwarded", "for=203.0.113.7", "X-Real-IP", "203.0.113.7")
		require.Equal(t, http.StatusForbidden, answer.StatusCode)
		home := in.signedIn("owner")
		require.Equal(t, http.StatusOK, home.do(http.MethodGet, "/contacts", nil, "X-Forwarded-For", "198.51.100.1").StatusCode)

		in.stop()
		in.cfg.Proxies, in.cfg.ProxyHeader = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, ipfilter.XForwardedFor
		_, err = New(t.Context(), in.cfg)
		require.ErrorContains(t, err, "Loopback and Proxies exclude each other")
		in.cfg.Loopback = false
		in.start()
		token, err := in.app.sessions.Start(t.Context(), crmguard.Subject{
			Tenant: tenant, ID: "anna", Kind: employee, Addr: netip.MustParseAddr("203.0.113.7"), Assurance: crmguard.AssurancePassword, AuthenticatedAt: in.app.now(),
		})
		require.NoError(t, err)
		cookie := "__Host-session=" + token
		for forwarded, want := range map[string][2]int{ // a page, and signing in
			"203.0.113.7":               {http.StatusOK, http.StatusSeeOther},
			"198.51.100.1, 203.0.113.7": {http.StatusOK, http.StatusSeeOther},
			"203.0.113.7, 127.0.0.1":    {http.StatusOK, http.StatusSeeOther},
			"[203.0.113.7]:443":         {http.StatusBadRequest, http.StatusBadRequest},
			"198.51.100.1":              {http.StatusForbidden, http.StatusUnauthorized},
			"203.0.113.7, 198.51.100.1": {http.StatusForbidden, http.StatusUnauthorized},
			"203.0.113.7, here":         {http.StatusBadRequest, http.StatusBadRequest},
			"unknown":                   {http.StatusBadRequest, http.StatusBadRequest},
			"":                          {http.StatusBadRequest, http.StatusBadRequest},
			strings.Repeat("203.0.113.7, ", 3) + "0x7f.0.1": {http.StatusBadRequest, http.StatusBadRequest},
		} {
			b := in.browser()
			b.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			page := b.do(http.MethodGet, "/contacts", nil, "X-Forwarded-For", forwarded, "Cookie", cookie).StatusCode
			door := b.do(http.MethodPost, "/sign-in", fields("login", "anna", "password", secret), "X-Forwarded-For", forwarded).StatusCode
			require.Equal(t, want, [2]int{page, door}, forwarded)
		}
		direct := in.browser().from("127.0.0.2")
		require.Equal(t, http.StatusForbidden, direct.do(http.MethodGet, "/contacts", nil, "X-Forwarded-For", "203.0.113.7", "Cookie", cookie).StatusCode, "who comes past the proxy")
	})
}
