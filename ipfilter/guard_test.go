package ipfilter_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/signin"
	"github.com/crmguard/crmguard/ipfilter"
	"github.com/crmguard/crmguard/session"
)

type directory struct{}

func (directory) Resolve(context.Context, string, string) (roles, units []string, err error) {
	return []string{"seller"}, nil, nil
}

type accounts struct{}

func (accounts) Account(context.Context, string) (signin.Account, error) {
	return signin.Account{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, PasswordHash: "hash"}, nil
}

func (accounts) SetPasswordHash(context.Context, signin.Account, string) error { return nil }

// anyPassword stands in for argon2id: these tests are about addresses.
type anyPassword struct{}

func (anyPassword) Hash(context.Context, string) (string, error) { return "hash", nil }
func (anyPassword) Verify(context.Context, string, string) (ok, rehash bool, err error) {
	return true, false, nil
}
func (anyPassword) VerifyNobody(context.Context, string) error { return nil }

// A stolen password, and then a stolen session, from a foreign address, with forged
// headers: at the door, and at every request.
func TestAtTheDoorAndAtEveryRequest(t *testing.T) {
	keys, journal := crmguardtest.NewKeys(), crmguardtest.NewRecorder()
	quiet := slog.New(slog.DiscardHandler)
	addrs, err := ipfilter.New(keys, directory{}, &ipfilter.Options{Logger: quiet})
	require.NoError(t, err)
	load := func(rules ipfilter.Rules) {
		d, err := addrs.Prepare(crmguard.System(t.Context(), "acme", "test"), rules, []ipfilter.Owner{{ID: "olga"}}, &ipfilter.ChangeOptions{Force: true})
		require.NoError(t, err)
		require.NoError(t, addrs.Load(t.Context(), "acme", d.JSON))
	}
	require.NoError(t, addrs.Load(t.Context(), "acme", nil))
	// Sign-in knows no roles; the rule is one by role.
	load(ipfilter.Rules{Roles: map[string]ipfilter.List{"seller": {Allow: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}}})

	edge, err := ipfilter.Edge([]netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}, ipfilter.XForwardedFor)
	require.NoError(t, err)
	sessions, err := session.New(session.NewMemory(), keys, nil)
	require.NoError(t, err)
	require.NoError(t, sessions.OpenPerson(t.Context(), "acme", "anna"))
	door, err := signin.New(accounts{}, anyPassword{}, sessions, journal, &signin.Options{Addresses: addrs, Logger: quiet})
	require.NoError(t, err)
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts")
	g, err := guard.New(sessions, rights, directory{}, journal, &guard.Options{Addresses: addrs, Edge: edge, Logger: quiet})
	require.NoError(t, err)
	card := func(*http.Request) (crmguard.Resource, error) {
		return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17"}, nil
	}
	handler := g.Handler(g.Protect(crmguard.View, card, func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.Write([]byte("card"))
		return err
	}))

	token, err := door.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "stolen", Addr: netip.MustParseAddr("198.51.100.9")})
	require.Error(t, err)
	require.Empty(t, token)
	token, err = door.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "right", Addr: netip.MustParseAddr("203.0.113.7")})
	require.NoError(t, err)

	get := func(peer string, lines ...string) int {
		r := httptest.NewRequest(http.MethodGet, "/contacts/17", nil)
		r.RemoteAddr = peer
		for _, line := range lines {
			r.Header.Add("X-Forwarded-For", line)
		}
		carrier := httptest.NewRecorder()
		g.SetSession(carrier, token)
		for _, c := range carrier.Result().Cookies() {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code
	}
	require.Equal(t, http.StatusOK, get("203.0.113.7:5000"))
	require.Equal(t, http.StatusOK, get("10.0.0.1:80", "203.0.113.7"))
	require.Equal(t, http.StatusOK, get("10.0.0.1:80", "::ffff:203.0.113.7"))
	require.Equal(t, http.StatusNotFound, get("198.51.100.9:5000"), "a foreign address")
	require.Equal(t, http.StatusNotFound, get("198.51.100.9:5000", "203.0.113.7"), "forged by a stranger")
	require.Equal(t, http.StatusNotFound, get("10.0.0.1:80", "203.0.113.7, 198.51.100.9"), "forged through the proxy")
	require.Equal(t, http.StatusNotFound, get("10.0.0.1:80", "203.0.113.7", "198.51.100.9"), "forged in a line of its own")
	require.Equal(t, http.StatusBadRequest, get("10.0.0.1:80"), "the proxy does not say for whom")
	require.Equal(t, http.StatusBadRequest, get("10.0.0.1:80", "203.0.113.7, unknown"))

	// The next request is decided by the new rules.
	load(ipfilter.Rules{Company: ipfilter.List{Deny: []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32")}}})
	require.Equal(t, http.StatusNotFound, get("203.0.113.7:5000"))
	require.Equal(t, http.StatusOK, get("198.51.100.9:5000"))

	reasons := map[string]int{}
	for _, e := range journal.Events() {
		if e.Outcome == crmguard.Denied {
			reasons[string(e.Action)+" "+e.Reason]++
		}
	}
	require.Equal(t, map[string]int{
		"sign-in ipfilter:" + ipfilter.CodeRoleUnlisted: 1,
		"view ipfilter:" + ipfilter.CodeRoleUnlisted:    4,
		"view ipfilter:" + ipfilter.CodeCompanyDenied:   1,
	}, reasons)
}
