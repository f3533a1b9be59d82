package rbac_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

func ExampleEngine_ReviewLeaver() {
	ctx := context.Background()
	// SELECT count(*) FROM contacts WHERE tenant = … AND owner = 'vera'
	owned := rbac.Records{Kind: "contacts", Owned: 412, Shared: 3}
	review, err := rights().ReviewLeaver(ctx, crmguard.SingleTenant, "vera", owned)
	if err != nil {
		panic(err)
	}
	fmt.Print(review)
	// Output:
	// u:vera of default
	// departments:
	//   sales
	// roles:
	//   role:head
	// rights:
	//   list contacts of records that are own, dept, tree
	//   view contacts of records that are own, dept, tree
	// rows:
	//   g, u:vera, role:head, default (g row 2)
	// records:
	//   contacts: responsible for 412, shared 3
	// rights that nobody else has:
	//   list contacts of records that are dept, tree
	//   view contacts of records that are dept, tree
	// roles that nobody else has:
	//   role:head
	// records that nobody else may view:
	//   contacts
}

func ExampleEngine_ReviewMover() {
	review, err := rights().ReviewMover(context.Background(), crmguard.SingleTenant, "anna",
		rbac.Place{}, rbac.Place{Roles: []string{"role:head"}, Units: []string{"sales"}})
	if err != nil {
		panic(err)
	}
	fmt.Print(review)
	// Output:
	// u:anna of default
	//   u:anna gains list contacts of records that are dept, tree
	//   u:anna gains view contacts of records that are dept, tree
	// keeps, though the new place does not give it:
	//   read contacts#phone of records that are own by p, role:seller, default, contacts#phone, read, own, allow (p row 3)
	//   reveal contacts#phone of records that are own by p, role:seller, default, contacts#phone, reveal, own, allow (p row 4)
	// rows that stay:
	//   g, u:anna, role:seller, default (g row 1)
	// departments that come:
	//   sales
}

func ExampleExclusion() {
	ctx := crmguard.System(context.Background(), "acme", "setup")
	duties, err := rbac.FromPolicy(ctx, rbac.Policy{
		Rules: []rbac.Rule{
			{Subject: "role:buyer", Tenant: "acme", Object: "orders", Action: crmguard.Create, Scope: rbac.All},
			{Subject: "role:payer", Tenant: "acme", Object: "orders", Action: crmguard.Update, Scope: rbac.All},
		},
		Links:      []rbac.Link{{Subject: "u:anna", Role: "role:buyer", Tenant: "acme"}},
		Exclusions: []rbac.Exclusion{{Tenant: "acme", Role: "role:buyer", Other: "role:payer"}},
	}, &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	fmt.Println(duties.GrantRole(ctx, "acme", "boris", "payer"))
	fmt.Println(duties.GrantRole(ctx, "acme", "anna", "payer"))
	// Output:
	// <nil>
	// crmguard: denied by rbac: separation-of-duties
}
