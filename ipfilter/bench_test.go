package ipfilter

import (
	"context"
	"net/netip"
	"testing"

	"github.com/gaissmai/bart"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// threeLevels has 10,000 prefixes in the lists of company, roles and people, IPv4
// and IPv6, nested and not, and three tenants to choose from.
func threeLevels() Rules {
	v6 := func(n, from int) []netip.Prefix {
		var out []netip.Prefix
		for i := from; i < from+n; i++ {
			addr := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 8), byte(i)})
			out = append(out, netip.PrefixFrom(addr, 48))
		}
		return out
	}
	rules := Rules{
		Company: List{Allow: append(manyPrefixes(1500, 0), v6(1500, 0)...), Deny: append(manyPrefixes(1000, 100_000), v6(500, 10_000)...)},
		Roles:   map[string]List{"seller": {Allow: manyPrefixes(1000, 0), Deny: manyPrefixes(1000, 200_000)}},
		People:  map[string]List{"anna": {Allow: append(manyPrefixes(1000, 0), set("203.0.113.0/24")...), Deny: manyPrefixes(499, 300_000)}},
	}
	for i, p := range manyPrefixes(2000, 400_000) {
		level := rules.People
		if i%2 == 0 {
			level = rules.Roles
		}
		level["x"+p.String()] = List{Allow: []netip.Prefix{p}}
	}
	return rules
}

// BenchmarkCheck: ours at most 1.5 times bare, the same map lookups and bare bart
// lookups in the order of the rules, without anything around them.
func BenchmarkCheck(b *testing.B) {
	f := inForce(b, threeLevels())
	for _, tenant := range []string{"other", "third"} {
		require.NoError(b, f.Load(context.Background(), tenant, nil))
	}
	bare := bareTables(f)
	ctx := context.Background()
	for _, tt := range []struct {
		name string
		s    crmguard.Subject
	}{
		{"person", person("anna", "203.0.113.7", "seller")}, // the list that decides
		{"role", person("boris", "10.0.0.7", "seller")},
		{"company", person("boris", "2001:db8:1::1", "clerk")},
	} {
		s := tt.s
		b.Run(tt.name+"/ours", func(b *testing.B) {
			var checker crmguard.Checker = f
			b.ReportAllocs()
			for b.Loop() {
				if err := checker.Check(ctx, s, crmguard.View, contact); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(tt.name+"/bare", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !bare.check(s.Tenant, s.ID, s.Roles, s.Addr) {
					b.Fatal("refused")
				}
			}
		})
	}
}

// BenchmarkRefusal: a no with its grounds.
func BenchmarkRefusal(b *testing.B) {
	f := inForce(b, threeLevels())
	s := person("boris", "10.1.134.170", "clerk")
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Check(context.Background(), s, crmguard.View, contact); err == nil {
			b.Fatal("allowed")
		}
	}
}

type (
	bareFilter map[string]*bareTenant
	bareTenant struct {
		company       bareLists
		roles, people map[string]bareLists
	}
	bareLists struct{ allow, deny *bart.Lite }
)

func bareTables(f *Filter) bareFilter {
	listsOf := func(l List) bareLists {
		out := bareLists{table(l.Allow), table(l.Deny)}
		if out.deny == nil {
			out.deny = &bart.Lite{}
		}
		return out
	}
	d, _ := f.InForce("acme")
	acme := &bareTenant{company: listsOf(d.Rules.Company), roles: map[string]bareLists{}, people: map[string]bareLists{}}
	for name, l := range d.Rules.Roles {
		acme.roles[name] = listsOf(l)
	}
	for name, l := range d.Rules.People {
		acme.people[name] = listsOf(l)
	}
	return bareFilter{"acme": acme, "other": {}, "third": {}}
}

func (f bareFilter) check(tenant, person string, roles []string, addr netip.Addr) bool {
	t := f[tenant]
	if t.company.deny.Contains(addr) {
		return false
	}
	own, personal := t.people[person]
	if personal && own.deny.Contains(addr) {
		return false
	}
	var byRole *bart.Lite
	for _, name := range roles {
		role, ok := t.roles[name]
		if ok && role.deny.Contains(addr) {
			return false
		}
		byRole = role.allow
	}
	switch {
	case own.allow != nil:
		return own.allow.Contains(addr)
	case byRole != nil:
		return byRole.Contains(addr)
	}
	return t.company.allow.Contains(addr)
}

// BenchmarkEdge: a client behind two proxies.
func BenchmarkEdge(b *testing.B) {
	r := request(proxy, "X-Forwarded-For: "+office+", "+evil+", 10.0.0.2")
	client := mustEdge(b, proxies, XForwardedFor)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client(r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLoad: a document of 10,000 prefixes, verified and compiled.
func BenchmarkLoad(b *testing.B) {
	f := inForce(b, threeLevels())
	d, _ := f.InForce("acme")
	b.ReportAllocs()
	for b.Loop() {
		if err := newFilter(b, f.keys, someStaff, nil).Load(context.Background(), "acme", d.JSON); err != nil {
			b.Fatal(err)
		}
	}
}
