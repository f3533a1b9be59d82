package ipfilter

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// The slow models: what the documentation says, one rule after the other, without
// tables, compiling or early ends. Tests compare the real code with them.

// fault is one mistake that a model can be told to make, to show that the
// comparison finds it.
type fault string

const (
	noFault fault = ""

	// in rules
	keepsMapped        fault = "does not unmap addresses"
	keepsZones         fault = "does not drop zones"
	allowsUnknown      fault = "allows unknown addresses where nothing is restricted"
	forgetsCompanyDeny fault = "a person's allow list overrides the company's deny list"
	forgetsRoleDeny    fault = "deny lists of roles do not hold"
	forgetsPersonDeny  fault = "deny lists of persons do not hold"
	anyRole            fault = "one of the roles' allow lists is enough"
	firstRole          fault = "only the first role counts"
	addsUp             fault = "allow lists of all levels add up"
	rolesOverPerson    fault = "roles replace the person's list"
	companyAlways      fault = "the company's allow list holds always"

	// at the edge
	leftmost      fault = "takes the leftmost address"
	firstLine     fault = "reads the first line only"
	lastLine      fault = "reads the last line only"
	skipsBad      fault = "skips hops that it cannot read"
	trustsAll     fault = "reads headers of everybody"
	oneHop        fault = "takes the rightmost address, whoever it is"
	keepsHops     fault = "does not unmap hops"
	proxyIfAbsent fault = "takes the proxy for the client, if there is no header"
	firstAgrees   fault = "does not compare two headers"
	leftQuotes    fault = "matches quotes from the left"
)

func modelContains(set []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(set, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// modelCode returns the code of the refusal, or "".
func modelCode(r Rules, raw netip.Addr, person string, roles []string, f fault) string {
	addr := raw
	if f != keepsMapped {
		addr = addr.Unmap()
	}
	if f != keepsZones {
		addr = addr.WithZone("")
	}
	unknown := !addr.IsValid() || addr.IsUnspecified()
	if unknown && f != allowsUnknown {
		return CodeNoAddress
	}
	own := r.People[person]
	if modelContains(r.Company.Deny, addr) && (f != forgetsCompanyDeny || !modelContains(own.Allow, addr)) {
		return CodeCompanyDenied
	}
	if modelContains(own.Deny, addr) && f != forgetsPersonDeny {
		return CodePersonDenied
	}
	if f == firstRole {
		roles = roles[:min(1, len(roles))]
	}
	listed, missing := 0, 0
	for _, name := range roles {
		role := r.Roles[name]
		if modelContains(role.Deny, addr) && f != forgetsRoleDeny {
			return CodeRoleDenied
		}
		if role.Allow != nil {
			listed++
			if !modelContains(role.Allow, addr) {
				missing++
			}
		}
	}
	roleYes := listed > 0 && (missing == 0 || f == anyRole && missing < listed)
	companyYes := modelContains(r.Company.Allow, addr)
	ownYes := modelContains(own.Allow, addr)
	if f == addsUp && (roleYes || companyYes || ownYes) {
		return ""
	}
	if f == companyAlways && r.Company.Allow != nil && !companyYes {
		return CodeCompanyUnlisted
	}
	if own.Allow != nil && (f != rolesOverPerson || listed == 0) {
		return unless(ownYes, CodePersonUnlisted)
	}
	if listed > 0 {
		return unless(roleYes, CodeRoleUnlisted)
	}
	if r.Company.Allow != nil {
		return unless(companyYes, CodeCompanyUnlisted)
	}
	return ""
}

func unless(yes bool, code string) string {
	if yes {
		return ""
	}
	return code
}

// modelEdge returns the client, or the zero address if it cannot be told.
func modelEdge(trusted []netip.Prefix, headers []Header, r *http.Request, f fault) netip.Addr {
	peer := netip.MustParseAddrPort(r.RemoteAddr).Addr().Unmap().WithZone("")
	if !modelContains(trusted, peer) && f != trustsAll {
		return peer
	}
	var clients []netip.Addr
	for _, h := range headers {
		lines := r.Header.Values(h.String())
		switch {
		case len(lines) == 0:
			continue
		case f == firstLine:
			lines = lines[:1]
		case f == lastLine:
			lines = lines[len(lines)-1:]
		}
		var hops []string
		for _, line := range lines {
			hops = append(hops, modelSplit(h, line, f)...)
		}
		clients = append(clients, modelWalk(trusted, h, hops, f))
	}
	switch {
	case len(clients) == 0 && f == proxyIfAbsent:
		return peer
	case len(clients) == 0:
		return netip.Addr{}
	case len(clients) == 2 && clients[0] != clients[1] && f != firstAgrees:
		return netip.Addr{}
	}
	return clients[0]
}

func modelWalk(trusted []netip.Prefix, h Header, hops []string, f fault) netip.Addr {
	slices.Reverse(hops)
	if f == leftmost {
		hops = hops[len(hops)-1:]
	}
	var client netip.Addr
	for _, hop := range hops {
		addr := modelHop(h, hop)
		if !addr.IsValid() && f == skipsBad {
			continue
		}
		if !addr.IsValid() {
			return addr
		}
		if f != keepsHops {
			addr = addr.Unmap()
		}
		client = addr.WithZone("")
		if client.IsUnspecified() || client.IsMulticast() {
			return netip.Addr{}
		}
		if f == oneHop || !modelContains(trusted, client) {
			break
		}
	}
	return client
}

// modelSplit splits a line at commas; those in quotes do not count in Forwarded.
func modelSplit(h Header, line string, f fault) []string {
	if h == XForwardedFor {
		return strings.Split(line, ",")
	}
	quotes := func(from, to int) (n int) { // those that are not escaped
		for i := from; i < to; i++ {
			before := line[:i]
			if line[i] == '"' && (len(before)-len(strings.TrimRight(before, `\`)))%2 == 0 {
				n++
			}
		}
		return n
	}
	var hops []string
	from := 0
	for i := range len(line) {
		outside := quotes(i, len(line))%2 == 0
		if f == leftQuotes {
			outside = quotes(0, i)%2 == 0
		}
		if line[i] == ',' && outside {
			hops = append(hops, line[from:i])
			from = i + 1
		}
	}
	return append(hops, line[from:])
}

// modelHop knows the spellings that the generators write, and no others.
func modelHop(h Header, hop string) netip.Addr {
	hop = strings.Trim(hop, " \t")
	if h == Forwarded {
		node, ok := strings.CutPrefix(hop, "for=")
		if !ok {
			return netip.Addr{}
		}
		if addr, err := netip.ParseAddr(node); err == nil && addr.Is4() {
			return addr
		}
		node, ok = strings.CutPrefix(node, `"`)
		node, closed := strings.CutSuffix(node, `"`)
		if !ok || !closed {
			return netip.Addr{}
		}
		hop = node
		if addr, err := netip.ParseAddr(hop); err == nil && addr.Is6() {
			return netip.Addr{} // without brackets
		}
	}
	if ap, err := netip.ParseAddrPort(hop); err == nil {
		return ap.Addr()
	}
	inner, opened := strings.CutPrefix(hop, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	addr, err := netip.ParseAddr(inner)
	if err != nil || opened != closed || opened && addr.Is4() {
		return netip.Addr{}
	}
	return addr
}
