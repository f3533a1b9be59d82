package app

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/ipfilter"
)

// TestLockingOneselfOut: it is refused, can be forced, and the command on the server
// undoes it.
func TestLockingOneselfOut(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		owner, admin := in.signedIn("owner"), in.signedIn("admin")
		lists := []string{"allow-company", "203.0.113.0/24"}
		status, page := owner.saveAddresses(lists...)
		require.Equal(t, http.StatusConflict, status)
		has(t, page, "this would lock people out")
		has(t, page, "You: 127.0.0.1 is in no prefix that the company allows")
		has(t, page, "No owner is known to get in then")
		has(t, page, `name="force" value="yes"`)
		has(t, page, "crm addresses reset")
		// The admin would stay, but no owner would.
		status, page = admin.saveAddresses("deny-role:owner", "127.0.0.0/8")
		require.Equal(t, http.StatusConflict, status)
		hasNot(t, page, "You:")
		has(t, page, "owner: 127.0.0.1 is in 127.0.0.0/8, which role owner denies")
		hasNot(t, page, `name="force"`)
		status, _ = admin.saveAddresses("deny-role:owner", "127.0.0.0/8", "force", "yes")
		require.Equal(t, http.StatusForbidden, status, "nor can an administrator force it")
		status, _ = owner.get("/settings")
		require.Equal(t, http.StatusOK, status)
		require.Empty(t, in.changes(addressSetting, crmguard.Done))

		status, _ = owner.saveAddresses(append(lists, "force", "yes")...)
		require.Equal(t, http.StatusOK, status)
		status, _ = owner.get("/settings")
		require.Equal(t, http.StatusForbidden, status)
		status, _ = in.browser().post("/sign-in", "login", "owner", "password", in.password(), "code", in.code("owner"))
		require.Equal(t, http.StatusUnauthorized, status)

		socket, err := in.app.listenControl()
		require.NoError(t, err)
		server := &http.Server{Handler: in.app.controlHandler()} //nolint:gosec // of a test
		defer server.Close()                                     //nolint:errcheck // of a test
		go func() { _ = server.Serve(socket) }()
		v, err := SendAddressReset(t.Context(), in.cfg.Keys)
		require.NoError(t, err)
		require.EqualValues(t, 2, v)
		status, _ = owner.get("/settings")
		require.Equal(t, http.StatusOK, status)

		var done []crmguard.Event
		require.Eventually(t, func() bool { done = in.changes(addressSetting, crmguard.Done); return len(done) == 2 }, 10*time.Second, 5*time.Millisecond)
		require.Equal(t, "version:2:reset", done[0].Reason)
		require.Equal(t, "system:addresses", done[0].Subject.ID)
		require.Equal(t, "version:1:forced", done[1].Reason)
	})
}

// TestLockingAnOwnerOut: an administrator, who may not force it either, takes from no
// owner an address from which that owner may come, whoever else would stay.
func TestLockingAnOwnerOut(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		_, err := in.app.AddAccount(t.Context(), NewAccount{Login: "anna", Role: "owner"})
		require.NoError(t, err)
		owner, admin := in.signedIn("owner"), in.signedIn("admin")
		in.signedIn("anna")
		refused := func(says string, lists ...string) {
			t.Helper()
			status, page := admin.saveAddresses(lists...)
			require.Equal(t, http.StatusConflict, status, lists)
			has(t, page, says)
			has(t, page, "An owner can save this change.")
			hasNot(t, page, `name="force"`)
			status, _ = admin.saveAddresses(append(lists, "force", "yes")...)
			require.Equal(t, http.StatusForbidden, status, lists)
		}
		saved := func(b *browser, lists ...string) {
			t.Helper()
			status, page := b.saveAddresses(lists...)
			require.Equal(t, http.StatusOK, status, lists)
			has(t, page, "The address rules are in force")
		}
		refused("owner: 127.0.0.1 is in no prefix that person owner allows", "person", "owner", "allow-new", "203.0.113.9")
		refused("anna: 127.0.0.1 is in 127.0.0.0/8, which person anna denies", "person", "anna", "deny-new", "127.0.0.0/8")
		// The office stays, but from nowhere else: an owner's own lists are watched everywhere.
		refused("owner: could come from fewer addresses than now", "person", "owner", "allow-new", "127.0.0.0/8")
		refused("anna: could come from fewer addresses than now", "deny-role:owner", "203.0.113.0/24")
		refused("anna: could come from fewer addresses than now", "deny-role:owner", "2001:db8::7")
		require.Empty(t, in.changes(addressSetting, crmguard.Done))

		// The company's lists are the administrator's, as long as the owners who are here
		// stay, and a narrower list of one's own is nobody else's affair.
		saved(admin, "allow-company", "127.0.0.1\n203.0.113.0/24", "person", "seller1", "allow-new", "203.0.113.9")
		_, err = in.app.sessions.Revoke(t.Context(), tenant, "anna")
		require.NoError(t, err)
		refused("anna: could come from fewer addresses than now", "allow-company", "127.0.0.1\n203.0.113.0/25")
		saved(admin, "allow-company", "127.0.0.0/8\n203.0.113.0/24", "deny-role:seller", "127.0.0.9")
		saved(admin, "allow-company", "0.0.0.0/0\n::/0", "deny-role:seller", "127.0.0.9")

		// Owners decide about each other, and an administrator may only give more.
		saved(owner, "person", "anna", "allow-new", "203.0.113.9")
		refused("anna: could come from fewer addresses than now", "allow-person:anna", "203.0.113.10")
		saved(admin, "allow-person:anna", "203.0.113.8/29")
	})
}

func TestLastOf(t *testing.T) {
	for prefix, want := range map[string]string{
		"192.0.2.0/24": "192.0.2.255", "192.0.2.7/32": "192.0.2.7", "192.0.2.128/25": "192.0.2.255", "10.64.0.0/10": "10.127.255.255",
		"0.0.0.0/0": "255.255.255.255", "2001:db8::/33": "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff", "::/127": "::1",
	} {
		require.Equal(t, netip.MustParseAddr(want), lastOf(netip.MustParsePrefix(prefix)), prefix)
	}
}

// TestEdgesStandForAll compares each address of a network with the edge before it: no
// prefix of the rules tells them apart.
func TestEdgesStandForAll(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // of a test
	list := func() (prefixes []netip.Prefix) {
		for range random.IntN(4) {
			at := netip.AddrFrom4([4]byte{0, 0, 0, byte(random.IntN(256))})
			prefixes = append(prefixes, netip.PrefixFrom(at, 24+random.IntN(9)).Masked())
		}
		return prefixes
	}
	for range 200 {
		was := ipfilter.Rules{Company: ipfilter.List{Allow: list(), Deny: list()}}
		next := ipfilter.Rules{Roles: map[string]ipfilter.List{"x": {Allow: list()}}, People: map[string]ipfilter.List{"y": {Deny: list()}}}
		all := slices.Concat(was.Company.Allow, was.Company.Deny, next.Roles["x"].Allow, next.People["y"].Deny)
		known := map[netip.Addr]bool{}
		for _, addr := range edges(was, next) {
			known[addr] = true
		}
		var edge netip.Addr
		for i := 1; i < 256; i++ {
			addr := netip.AddrFrom4([4]byte{0, 0, 0, byte(i)})
			if known[addr] {
				edge = addr
			}
			for _, prefix := range all {
				require.Equal(t, prefix.Contains(edge), prefix.Contains(addr), "%v %v %v", prefix, edge, addr)
			}
		}
	}
}
