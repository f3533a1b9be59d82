package quota_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/quota"
)

func Example() {
	zone, err := quota.OneZone("Europe/Moscow") // hosts with tenants in several zones write a quota.Zone
	if err != nil {
		fmt.Println(err)
		return
	}
	norms, err := quota.New(quota.NewMemory(), zone, []quota.Norm{
		{Action: crmguard.View, Kind: "contacts", Soft: 1, Hard: 2},
	}, &quota.Options{
		Alert: func(_ context.Context, a quota.Alert) error {
			fmt.Println("alert:", a.Person, "has passed the", a.Level, "norm, card", a.Count)
			return nil // a host records a.Event() in the journal
		},
		Clock: func() time.Time { return time.Date(2026, 3, 2, 21, 0, 0, 0, time.UTC) }, // midnight in Moscow
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	// What encrypt does, handed norms.OnOpen as an option, before it decrypts.
	ctx := crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
	ctx = crmguard.WithAct(ctx, crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts"})
	for _, client := range []string{"c1", "c2", "c1", "c3", "c2"} {
		err := norms.OnOpen(ctx, "acme", []string{client})
		if denial, ok := errors.AsType[*crmguard.Denial](err); ok {
			fmt.Println(client, "is refused, for", denial.RetryAfter)
			continue
		}
		fmt.Println(client, "is open", err)
	}
	// Output:
	// c1 is open <nil>
	// alert: anna has passed the soft norm, card 2
	// c2 is open <nil>
	// c1 is open <nil>
	// alert: anna has passed the hard norm, card 3
	// c3 is refused, for 24h0m0s
	// c2 is open <nil>
}

func ExampleQuota_Usage() {
	zone, err := quota.OneZone("Europe/Moscow")
	if err != nil {
		fmt.Println(err)
		return
	}
	norms, err := quota.New(quota.NewMemory(), zone, []quota.Norm{
		{Action: crmguard.View, Kind: "contacts", Soft: 40, Hard: 50},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
	if err := norms.OnOpen(ctx, "acme", []string{"c1", "c2", "c3"}); err != nil { // no act: counts as reveal
		fmt.Println(err)
		return
	}
	usage, err := norms.Usage(ctx, "acme", "anna")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range usage.Norms {
		fmt.Println(n.Count, "of", n.Norm.Hard, n.Norm.Kind, "today")
	}
	// Output: 3 of 50 contacts today
}

func ExampleQuota_Check() {
	zone, err := quota.OneZone("Europe/Moscow")
	if err != nil {
		fmt.Println(err)
		return
	}
	norms, err := quota.New(quota.NewMemory(), zone, []quota.Norm{
		{Action: crmguard.Search, Kind: "contacts", Of: quota.Queries, Hard: 2},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	anna := crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}
	for range 3 {
		fmt.Println(norms.Check(context.Background(), anna, crmguard.Search, crmguard.Resource{Tenant: "acme", Kind: "contacts"}))
	}
	// Output:
	// <nil>
	// <nil>
	// crmguard: denied by quota: norm
}

func ExampleQuota_CountRefusal() {
	zone, err := quota.OneZone("Europe/Moscow")
	if err != nil {
		fmt.Println(err)
		return
	}
	norms, err := quota.New(quota.NewMemory(), zone, []quota.Norm{{Action: crmguard.View, Kind: "contacts", Hard: 50}, {Of: quota.Attempts, Hard: 20}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	anna := crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}
	for range 20 { // she asks for one card after the other, none of which is hers
		if err := norms.CountRefusal(context.Background(), anna); err != nil { // guard does this with Options.Norms
			fmt.Println(err)
		}
	}
	fmt.Println(norms.OnOpen(crmguard.WithSubject(context.Background(), anna), "acme", []string{"her own"}))
	// Output: crmguard: denied by quota: attempts
}

func ExampleQuota_OpenOrRefund() {
	zone, err := quota.OneZone("Europe/Moscow")
	if err != nil {
		fmt.Println(err)
		return
	}
	norms, err := quota.New(quota.NewMemory(), zone, []quota.Norm{
		{Action: crmguard.View, Kind: "contacts", Hard: 50},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
	err = norms.OpenOrRefund(ctx, func(ctx context.Context) (opened bool, err error) {
		if err := norms.OnOpen(ctx, "acme", []string{"c1"}); err != nil { // in a host: open the row
			return false, err
		}
		return false, errors.New("the exchange does not answer") // the number was not used
	})
	usage, _ := norms.Usage(ctx, "acme", "anna")
	fmt.Println(err, usage.Norms[0].Count)
	// Output: the exchange does not answer 0
}
