package ipfilter

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gaissmai/bart"
)

// Header is a header in which proxies say for whom they ask.
type Header uint8

// The headers that can be chosen.
const (
	XForwardedFor Header = iota + 1 // addresses, each with or without port
	Forwarded                       // RFC 7239
)

// String returns the header's name.
func (h Header) String() string {
	switch h {
	case XForwardedFor:
		return "X-Forwarded-For"
	case Forwarded:
		return "Forwarded"
	}
	return fmt.Sprintf("Header(%d)", uint8(h))
}

// Edge returns a function that tells the address of a request's client, for
// guard.Options.Edge. It is that of the connection, unless the connection comes
// from a trusted proxy: then the header is read, all its lines, from right to left,
// and the first address that is not a trusted proxy is the client's. If all are
// trusted, it is the leftmost, for which a trusted proxy vouches too.
//
// Name the header that the proxies write, and no other: proxies hand on what
// they do not know, as the client forged it. With both headers named, those that
// are present must lead to the same address. List the proxies' own addresses, not
// networks that clients share with them.
//
// It fails for a trusted proxy that names no client, and for the first hop that is
// malformed, unknown or hidden; the guard then refuses the request. The result has
// no zone and is never an IPv4-mapped address. The request is not changed.
func Edge(trusted []netip.Prefix, headers ...Header) (func(r *http.Request) (netip.Addr, error), error) {
	set, err := bareSet(trusted)
	if err != nil {
		return nil, fmt.Errorf("ipfilter: trusted proxies: %w", err)
	}
	for _, p := range set {
		if p.Bits() == 0 {
			return nil, fmt.Errorf("ipfilter: trusting %v lets everybody choose an address", p)
		}
	}
	for i, h := range headers {
		if h != XForwardedFor && h != Forwarded || slices.Contains(headers[:i], h) {
			return nil, errors.New("ipfilter: want XForwardedFor, Forwarded or both, each once")
		}
	}
	if len(set) > 0 && len(headers) == 0 {
		return nil, errors.New("ipfilter: trusted proxies need a header that they write")
	}
	e := &edge{table(set), slices.Clone(headers)}
	return e.client, nil
}

type edge struct {
	trusted *bart.Lite // nil: nobody
	headers []Header
}

func (e *edge) client(r *http.Request) (netip.Addr, error) {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, errors.New("ipfilter: the connection has no address")
	}
	peer := bareAddr(ap.Addr())
	if e.trusted == nil || !e.trusted.Contains(peer) {
		return peer, nil
	}
	var found netip.Addr
	for _, h := range e.headers {
		addr, err := e.walk(h, r.Header[h.String()])
		if err != nil {
			return netip.Addr{}, err
		}
		if found.IsValid() && addr.IsValid() && addr != found {
			return netip.Addr{}, fmt.Errorf("ipfilter: %v and %v lead to different clients", e.headers[0], h)
		}
		if addr.IsValid() {
			found = addr
		}
	}
	if !found.IsValid() {
		return netip.Addr{}, errors.New("ipfilter: a trusted proxy does not say for whom it asks")
	}
	return found, nil
}

// walk follows one header from right to left. Its errors do not quote the header:
// it may be forged, and is personal in any case.
func (e *edge) walk(h Header, lines []string) (netip.Addr, error) {
	var client netip.Addr
	hops := 0
	for _, line := range slices.Backward(lines) {
		for more := true; more; {
			var reason string
			hops++
			line, client, more, reason = previousHop(h, line)
			if reason != "" {
				return netip.Addr{}, fmt.Errorf("ipfilter: %v: hop %d from the right %s", h, hops, reason)
			}
			if !e.trusted.Contains(client) {
				return client, nil
			}
		}
	}
	return client, nil
}

// previousHop splits the rightmost hop off a line. A reason means that it cannot
// be read.
func previousHop(h Header, line string) (rest string, hop netip.Addr, more bool, reason string) {
	if h == Forwarded {
		return previousForwarded(line)
	}
	last := line
	if i := strings.LastIndexByte(line, ','); i >= 0 {
		rest, last, more = line[:i], line[i+1:], true
	}
	hop, reason = parseHop(strings.Trim(last, " \t"))
	return rest, hop, more, reason
}

// parseHop reads an address in the forms that proxies write: 192.0.2.1,
// 192.0.2.1:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80.
func parseHop(text string) (netip.Addr, string) {
	if text == "" {
		return netip.Addr{}, "is empty"
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		host, port, closed := strings.Cut(inner, "]")
		addr, err := netip.ParseAddr(host)
		if !closed || err != nil || !addr.Is6() || port != "" && !isPort(port) {
			return netip.Addr{}, "is malformed"
		}
		return usable(addr)
	}
	host, port := text, ""
	if i := strings.IndexByte(text, ':'); i >= 0 && i == strings.LastIndexByte(text, ':') {
		host, port = text[:i], text[i:]
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || port != "" && !isPort(port) {
		return netip.Addr{}, "is malformed"
	}
	return usable(addr)
}

// isPort reports whether text is a colon and a number of 16 bits.
func isPort(text string) bool {
	digits, ok := strings.CutPrefix(text, ":")
	_, err := strconv.ParseUint(digits, 10, 16)
	return ok && err == nil
}

// usable refuses what no client has as its address.
func usable(addr netip.Addr) (netip.Addr, string) {
	addr = bareAddr(addr)
	if addr.IsUnspecified() || addr.IsMulticast() {
		return netip.Addr{}, "is no client's address"
	}
	return addr, ""
}
