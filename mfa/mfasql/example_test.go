package mfasql_test

import (
	"context"
	"database/sql"
	"fmt"

	_ "modernc.org/sqlite" // or github.com/jackc/pgx/v5/stdlib

	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/mfa/mfasql"
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

	store, err := mfasql.New(ctx, db, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	factors, err := mfa.New(store, crmguardtest.NewKeys(), "Acme CRM", nil) // in a host: *encrypt.Keyring
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = factors.Enrol(ctx, "acme", "anna", "anna@acme.example")
	fmt.Println(err)
	has, err := factors.Has(ctx, "acme", "anna") // not yet confirmed
	fmt.Println(has, err)
	// Output:
	// <nil>
	// false <nil>
}
