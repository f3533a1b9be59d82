package encryptsql_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // driver "sqlite"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

func ExampleOpenSQLite() {
	ctx := crmguard.System(context.Background(), "acme", "example")
	dir, err := os.MkdirTemp("", "crm-keys")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an example
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "crm-data", true)
	if err != nil {
		panic(err)
	}
	store, err := encryptsql.OpenSQLite(ctx, filepath.Join(dir, "keys.db"), true)
	if err != nil {
		panic(err)
	}
	keys, err := encrypt.New(kek, store, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(keys.Check(ctx))
	fmt.Println(keys.Close(), store.Close())
	// Output:
	// <nil>
	// <nil> <nil>
}
