package ipfilter_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http/httptest"
	"net/netip"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/ipfilter"
)

// rights stands in for rbac.Engine, which knows the roles of a person.
type rights struct{}

func (rights) Resolve(_ context.Context, _, subject string) (roles, units []string, err error) {
	return map[string][]string{"anna": {"seller"}, "olga": {"owner"}}[subject], nil, nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func quiet() *ipfilter.Options {
	return &ipfilter.Options{Logger: slog.New(slog.DiscardHandler)}
}

func Example() {
	addrs, err := ipfilter.New(crmguardtest.NewKeys(), rights{}, quiet()) // keys: an encrypt.Keyring
	check(err)
	check(addrs.Load(context.Background(), "acme", nil)) // there are no rules yet

	// The owner, in the office, restricts the company to the office and lets sellers
	// in from the branch too.
	olga := crmguard.Subject{Tenant: "acme", ID: "olga", Kind: crmguard.KindEmployee, Addr: netip.MustParseAddr("203.0.113.7")}
	office, err := ipfilter.ParsePrefix("203.0.113.0/24")
	check(err)
	branch, err := ipfilter.ParsePrefix("192.0.2.0/25")
	check(err)
	next, err := addrs.Prepare(crmguard.WithSubject(context.Background(), olga), ipfilter.Rules{
		Company: ipfilter.List{Allow: []netip.Prefix{office}},
		Roles:   map[string]ipfilter.List{"seller": {Allow: []netip.Prefix{office, branch}}},
	}, []ipfilter.Owner{{ID: "olga"}}, nil)
	check(err)
	// Here the host stores next.JSON, and next.Policy() goes to the journal.
	check(addrs.Load(context.Background(), "acme", next.JSON))

	anna := crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}
	for _, from := range []string{"192.0.2.10", "198.51.100.9"} {
		anna.Addr = netip.MustParseAddr(from)
		err := addrs.Check(context.Background(), anna, crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17"})
		if denial, ok := errors.AsType[*crmguard.Denial](err); ok {
			fmt.Println(denial.Code)
			fmt.Println(denial.Detail)
			continue
		}
		fmt.Println(from, "is allowed")
	}
	// Output:
	// 192.0.2.10 is allowed
	// role-unlisted
	// 198.51.100.9 is in no prefix that role seller allows; rules 1
}

func ExampleEdge() {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}
	edge, err := ipfilter.Edge(proxies, ipfilter.XForwardedFor)
	check(err)

	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "10.0.0.1:41000"
	r.Header.Add("X-Forwarded-For", "203.0.113.7")  // the client's forgery
	r.Header.Add("X-Forwarded-For", "198.51.100.9") // what the proxy saw
	fmt.Println(edge(r))

	r.RemoteAddr = "198.51.100.9:5000" // past the proxy
	fmt.Println(edge(r))
	// Output:
	// 198.51.100.9 <nil>
	// 198.51.100.9 <nil>
}

func ExampleFilter_Prepare() {
	addrs, err := ipfilter.New(crmguardtest.NewKeys(), rights{}, quiet())
	check(err)
	check(addrs.Load(context.Background(), "acme", nil))

	olga := crmguard.Subject{Tenant: "acme", ID: "olga", Kind: crmguard.KindEmployee, Addr: netip.MustParseAddr("198.51.100.9")}
	ctx := crmguard.WithSubject(context.Background(), olga)
	office := ipfilter.Rules{Company: ipfilter.List{Allow: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}}
	owners := []ipfilter.Owner{{ID: "olga"}, {ID: "oleg", Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.8")}}}

	_, err = addrs.Prepare(ctx, office, owners, nil)
	if lockout, ok := errors.AsType[*ipfilter.LockoutError](err); ok {
		fmt.Println(lockout)
	}
	next, err := addrs.Prepare(ctx, office, owners, &ipfilter.ChangeOptions{Force: true})
	check(err)
	fmt.Println(next.Version, next.Lockout != nil)
	// Output:
	// ipfilter: the change locks out: its author could not go on: 198.51.100.9 is in no prefix that the company allows; rules 1
	// 1 true
}

func ExampleFilter_Explain() {
	addrs, err := ipfilter.New(crmguardtest.NewKeys(), rights{}, quiet())
	check(err)
	check(addrs.Load(context.Background(), "acme", nil))

	// Why does Anna come in from there?
	anna := crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, Addr: netip.MustParseAddr("::ffff:198.51.100.9")}
	answer, err := addrs.Explain(context.Background(), anna)
	check(err)
	fmt.Println(answer.Allowed, answer)
	// Output: true 198.51.100.9: no list restricts it; rules 0
}

func ExampleParsePrefix() {
	for _, typed := range []string{"203.0.113.7", "::ffff:10.0.0.0/104", "203.0.113.7/24"} {
		fmt.Println(ipfilter.ParsePrefix(typed))
	}
	// Output:
	// 203.0.113.7/32 <nil>
	// 10.0.0.0/8 <nil>
	// invalid Prefix ipfilter: 203.0.113.7/24 has bits behind its length: want 203.0.113.0/24 or 203.0.113.7
}
