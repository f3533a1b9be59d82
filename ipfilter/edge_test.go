package ipfilter

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// proxies are trusted in these tests.
var proxies = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/30"),
	netip.MustParsePrefix("2001:db8:ff::/48"),
}

func mustEdge(t testing.TB, trusted []netip.Prefix, headers ...Header) func(*http.Request) (netip.Addr, error) {
	t.Helper()
	client, err := Edge(trusted, headers...)
	require.NoError(t, err)
	return client
}

// request comes from peer; lines are "Name: value", several may have one name.
func request(peer string, lines ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = peer
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return r
}

const (
	proxy  = "10.0.0.1:4711"
	office = "203.0.113.7"  // what attackers would like to be
	evil   = "198.51.100.9" // what they are
)

// edgeCases are requests and the client to be found, or "" for none. Those that
// name an attack are forged by a client at evil who wants to be at office.
var edgeCases = []struct {
	name    string
	headers []Header
	peer    string
	lines   []string
	want    string
}{
	// X-Forwarded-For
	{"direct", xff, "198.51.100.9:5000", nil, evil},
	{"attack: a stranger's header", xff, "198.51.100.9:5000", []string{"X-Forwarded-For: " + office}, evil},
	{"attack: a stranger next to the proxies", xff, "10.0.0.4:5000", []string{"X-Forwarded-For: " + office}, "10.0.0.4"},
	{"one proxy", xff, proxy, []string{"X-Forwarded-For: " + evil}, evil},
	{"attack: appended to a forged one", xff, proxy, []string{"X-Forwarded-For: " + office + ", " + evil}, evil},
	{"attack: a line of its own before", xff, proxy, []string{"X-Forwarded-For: " + office, "X-Forwarded-For: " + evil}, evil},
	{"attack: garbage before", xff, proxy, []string{"X-Forwarded-For: ,,\x01,\"" + office + ", " + evil}, evil},
	{"attack: a forged trusted hop", xff, proxy, []string{"X-Forwarded-For: " + office + ", 10.0.0.2, " + evil}, evil},
	{"two proxies", xff, proxy, []string{"X-Forwarded-For: " + office + ", " + evil + ", 10.0.0.2"}, evil},
	{"two proxies, two lines", xff, proxy, []string{"X-Forwarded-For: " + evil, "X-Forwarded-For: 10.0.0.2"}, evil},
	{"two proxies, line of the first empty", xff, proxy, []string{"X-Forwarded-For: " + evil, "X-Forwarded-For: ", "X-Forwarded-For: 10.0.0.2"}, ""},
	{"only proxies", xff, proxy, []string{"X-Forwarded-For: 10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
	{"no header from a proxy", xff, proxy, nil, ""},
	{"attack: the other header", xff, proxy, []string{"Forwarded: for=" + office}, ""},
	{"attack: the other header beside", xff, proxy, []string{"Forwarded: for=" + office, "X-Forwarded-For: " + evil}, evil},
	{"attack: headers of other products", xff, proxy, []string{"X-Real-Ip: " + office, "True-Client-Ip: " + office, "X-Forwarded-For: " + evil}, evil},
	{"empty", xff, proxy, []string{"X-Forwarded-For: "}, ""},
	{"empty element at the right", xff, proxy, []string{"X-Forwarded-For: " + office + ","}, ""},
	{"empty element behind a proxy", xff, proxy, []string{"X-Forwarded-For: " + office + ", , 10.0.0.2"}, ""},
	{"malformed hop behind a proxy", xff, proxy, []string{"X-Forwarded-For: " + office + ", unknown, 10.0.0.2"}, ""},
	{"malformed line behind a proxy", xff, proxy, []string{"X-Forwarded-For: " + office, "X-Forwarded-For: localhost", "X-Forwarded-For: 10.0.0.2"}, ""},
	{"unspecified", xff, proxy, []string{"X-Forwarded-For: 0.0.0.0"}, ""},
	{"unspecified IPv6", xff, proxy, []string{"X-Forwarded-For: ::"}, ""},
	{"multicast", xff, proxy, []string{"X-Forwarded-For: 224.0.0.1"}, ""},
	{"spaces and tabs", xff, proxy, []string{"X-Forwarded-For: \t " + evil + " \t,\t10.0.0.2 "}, evil},
	{"port", xff, proxy, []string{"X-Forwarded-For: 198.51.100.9:65535, 10.0.0.2:80"}, evil},
	{"IPv6", xff, proxy, []string{"X-Forwarded-For: 2001:DB8::0:9, 2001:db8:ff::1"}, "2001:db8::9"},
	{"IPv6 in brackets", xff, proxy, []string{"X-Forwarded-For: [2001:db8::9], [2001:db8:ff::1]"}, "2001:db8::9"},
	{"IPv6 with port", xff, proxy, []string{"X-Forwarded-For: [2001:db8::9]:443, [2001:db8:ff::1]:1"}, "2001:db8::9"},
	{"IPv4-mapped client", xff, proxy, []string{"X-Forwarded-For: ::ffff:198.51.100.9"}, evil},
	{"IPv4-mapped client in hex", xff, proxy, []string{"X-Forwarded-For: [::ffff:c633:6409]:80"}, evil},
	{"IPv4-mapped hop", xff, proxy, []string{"X-Forwarded-For: " + evil + ", ::ffff:10.0.0.2"}, evil},
	{"IPv4-mapped peer", xff, "[::ffff:10.0.0.1]:4711", []string{"X-Forwarded-For: " + evil}, evil},
	{"peer with zone", xff, "[2001:db8:ff::1%eth0]:4711", []string{"X-Forwarded-For: fe80::9%eth0"}, "fe80::9"},
	{"direct with zone", xff, "[fe80::9%eth0]:4711", nil, "fe80::9"},
	{"IPv4 in brackets", xff, proxy, []string{"X-Forwarded-For: [198.51.100.9]"}, ""},
	{"bracket not closed", xff, proxy, []string{"X-Forwarded-For: [2001:db8::9"}, ""},
	{"text behind the bracket", xff, proxy, []string{"X-Forwarded-For: [2001:db8::9]443"}, ""},
	{"port without digits", xff, proxy, []string{"X-Forwarded-For: 198.51.100.9:"}, ""},
	{"port with a sign", xff, proxy, []string{"X-Forwarded-For: 198.51.100.9:+80"}, ""},
	{"port too large", xff, proxy, []string{"X-Forwarded-For: 198.51.100.9:65536"}, ""},
	{"two ports", xff, proxy, []string{"X-Forwarded-For: 198.51.100.9:80:81"}, ""},
	{"octal", xff, proxy, []string{"X-Forwarded-For: 198.51.100.011"}, ""},
	{"number", xff, proxy, []string{"X-Forwarded-For: 3325256713"}, ""},
	{"short IPv4", xff, proxy, []string{"X-Forwarded-For: 127.1"}, ""},
	{"prefix", xff, proxy, []string{"X-Forwarded-For: 198.51.100.0/24"}, ""},
	{"quotes", xff, proxy, []string{`X-Forwarded-For: "198.51.100.9"`}, ""},
	{"full-width digits", xff, proxy, []string{"X-Forwarded-For: １98.51.100.9"}, ""},
	{"other separator", xff, proxy, []string{"X-Forwarded-For: 203.0.113.7; 198.51.100.9"}, ""},
	{"form of Forwarded", xff, proxy, []string{"X-Forwarded-For: for=198.51.100.9"}, ""},

	// Forwarded
	{"fwd: direct", fwd, "198.51.100.9:5000", []string{"Forwarded: for=" + office}, evil},
	{"fwd: one proxy", fwd, proxy, []string{"Forwarded: for=" + evil}, evil},
	{"fwd: attack: X-Forwarded-For", fwd, proxy, []string{"X-Forwarded-For: " + office}, ""},
	{"fwd: attack: appended", fwd, proxy, []string{"Forwarded: for=" + office + ", for=" + evil}, evil},
	{"fwd: attack: a line of its own", fwd, proxy, []string{"Forwarded: for=" + office, "Forwarded: for=" + evil}, evil},
	{"fwd: attack: an open quote before", fwd, proxy, []string{`Forwarded: for=203.0.113.7;x=", for=198.51.100.9`}, evil},
	{"fwd: attack: an open quote before quotes", fwd, proxy, []string{`Forwarded: for=203.0.113.7;x=", for="[2001:db8::9]:80"`}, "2001:db8::9"},
	{"fwd: attack: an open quote and a host", fwd, proxy, []string{`Forwarded: for=203.0.113.7;x=", for=198.51.100.9;host=",for=203.0.113.7;y=";by=""`}, evil},
	{"fwd: attack: a backslash before", fwd, proxy, []string{`Forwarded: for=203.0.113.7\, for=198.51.100.9`}, evil},
	{"fwd: parameters", fwd, proxy, []string{`Forwarded: proto=https;By="[2001:db8:ff::1]:8080";FOR=198.51.100.9;host="crm.example:8443"`}, evil},
	{"fwd: empty pairs", fwd, proxy, []string{`Forwarded: ;;for=198.51.100.9;`}, evil},
	{"fwd: comma and escapes in quotes", fwd, proxy, []string{`Forwarded: for=198.51.100.9;x="a, \"b\\", for=10.0.0.2`}, evil},
	{"fwd: IPv6", fwd, proxy, []string{`Forwarded: for="[2001:DB8::9]"`}, "2001:db8::9"},
	{"fwd: IPv6 with port", fwd, proxy, []string{`Forwarded: for="[2001:db8::9]:47011" , for="[2001:db8:ff::2]"`}, "2001:db8::9"},
	{"fwd: IPv4 with port", fwd, proxy, []string{`Forwarded: for="198.51.100.9:47011"`}, evil},
	{"fwd: hidden port", fwd, proxy, []string{`Forwarded: for="198.51.100.9:_p-1"`}, evil},
	{"fwd: IPv4-mapped", fwd, proxy, []string{`Forwarded: for="[::ffff:198.51.100.9]", for="[::ffff:10.0.0.2]"`}, evil},
	{"fwd: unknown", fwd, proxy, []string{`Forwarded: for=203.0.113.7, for=Unknown`}, ""},
	{"fwd: hidden", fwd, proxy, []string{`Forwarded: for=203.0.113.7, for=_gazonk`}, ""},
	{"fwd: hidden with port", fwd, proxy, []string{`Forwarded: for=203.0.113.7, for="_SEVKISEK:80"`}, ""},
	{"fwd: no client", fwd, proxy, []string{`Forwarded: for=203.0.113.7, proto=https`}, ""},
	{"fwd: two clients", fwd, proxy, []string{`Forwarded: for=203.0.113.7;For=198.51.100.9`}, ""},
	{"fwd: empty element", fwd, proxy, []string{`Forwarded: for=203.0.113.7,`}, ""},
	{"fwd: empty value", fwd, proxy, []string{`Forwarded: for=`}, ""},
	{"fwd: empty quotes", fwd, proxy, []string{`Forwarded: for=""`}, ""},
	{"fwd: IPv6 without quotes", fwd, proxy, []string{`Forwarded: for=[2001:db8::9]`}, ""},
	{"fwd: IPv6 without brackets", fwd, proxy, []string{`Forwarded: for="2001:db8::9"`}, ""},
	{"fwd: IPv4 in brackets", fwd, proxy, []string{`Forwarded: for="[198.51.100.9]"`}, ""},
	{"fwd: port without quotes", fwd, proxy, []string{`Forwarded: for=198.51.100.9:80`}, ""},
	{"fwd: bad port", fwd, proxy, []string{`Forwarded: for="198.51.100.9:http"`}, ""},
	{"fwd: bad hidden port", fwd, proxy, []string{`Forwarded: for="198.51.100.9:_p q"`}, ""},
	{"fwd: space around =", fwd, proxy, []string{`Forwarded: for =198.51.100.9`}, ""},
	{"fwd: text behind quotes", fwd, proxy, []string{`Forwarded: for="198.51.100.9"x`}, ""},
	{"fwd: control character", fwd, proxy, []string{"Forwarded: for=198.51.100.9;x=\"\x01\""}, ""},
	{"fwd: one quote", fwd, proxy, []string{`Forwarded: for="198.51.100.9`}, ""},
	{"fwd: no value", fwd, proxy, []string{`Forwarded: for`}, ""},
	{"fwd: form of X-Forwarded-For", fwd, proxy, []string{`Forwarded: 198.51.100.9`}, ""},
	{"fwd: unspecified", fwd, proxy, []string{`Forwarded: for=0.0.0.0`}, ""},

	// both
	{"both: the first only", both, proxy, []string{"X-Forwarded-For: " + evil}, evil},
	{"both: the second only", both, proxy, []string{"Forwarded: for=" + evil}, evil},
	{"both: agree", both, proxy, []string{"X-Forwarded-For: " + evil, `Forwarded: for="[::ffff:198.51.100.9]:80"`}, evil},
	{"both: attack: one forged", both, proxy, []string{"X-Forwarded-For: " + evil, "Forwarded: for=" + office}, ""},
	{"both: attack: the other forged", both, proxy, []string{"X-Forwarded-For: " + office, "Forwarded: for=" + evil}, ""},
	{"both: attack: one malformed", both, proxy, []string{"X-Forwarded-For: " + office, "Forwarded: for=unknown"}, ""},
	{"both: none", both, proxy, nil, ""},
}

var (
	xff  = []Header{XForwardedFor}
	fwd  = []Header{Forwarded}
	both = []Header{XForwardedFor, Forwarded}
)

func TestEdge(t *testing.T) {
	for _, tt := range edgeCases {
		t.Run(tt.name, func(t *testing.T) {
			r := request(tt.peer, tt.lines...)
			before, peer := maps.Clone(r.Header), r.RemoteAddr
			addr, err := mustEdge(t, proxies, tt.headers...)(r)
			if tt.want == "" {
				require.Error(t, err)
				require.Zero(t, addr)
				for _, line := range tt.lines {
					_, value, _ := strings.Cut(line, ": ")
					if len(value) > 3 {
						require.NotContains(t, err.Error(), value, "errors do not quote what may be forged")
					}
				}
			} else {
				require.NoError(t, err)
				require.Equal(t, tt.want, addr.String())
			}
			require.Equal(t, peer, r.RemoteAddr)
			require.Equal(t, before, r.Header)
		})
	}
}

func TestEdgeNeedsItsArguments(t *testing.T) {
	for name, tt := range map[string]struct {
		trusted []string
		headers []Header
	}{
		"no header":         {[]string{"10.0.0.0/8"}, nil},
		"unknown header":    {[]string{"10.0.0.0/8"}, []Header{0}},
		"unknown header 3":  {nil, []Header{3}},
		"header twice":      {[]string{"10.0.0.0/8"}, []Header{Forwarded, Forwarded}},
		"everybody":         {[]string{"0.0.0.0/0"}, xff},
		"everybody, IPv6":   {[]string{"10.0.0.1/32", "::/0"}, xff},
		"everybody, mapped": {[]string{"::ffff:0.0.0.0/96"}, xff},
		"host bits":         {[]string{"10.0.0.1/8"}, xff},
	} {
		var trusted []netip.Prefix
		for _, text := range tt.trusted {
			trusted = append(trusted, netip.MustParsePrefix(text))
		}
		_, err := Edge(trusted, tt.headers...)
		require.Error(t, err, name)
	}
	_, err := Edge([]netip.Prefix{{}}, XForwardedFor)
	require.Error(t, err, "invalid prefix")

	// Nobody trusted: the connection's address, with and without header.
	for _, headers := range [][]Header{nil, xff} {
		addr, err := mustEdge(t, nil, headers...)(request(proxy, "X-Forwarded-For: "+office))
		require.NoError(t, err)
		require.Equal(t, "10.0.0.1", addr.String())
	}
	for _, peer := range []string{"", "@", "10.0.0.1", "pipe"} {
		_, err := mustEdge(t, proxies, XForwardedFor)(request(peer, "X-Forwarded-For: "+office))
		require.Error(t, err, "a connection without address: %q", peer)
	}
	// Trusted proxies may be given in mapped form, and the caller may reuse its slices.
	mapped, headers := []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/126")}, []Header{XForwardedFor}
	client := mustEdge(t, mapped, headers...)
	mapped[0], headers[0] = netip.Prefix{}, Forwarded
	addr, err := client(request(proxy, "X-Forwarded-For: "+evil))
	require.NoError(t, err)
	require.Equal(t, evil, addr.String())
	require.Equal(t, "X-Forwarded-For Forwarded Header(7)", XForwardedFor.String()+" "+Forwarded.String()+" "+Header(7).String())
}

// someHops are what random headers are made of: clients, proxies, garbage.
var someHops = map[Header][]string{
	XForwardedFor: {
		evil, office, "10.0.0.1", "10.0.0.2", "10.0.0.3:80", "::ffff:10.0.0.2", "::ffff:198.51.100.9", "[2001:db8:ff::1]:443", "2001:db8:ff::2",
		"2001:db8::9", "fe80::1%eth0", "unknown", "", "[10.0.0.1]", "0.0.0.0",
	},
	Forwarded: {
		"for=" + evil, "for=" + office, "for=10.0.0.1", "for=10.0.0.2", `for="10.0.0.3:80"`, `for="[::ffff:10.0.0.2]"`, `for="[::ffff:198.51.100.9]"`,
		`for="[2001:db8:ff::1]:443"`, `for="[2001:db8:ff::2]"`, `for="[2001:db8::9]"`, "for=unknown", "", `for="`, `x="`, `for=\"`,
	},
}

type edgeRequest struct {
	headers []Header
	peer    string
	lines   []string
}

var edgeRequests = rapid.Custom(func(t *rapid.T) edgeRequest {
	q := edgeRequest{
		headers: rapid.SampledFrom([][]Header{xff, fwd, both}).Draw(t, "headers"),
		peer:    rapid.SampledFrom([]string{proxy, proxy, proxy, "[::ffff:10.0.0.1]:80", "[2001:db8:ff::1%eth0]:80", "198.51.100.9:5000"}).Draw(t, "peer"),
	}
	for _, h := range q.headers {
		for range rapid.IntRange(0, 3).Draw(t, "lines") {
			hops := rapid.SliceOfN(rapid.SampledFrom(someHops[h]), 0, 4).Draw(t, "hops")
			q.lines = append(q.lines, h.String()+": "+strings.Join(hops, rapid.SampledFrom([]string{",", ", ", "\t, "}).Draw(t, "comma")))
		}
	}
	return q
})

func TestEdgeIsLikeItsModel(t *testing.T) {
	edges := map[int]func(*http.Request) (netip.Addr, error){}
	for i, headers := range [][]Header{xff, fwd, both} {
		edges[i] = mustEdge(t, proxies, headers...)
	}
	rapid.Check(t, func(t *rapid.T) {
		q := edgeRequests.Draw(t, "request")
		i := slices.IndexFunc([][]Header{xff, fwd, both}, func(h []Header) bool { return slices.Equal(h, q.headers) })
		addr, _ := edges[i](request(q.peer, q.lines...))
		require.Equal(t, modelEdge(proxies, q.headers, request(q.peer, q.lines...), noFault), addr)
	})
}

// Each of these edges makes one mistake; the attacks above and the comparison must
// notice it.
func TestFaultyEdgesAreFound(t *testing.T) {
	type answered struct {
		headers []Header
		request *http.Request
		got     netip.Addr
	}
	var drawn []answered
	for i := range 2000 {
		q := edgeRequests.Example(i)
		r := request(q.peer, q.lines...)
		got, _ := mustEdge(t, proxies, q.headers...)(r)
		drawn = append(drawn, answered{q.headers, r, got})
	}
	for _, f := range []fault{
		noFault, leftmost, firstLine, lastLine, skipsBad, trustsAll, oneHop, keepsHops, proxyIfAbsent, firstAgrees, leftQuotes,
	} {
		byTable, byRandom := 0, 0
		for _, tt := range edgeCases {
			// The model reads fewer spellings of Forwarded than the edge.
			sound := modelEdge(proxies, tt.headers, request(tt.peer, tt.lines...), noFault)
			if addr := modelEdge(proxies, tt.headers, request(tt.peer, tt.lines...), f); addr != sound {
				byTable++
			}
			if sound.IsValid() {
				require.Equal(t, tt.want, sound.String(), tt.name)
			}
		}
		for _, q := range drawn {
			if q.got != modelEdge(proxies, q.headers, q.request, f) {
				byRandom++
			}
		}
		t.Logf("%-60s %3d of the table, %4d of the random ones", f, byTable, byRandom)
		require.Equal(t, f == noFault, byTable == 0, string(f))
		require.Equal(t, f == noFault, byRandom == 0, string(f))
	}
}

func TestEdgeAllocatesNothing(t *testing.T) {
	for _, r := range []*http.Request{
		request(proxy, "X-Forwarded-For: "+office+", 198.51.100.9:80, [2001:db8:ff::1]:80, 10.0.0.2"),
		request(proxy, `Forwarded: for="[2001:db8::9]:80";proto=https, for=10.0.0.2`),
		request("198.51.100.9:5000"),
	} {
		client := mustEdge(t, proxies, XForwardedFor, Forwarded)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if _, err := client(r); err != nil {
				t.Fatal(err)
			}
		}))
	}
}

func FuzzEdge(f *testing.F) {
	for _, tt := range edgeCases {
		if len(tt.lines) > 0 {
			f.Add(tt.peer == proxy, len(tt.headers) == 1 && tt.headers[0] == Forwarded, strings.Join(tt.lines, "\n"))
		}
	}
	f.Fuzz(func(t *testing.T, fromProxy, forwarded bool, text string) {
		h := XForwardedFor
		if forwarded {
			h = Forwarded
		}
		peer := "198.51.100.9:5000"
		if fromProxy {
			peer = proxy
		}
		r := request(peer)
		for line := range strings.SplitSeq(text, "\n") {
			r.Header.Add(h.String(), strings.TrimPrefix(line, h.String()+": "))
		}
		client := mustEdge(t, proxies, h)
		addr, err := client(r)
		if err != nil {
			require.Zero(t, addr)
			return
		}
		require.True(t, addr.IsValid() && !addr.Is4In6() && addr.Zone() == "" && !addr.IsUnspecified(), addr)
		if !fromProxy {
			require.Equal(t, evil, addr.String())
			return
		}
		// Nothing that a client sends before what the proxies append changes the answer,
		// once a client was found.
		if !modelContains(proxies, addr) {
			r.Header[h.String()][0] = `for=203.0.113.7;x=", ` + r.Header[h.String()][0]
			again, err := client(r)
			require.NoError(t, err)
			require.Equal(t, addr, again)
		}
	})
}
