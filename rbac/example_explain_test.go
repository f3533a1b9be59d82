package rbac_test

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard"
)

func ExampleEngine_Explain() {
	card := crmguard.Resource{Tenant: crmguard.SingleTenant, Kind: "contacts", ID: "17", Owner: "boris", Unit: "sales-north"}
	for _, s := range []crmguard.Subject{vera, anna} {
		why, err := rights().Explain(context.Background(), s, crmguard.View, card)
		if err != nil {
			panic(err)
		}
		fmt.Print(why)
	}
	// Output:
	// u:vera may view contacts 17 of default
	//   u:vera has the relation tree: a member of a department above its department sales-north
	//     allowed by p, role:head, default, contacts, view, tree, allow (p row 5), through u:vera → role:head
	// u:anna may not view contacts 17 of default: no-rule
	//   u:anna has the relation dept: a member of its department sales-north
	//     no rule allows it
	//     would do: p, role:seller, default, contacts, view, dept, allow
	//     or: g, u:anna, role:head, default
}
