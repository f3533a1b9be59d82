package calltokensql_test

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	_ "modernc.org/sqlite" // or github.com/jackc/pgx/v5/stdlib

	"github.com/crmguard/crmguard/masking/calltoken"
	"github.com/crmguard/crmguard/masking/calltoken/calltokensql"
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

	calls, err := calltokensql.New(ctx, db, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	// In a host: calltoken.NewResolver(keys, calls, …) does this.
	c := calltoken.Call{Tenant: "acme", ID: "pZq0c2xhdGVkIGlkIGhl", Person: "anna", State: calltoken.Ringing, Begun: time.Now()}
	for range 2 {
		_, first, err := calls.Begin(ctx, c, c.Begun.Add(-24*time.Hour))
		fmt.Println(first, err)
	}
	// Output:
	// true <nil>
	// false <nil>
}
