package rbac_test

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
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

func ExampleEngine_WhatIf() {
	ctx, now := context.Background(), rights()
	draft, err := now.Draft(ctx, crmguard.SingleTenant, [][]string{
		{"p", "role:seller", "default", "contacts", "view", "dept", "allow"},
		{"p", "role:seller", "default", "contacts", "list", "own", "allow"},
		{"p", "role:head", "default", "contacts", "view", "tree", "allow"},
		{"p", "role:head", "default", "contacts", "list", "tree", "allow"},
		{"g", "u:anna", "role:seller", "default"},
		{"g", "u:vera", "role:head", "default"},
	})
	if err != nil {
		panic(err)
	}
	change, err := now.WhatIf(ctx, crmguard.SingleTenant, draft)
	if err != nil {
		panic(err)
	}
	for _, right := range change.Rights {
		fmt.Println(right)
	}
	for _, e := range []*rbac.Engine{now, draft} { // what to count before and after
		filter, err := e.Filter(ctx, anna, crmguard.View, "contacts")
		if err != nil {
			panic(err)
		}
		fmt.Println(filter.SQL(rbac.Columns{Tenant: "tenant", Owner: "owner", Unit: "unit"}, 1))
	}
	// Output:
	// u:anna gains view contacts of records that are dept
	// u:anna loses read contacts#phone of records that are own
	// u:anna loses reveal contacts#phone of records that are own
	// (tenant = $1 AND owner = $2) [default anna] <nil>
	// (tenant = $1 AND (owner = $2 OR unit = $3)) [default anna sales-north] <nil>
}
