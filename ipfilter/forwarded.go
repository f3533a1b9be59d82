package ipfilter

import (
	"net/netip"
	"strings"
)

// previousForwarded splits the rightmost element off a line of the header
// Forwarded (RFC 7239 section 4). Quotes are matched from the right too: a quote
// that the client left open then cannot swallow what a proxy has written behind it.
func previousForwarded(line string) (rest string, hop netip.Addr, more bool, reason string) {
	quoted := false
	element := line
	for i := len(line) - 1; i >= 0 && !more; i-- {
		switch {
		case line[i] == '"' && !escaped(line, i):
			quoted = !quoted
		case line[i] == ',' && !quoted:
			rest, element, more = line[:i], line[i+1:], true
		}
	}
	if quoted {
		return "", netip.Addr{}, false, "is malformed"
	}
	hop, reason = parseElement(strings.Trim(element, " \t"))
	return rest, hop, more, reason
}

// escaped reports whether an odd number of backslashes stands before line[i].
func escaped(line string, i int) bool {
	n := 0
	for n < i && line[i-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// parseElement returns the address of the parameter "for", which must be there
// exactly once. Empty pairs are allowed, spaces between pairs are not.
func parseElement(element string) (netip.Addr, string) {
	var node string
	seen := false
	for element != "" {
		if element[0] == ';' {
			element = element[1:]
			continue
		}
		name, value, rest, ok := cutPair(element)
		if !ok || rest != "" && rest[0] != ';' {
			return netip.Addr{}, "is malformed"
		}
		if strings.EqualFold(name, "for") {
			if seen {
				return netip.Addr{}, "names two clients"
			}
			node, seen = value, true
		}
		element = rest
	}
	if !seen {
		return netip.Addr{}, "names no client"
	}
	return parseNode(node)
}

// cutPair reads token "=" (token | quoted-string) from the start of text. Escapes
// stay in the value: no address needs one.
func cutPair(text string) (name, value, rest string, ok bool) {
	n := tokenLen(text)
	if n == 0 || n == len(text) || text[n] != '=' {
		return "", "", "", false
	}
	name, text = text[:n], text[n+1:]
	if quoted, ok := strings.CutPrefix(text, `"`); ok {
		return cutQuoted(name, quoted)
	}
	n = tokenLen(text)
	return name, text[:n], text[n:], n > 0
}

func cutQuoted(name, text string) (_, value, rest string, ok bool) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return name, text[:i], text[i+1:], true
		case c == '\\':
			i++
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", "", "", false
		}
	}
	return "", "", "", false
}

// tokenLen returns how many bytes of text, from its start, are tchar (RFC 9110
// section 5.6.2).
func tokenLen(text string) int {
	for i, c := range []byte(text) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return i
		}
	}
	return len(text)
}

// parseNode reads a node of RFC 7239 section 6. IPv6 stands in brackets there; what
// is unknown or hidden is no address.
func parseNode(node string) (netip.Addr, string) {
	host, port := node, ""
	if i := strings.LastIndexByte(node, ':'); i >= 0 && !strings.HasSuffix(node, "]") {
		host, port = node[:i], node[i:]
	}
	if strings.EqualFold(host, "unknown") || strings.HasPrefix(host, "_") {
		return netip.Addr{}, "is unknown or hidden"
	}
	hidden := len(port) > 2 && strings.HasPrefix(port, ":_") && tokenLen(port[1:]) == len(port)-1
	if port != "" && !hidden && !isPort(port) {
		return netip.Addr{}, "is malformed"
	}
	inner, bracket := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	addr, err := netip.ParseAddr(inner)
	if err != nil || bracket != closed || bracket != addr.Is6() {
		return netip.Addr{}, "is malformed"
	}
	return usable(addr)
}
