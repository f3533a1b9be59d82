package rbac_test

import (
	"context"
	"fmt"

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
