package rbacsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // driver "sqlite"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

func ExampleNew() {
	dir, err := os.MkdirTemp("", "rbacsql")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	db, err := sql.Open("sqlite", filepath.Join(dir, "crm.db"))
	if err != nil {
		panic(err)
	}
	defer func() { _ = db.Close() }()

	adapter, err := rbacsql.New(ctx, db, crmguardtest.NewKeys(), nil) // a host has encrypt.Keyring
	if err != nil {
		panic(err)
	}
	// An empty policy is refused, so a new company starts with some rows.
	if err := adapter.AddPolicies("p", "p", [][]string{
		{"role:seller", "default", "contacts", "view", "own", "allow"},
	}); err != nil {
		panic(err)
	}
	rights, err := rbac.New(ctx, adapter, &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	setup := crmguard.System(ctx, crmguard.SingleTenant, "setup")
	fmt.Println(rights.GrantRole(setup, crmguard.SingleTenant, "anna", "seller"))
	fmt.Println(rights.Resolve(ctx, crmguard.SingleTenant, "anna"))
	// Output:
	// <nil>
	// [seller] [] <nil>
}
