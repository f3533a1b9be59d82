package rbacsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

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

// Two processes share a policy. One replaces it, the other one takes that over; then it
// is rolled back.
func Example() {
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

	keys := crmguardtest.NewKeys() // a host has encrypt.Keyring
	open := func() *rbac.Engine {
		adapter, err := rbacsql.New(ctx, db, keys, nil)
		if err != nil {
			panic(err)
		}
		if head, err := adapter.Head(ctx); err == nil && head.Number == 0 {
			err = adapter.AddPoliciesCtx(rbac.WithReason(ctx, "first start"), "p", "p", [][]string{
				{"role:seller", "acme", "contacts", "view", "own", "allow"},
			})
			if err != nil {
				panic(err)
			}
		}
		rights, err := rbac.New(ctx, adapter, &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			panic(err)
		}
		return rights
	}
	one, two := open(), open()
	watching, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- two.Watch(watching, &rbac.WatchOptions{Every: 10 * time.Millisecond}) }()

	admin := crmguard.System(ctx, "acme", "policy-editor")
	began := one.Status().Stored.Number
	_, err = one.Replace(admin, "acme", began, [][]string{
		{"p", "role:seller", "acme", "contacts", "view", "dept", "allow"},
		{"g", "u:anna", "role:seller", "acme"},
	}, "departments share their clients")
	fmt.Println("replaced:", err)
	_, err = one.Replace(admin, "acme", began, nil, "somebody who has not looked again")
	fmt.Println(errors.Is(err, rbac.ErrChanged))

	for two.Version() != one.Version() {
		time.Sleep(time.Millisecond)
	}
	stop()
	fmt.Println("watched:", <-ended, two.Status().Err)

	_, err = one.Rollback(admin, "acme", began+1, began, "not yet")
	fmt.Println("rolled back:", err)
	history, err := one.History(admin, "acme", 0, 10)
	for _, v := range history {
		fmt.Printf("%d by %q: %s +%d -%d\n", v.Number, v.Author, v.Reason, len(v.Added), len(v.Removed))
	}
	fmt.Println(err)
	// Output:
	// replaced: <nil>
	// true
	// watched: <nil> <nil>
	// rolled back: <nil>
	// 3 by "system:policy-editor": not yet +1 -1
	// 2 by "system:policy-editor": departments share their clients +2 -1
	// 1 by "": first start +1 -0
	// <nil>
}

// Whoever has no keys says so.
func ExampleNewWithoutKeys() {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		panic(err)
	}
	db.SetMaxOpenConns(1) // a database in memory is that of its connection
	defer func() { _ = db.Close() }()
	ctx := context.Background()
	_, err = rbacsql.New(ctx, db, nil, nil)
	fmt.Println(err)
	adapter, err := rbacsql.NewWithoutKeys(ctx, db, nil)
	if err != nil {
		panic(err)
	}
	head, err := adapter.Head(ctx)
	fmt.Println(head.Number, err)
	// Output:
	// rbacsql: keys are needed; NewWithoutKeys goes without
	// 0 <nil>
}

// Departments stand beside the policy. Anna heads north, and sees what is below it.
func ExampleAdapter_Org() {
	dir, err := os.MkdirTemp("", "rbacsql")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: "acme", ID: "olga", Kind: crmguard.KindEmployee})
	db, err := sql.Open("sqlite", filepath.Join(dir, "crm.db"))
	if err != nil {
		panic(err)
	}
	defer func() { _ = db.Close() }()
	adapter, err := rbacsql.New(ctx, db, crmguardtest.NewKeys(), nil) // a host has encrypt.Keyring
	if err != nil {
		panic(err)
	}
	if err := adapter.AddPolicies("p", "p", [][]string{{"u:anna", "acme", "contacts", "view", "headed", "allow"}}); err != nil {
		panic(err)
	}
	rights, err := rbac.New(ctx, adapter, &rbac.Options{Org: adapter.Org(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	anna := crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}
	card := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17", Unit: "north-1"}
	fmt.Println(rights.Check(ctx, anna, crmguard.View, card))

	version, err := adapter.Org().Replace(ctx, "acme", 0, rbac.Units{
		Parent: map[string]string{"north-1": "north"},
		Heads:  map[string][]string{"anna": {"north"}},
	}, "anna heads north")
	if err != nil {
		panic(err)
	}
	rights.Invalidate("acme")
	fmt.Println(version.Number, rights.Check(ctx, anna, crmguard.View, card))
	_, err = adapter.Org().Replace(ctx, "acme", 0, rbac.Units{}, "out of an old page")
	fmt.Println(errors.Is(err, rbac.ErrChanged))
	// Output:
	// crmguard: denied by rbac: no-rule
	// 1 <nil>
	// true
}
