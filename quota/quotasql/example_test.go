package quotasql_test

import (
	"context"
	"database/sql"
	"fmt"

	_ "modernc.org/sqlite" // or github.com/jackc/pgx/v5/stdlib

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/quota/quotasql"
)

func Example() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()      //nolint:errcheck // nothing is kept
	db.SetMaxOpenConns(1) // each connection would have a memory of its own

	store, err := quotasql.New(ctx, db, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	zone, err := quota.OneZone("Europe/Minsk")
	if err != nil {
		fmt.Println(err)
		return
	}
	norms, err := quota.New(store, zone, []quota.Norm{{Action: crmguard.View, Kind: "contacts", Hard: 1}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx = crmguard.WithSubject(ctx, crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
	fmt.Println(norms.OnOpen(ctx, "acme", []string{"c1"}))
	fmt.Println(norms.OnOpen(ctx, "acme", []string{"c2"}))
	// Output:
	// <nil>
	// crmguard: denied by quota: norm
}
