package sessionsql_test

import (
	"context"
	"database/sql"
	"fmt"

	_ "modernc.org/sqlite" // or github.com/jackc/pgx/v5/stdlib

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/session"
	"github.com/crmguard/crmguard/session/sessionsql"
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

	store, err := sessionsql.New(ctx, db, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	sessions, err := session.New(store, crmguardtest.NewKeys(), nil) // in a host: *encrypt.Keyring
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := sessions.OpenPerson(ctx, "acme", "anna"); err != nil {
		fmt.Println(err)
		return
	}
	token, err := sessions.Start(ctx, crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := sessions.Authenticate(ctx, token)
	fmt.Println(s.ID, err)
	// Output: anna <nil>
}
