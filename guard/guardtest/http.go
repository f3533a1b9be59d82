package guardtest

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// httpCase is one duty of adapters for HTTP.
type httpCase struct {
	name, rule string
	check      func(t testing.TB, start Start) error
}

// server is a host under an adapter.
type server struct {
	*host
	t    testing.TB
	addr string
}

func httpCases() []httpCase {
	on := func(check func(s server) error) func(testing.TB, Start) error {
		return func(t testing.TB, start Start) error {
			h, routes, err := newHost()
			if err != nil {
				return err
			}
			return check(server{h, t, start(t, h.guard, routes)})
		}
	}
	return []httpCase{
		{"headers", "what guard sends arrives: no-store, the type of a problem, the challenge, nosniff", on(checkHeaders)},
		{"HEAD", "HEAD is decided and recorded like GET and has no body", on(checkHead)},
		{"page", "a browser gets guard.Options.Page", on(checkPage)},
		{"unknown route", "a route that nobody mounted runs no handler and is not journalled", on(checkUnknown)},
		{"path escapes", "a handler runs for the record that the decoded path names, or not at all", on(checkEscapes)},
		{"cookies", "the session's cookie is sent with all its attributes", on(checkCookies)},
		{"two cookies", "of two session cookies the first counts, as in net/http", on(checkTwoCookies)},
		{"header lines", "all lines of a header arrive, in order, under the canonical name", on(checkLines)},
		{"trailers", "what comes after the body is no header for the edge", on(checkTrailers)},
		{"address", "the address is that of the connection", on(checkAddress)},
		{"host", "Host is what net/http makes of the request", on(checkHostName)},
		{"malformed", "what net/http refuses as malformed is refused", on(checkMalformed)},
		{"one connection", "of a request nothing is left for the next one on its connection", on(checkOneConnection)},
	}
}

// crm is the Host header of the suite's requests.
const crm = "Host: crm.example"

func cookie(person string) string { return "Cookie: " + cookieName + "=" + person + "-token" }

// one sends one request on a connection of its own.
func (s server) one(method, target string, header ...string) (*http.Response, Answer, error) {
	l, err := dial(s.t, s.addr)
	if err != nil {
		return nil, Answer{}, err
	}
	return l.send(method, target, append([]string{crm}, header...)...)
}

func checkHeaders(s server) error {
	var errs []error
	for _, c := range []struct {
		target, cookie string
		status         int
		want           map[string]string
	}{
		{"/contacts/1", cookie("anna"), 200, map[string]string{"Cache-Control": "no-store"}},
		{"/contacts/9", cookie("anna"), 404, map[string]string{
			"Cache-Control": "no-store", "Content-Type": "application/problem+json", "X-Content-Type-Options": "nosniff",
		}},
		{"/contacts/1", "Accept: */*", 401, map[string]string{"Cache-Control": "no-store", "Www-Authenticate": `Session realm="crm"`}},
		{"/contacts/norm", cookie("anna"), 429, map[string]string{"Cache-Control": "no-store", "Retry-After": "90"}},
	} {
		resp, a, err := s.one("GET", c.target, c.cookie)
		if err != nil {
			return err
		}
		if a.Status != c.status {
			errs = append(errs, fmt.Errorf("%s: status %d, expected %d", c.target, a.Status, c.status))
		}
		for name, want := range c.want {
			if got := resp.Header.Values(name); !slices.Equal(got, []string{want}) {
				errs = append(errs, fmt.Errorf("%s %d: header %s is %q, expected once %q", c.target, a.Status, name, got, want))
			}
		}
	}
	return errors.Join(errs...)
}

func checkHead(s server) error {
	for target, status := range map[string]int{"/contacts/1": 200, "/contacts/2": 404} {
		l, err := dial(s.t, s.addr)
		if err != nil {
			return err
		}
		resp, _, err := l.send("HEAD", target, crm, cookie("anna"))
		if err != nil {
			return err
		}
		if resp.StatusCode != status || resp.Header.Get("Cache-Control") != "no-store" {
			return fmt.Errorf("%s: %d %v", target, resp.StatusCode, resp.Header)
		}
		// A body would be read as the next answer.
		if _, a, err := l.send("HEAD", "/contacts/1", crm, cookie("anna")); err != nil || a.Status != 200 {
			return fmt.Errorf("the answer to HEAD has a body: then %d %w", a.Status, err)
		}
	}
	want := map[string]int{"anna view contacts/1 done ": 3, "anna view contacts/2 denied rights:no-rule": 1}
	return s.checkJournal(want)
}

// checkJournal counts entries.
func (s server) checkJournal(want map[string]int) error {
	n := 0
	for _, times := range want {
		n += times
	}
	got := map[string]int{}
	journal := s.settled(n)
	for _, e := range journal {
		got[e]++
	}
	if len(journal) != n {
		return fmt.Errorf("the journal is %q, expected %v", journal, want)
	}
	for e, times := range want {
		if got[e] != times {
			return fmt.Errorf("the journal is %q, expected %v", journal, want)
		}
	}
	return nil
}

func checkPage(s server) error {
	resp, a, err := s.one("GET", "/contacts/2", cookie("anna"), "Accept: text/html,*/*;q=0.8")
	if err != nil {
		return err
	}
	if a.Status != 404 || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.HasSuffix(a.Raw, "<h1>not-found</h1>") {
		return fmt.Errorf("the answer is %s", a.Raw)
	}
	return nil
}

func checkUnknown(s server) error {
	for _, target := range []string{"/", "/nothing", "/contacts", "/contacts/1/2/3"} {
		_, a, err := s.one("GET", target, cookie("anna"))
		if err != nil {
			return err
		}
		if a.Status != 404 || strings.Contains(a.Raw, secret) {
			return fmt.Errorf("%s: %s", target, a.Raw)
		}
	}
	return s.nothingRan()
}

func (s server) nothingRan() error {
	if ran, journal := s.sights(), s.short(); len(ran) > 0 || len(journal) > 0 {
		return fmt.Errorf("handlers ran: %+v; the journal is %q", ran, journal)
	}
	return nil
}

func checkEscapes(s server) error {
	var errs []error
	for _, c := range []struct {
		target string
		id     string // the record that the path names, if there is one that anna may see
	}{
		{"/contacts/1", "1"},
		{"/contacts/%31", "1"},
		{"/contacts/of%2Danna", "of-anna"},
		{"/contacts/%32", ""},
		{"/contacts/1%2Fphone", ""},
		{"/contacts/2%2F..%2F1", ""},
		{"/contacts/1%20", ""},
		{"/contacts/1%00", ""},
		{"/contacts/%2531", ""},
	} {
		before := len(s.sights())
		_, a, err := s.one("GET", c.target, cookie("anna"))
		if err != nil {
			return err
		}
		ran := s.sights()[before:]
		switch {
		case len(ran) == 0 && a.Status >= 400 && a.Status < 500: // a framework may leave escapes as they are
			if c.target == "/contacts/1" {
				errs = append(errs, fmt.Errorf("%s: %s", c.target, a.Raw))
			}
		case len(ran) != 1 || a.Status != 200 || c.id == "" || ran[0].id != c.id || ran[0].act == nil || ran[0].act.Resource.ID != c.id:
			errs = append(errs, fmt.Errorf("%s: the handler ran for something else than %q: %+v %s", c.target, c.id, ran, a.Raw))
		}
	}
	return errors.Join(errs...)
}

func checkCookies(s server) error {
	for _, c := range []struct{ target, want string }{
		{"/sign-in/anna", cookieName + "=anna-token; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"/sign-out/anna", cookieName + "=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"},
	} {
		resp, a, err := s.one("POST", c.target, "Content-Length: 0")
		if err != nil {
			return err
		}
		if got := resp.Header.Values("Set-Cookie"); a.Status != 200 || !slices.Equal(got, []string{c.want}) {
			return fmt.Errorf("%s: %d, Set-Cookie is %q, expected %q", c.target, a.Status, got, c.want)
		}
	}
	return nil
}

func checkTwoCookies(s server) error {
	for _, header := range [][]string{
		{cookie("anna"), cookie("boris")},
		{cookie("anna") + "; " + cookieName + "=boris-token"},
		{"Cookie: a=1; " + cookieName + "=anna-token; b=2", cookie("boris")},
	} {
		_, a, err := s.one("GET", "/contacts/1", header...)
		if err != nil {
			return err
		}
		ran := s.sights()
		if a.Status != 200 || len(ran) == 0 || ran[len(ran)-1].subject.ID != "anna" {
			return fmt.Errorf("%q: %s", header, a.Raw)
		}
	}
	return nil
}

func checkLines(s server) error {
	for _, c := range []struct {
		header []string
		want   []string
	}{
		{[]string{"X-Forwarded-For: 198.51.100.1", "x-forwarded-for: 203.0.113.7"}, []string{"198.51.100.1", "203.0.113.7"}},
		{[]string{"x-FORWARDED-for:203.0.113.7  "}, []string{"203.0.113.7"}},
		{[]string{"X-Forwarded-For: 203.0.113.7", "X_Forwarded_For: 192.0.2.66", "Forwarded: for=192.0.2.66", "X-Real-Ip: 192.0.2.66"}, []string{"203.0.113.7"}},
	} {
		_, a, err := s.one("GET", "/contacts/1", append(c.header, cookie("anna"))...)
		if err != nil {
			return err
		}
		if got := s.lastEdge().forwarded; a.Status != 200 || !slices.Equal(got, c.want) {
			return fmt.Errorf("%q: %d, the edge saw %q, expected %q", c.header, a.Status, got, c.want)
		}
		if got := s.lastAddress(); got != "203.0.113.7" {
			return fmt.Errorf("%q: the journal has the address %s", c.header, got)
		}
	}
	return nil
}

func checkTrailers(s server) error {
	for _, want := range [][]string{nil, {"for=203.0.113.7"}} {
		request := []string{cookie("anna"), "Transfer-Encoding: chunked"}
		for _, line := range want {
			request = append(request, "Forwarded: "+line)
		}
		_, a, err := s.one("POST", "/update/1", append(request, "", "1", "x", "0", "Forwarded: for=192.0.2.66", "Forwarded: for=192.0.2.67")...)
		if err != nil {
			return err
		}
		got := s.lastEdge().header.Values("Forwarded")
		if refused := a.Status >= 400 && a.Status < 500; !refused && (a.Status != 200 || !slices.Equal(got, want)) {
			return fmt.Errorf("%d, the edge saw %q, expected %q", a.Status, got, want)
		}
	}
	return nil
}

func checkAddress(s server) error {
	l, err := dial(s.t, s.addr)
	if err != nil {
		return err
	}
	_, a, err := l.send("GET", "/contacts/1", crm, cookie("anna"), "X-Real-IP: 192.0.2.66", "True-Client-IP: 192.0.2.66")
	if err != nil {
		return err
	}
	want := l.conn.LocalAddr().String()
	if got := s.lastEdge(); a.Status != 200 || got.remote != want || got.method != "GET" || got.path != "/contacts/1" {
		return fmt.Errorf("%d, the edge saw %s %s from %s, expected from %s", a.Status, got.method, got.path, got.remote, want)
	}
	host, _, err := net.SplitHostPort(want)
	if got := s.lastAddress(); err != nil || got != host {
		return fmt.Errorf("the journal has the address %s", got)
	}
	return nil
}

// lastAddress is the address in the last entry of the journal.
func (s server) lastAddress() string {
	events := s.journal.Events()
	if len(events) == 0 {
		return "of nobody"
	}
	return events[len(events)-1].Subject.Addr.String()
}

func checkHostName(s server) error {
	for _, c := range []struct{ target, host string }{
		{"/contacts/1", "crm.example"},
		{"http://evil.example/contacts/1", "evil.example"}, // RFC 9112 3.2.2: the target counts
	} {
		_, a, err := s.one("GET", c.target, cookie("anna"))
		if err != nil {
			return err
		}
		if got := s.lastEdge(); a.Status != 200 || got.host != c.host || got.path != "/contacts/1" || got.header.Get("Host") != "" {
			return fmt.Errorf("%s: %d, the edge saw host %q, path %q, header Host %q", c.target, a.Status, got.host, got.path, got.header.Get("Host"))
		}
	}
	return nil
}

func checkMalformed(s server) error {
	var errs []error
	for _, header := range [][]string{
		{"X-Forwarded-For : 192.0.2.66"},
		{"X Forwarded For: 192.0.2.66"},
		{"Host: evil.example"}, // a second one
		{"Cookie : " + cookieName + "=boris-token"},
		{": nothing"},
		{"no colon"},
		{"X-Forwarded-For: 192.0.2.66\x00"},
	} {
		_, a, err := s.one("GET", "/contacts/1", append(header, cookie("anna"))...)
		if err == nil && (a.Status < 400 || a.Status >= 500) { // closing the connection is a refusal too
			errs = append(errs, fmt.Errorf("%q: %s", header, a.Raw))
		}
	}
	l, err := dial(s.t, s.addr)
	if err != nil {
		return err
	}
	_, a, err := l.send("GET", "/contacts/1", cookie("anna"))
	if err == nil && (a.Status < 400 || a.Status >= 500) {
		errs = append(errs, fmt.Errorf("without Host: %s", a.Raw))
	}
	return errors.Join(append(errs, s.nothingRan())...)
}

func checkOneConnection(s server) error {
	l, err := dial(s.t, s.addr)
	if err != nil {
		return err
	}
	for i, c := range []struct {
		target string
		header []string
		status int
	}{
		{"/contacts/of-anna", []string{cookie("anna"), "X-Forwarded-For: 203.0.113.7"}, 200},
		{"/contacts/of-anna", nil, 401},
		{"/contacts/of-boris", []string{cookie("boris")}, 200},
		{"/contacts/of-anna", []string{cookie("boris")}, 404},
	} {
		_, a, err := l.send("GET", c.target, append([]string{crm}, c.header...)...)
		if err != nil {
			return err
		}
		if a.Status != c.status {
			return fmt.Errorf("request %d was answered %d, expected %d", i+1, a.Status, c.status)
		}
	}
	return s.checkJournal(map[string]int{
		"anna view contacts/of-anna done ":                  1,
		"boris view contacts/of-boris done ":                1,
		"boris view contacts/of-anna denied rights:no-rule": 1,
	})
}
