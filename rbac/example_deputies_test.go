package rbac_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// Anna is away for two weeks, and names Boris her deputy.
func ExampleEngine_Deputize() {
	now := time.Date(2026, 7, 1, 9, 0, 0, 0, time.UTC)
	rights, err := rbac.FromPolicy(context.Background(), rbac.Policy{
		Rules: []rbac.Rule{{Subject: "role:seller", Tenant: "acme", Object: "contacts", Action: crmguard.View, Scope: rbac.Own}},
		Links: []rbac.Link{
			{Subject: "u:anna", Role: "role:seller", Tenant: "acme"},
			{Subject: "u:boris", Role: "role:seller", Tenant: "acme"},
		},
	}, &rbac.Options{Clock: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	anna := crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}
	boris := crmguard.Subject{Tenant: "acme", ID: "boris", Kind: crmguard.KindEmployee}
	card := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17", Owner: "anna"}
	ctx := crmguard.WithSubject(context.Background(), anna)
	fmt.Println(rights.Check(ctx, boris, crmguard.View, card))
	fmt.Println(rights.Deputize(ctx, "acme", "boris", "anna", now, now.AddDate(0, 0, 14)))
	why, err := rights.Explain(ctx, boris, crmguard.View, card)
	fmt.Print(why)
	fmt.Println(err)
	now = now.AddDate(0, 0, 14)
	fmt.Println(rights.Check(ctx, boris, crmguard.View, card))
	// Output:
	// crmguard: denied by rbac: no-rule
	// <nil>
	// u:boris may view contacts 17 of acme
	//   u:boris has the relation none: anna is responsible for it, and it belongs to no department
	//   as deputy of u:anna until 2026-07-15T09:00:00Z has the relation own or own+shared: responsible for it; it is not known what is shared with this person
	//     allowed by p, role:seller, acme, contacts, view, own, allow (Rules[0]), through u:anna → role:seller
	// <nil>
	// crmguard: denied by rbac: no-rule
}
