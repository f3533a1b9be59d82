package ipfilter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// ParsePrefix reads what a person types into a list: 203.0.113.0/24, 2001:db8::/32,
// or one address without a length. An IPv4-mapped prefix becomes the IPv4 prefix
// that it stands for. A prefix with host bits, such as 203.0.113.7/24, is refused,
// because it does not tell whether the address or the network was meant, and so is
// a zone, because it means something on one machine only.
func ParsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		addr, addrErr := netip.ParseAddr(text)
		if addrErr != nil {
			return netip.Prefix{}, errors.New("ipfilter: neither an address nor a prefix such as 203.0.113.0/24")
		}
		if addr.Zone() != "" {
			return netip.Prefix{}, errors.New("ipfilter: an address with a zone")
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if p, err = barePrefix(p); err != nil {
		return netip.Prefix{}, fmt.Errorf("ipfilter: %w", err)
	}
	return p, nil
}

// bareAddr is the one form in which addresses are compared: tables know neither
// that ::ffff:192.0.2.1 is 192.0.2.1 nor what a zone is.
func bareAddr(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	return a.Unmap().WithZone("")
}

// barePrefix is bareAddr for prefixes. One that contains all IPv4-mapped addresses
// and more, such as ::/0, is about IPv6 only.
func barePrefix(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return netip.Prefix{}, errors.New("an invalid prefix")
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%v has bits behind its length: want %v or %v", p, p.Masked(), p.Addr())
	}
	return p, nil
}

// table makes a set of prefixes that are bare already; nil for none.
func table(prefixes []netip.Prefix) *bart.Lite {
	if len(prefixes) == 0 {
		return nil
	}
	t := &bart.Lite{}
	for _, p := range prefixes {
		t.Insert(p)
	}
	return t
}

// bareSet returns prefixes bare, sorted, each once.
func bareSet(prefixes []netip.Prefix) ([]netip.Prefix, error) {
	set := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		p, err := barePrefix(p)
		if err != nil {
			return nil, err
		}
		set = append(set, p)
	}
	slices.SortFunc(set, netip.Prefix.Compare)
	return slices.Compact(set), nil
}
