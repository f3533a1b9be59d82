package vaultkms_test

import (
	"context"
	"fmt"
	"log"

	"github.com/hashicorp/vault/api"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/vaultkms"
	"github.com/crmguard/crmguard/encrypt"
)

func Example() {
	ctx := context.Background()
	_, client, stop, err := startServer() // a local server; see ExampleNew for Vault
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	kek, err := vaultkms.New(client, "crm-kek", nil)
	if err != nil {
		log.Fatal(err)
	}

	// A CRM has a key store that lasts: encryptsql.OpenSQLite, say.
	keys, err := encrypt.New(kek, encrypt.NewMemory(), nil)
	if err != nil {
		log.Fatal(err)
	}
	at := crmguard.Place{Tenant: "acme", Client: "17", Kind: "contacts", Record: "17", Field: "phone"}
	sealed, err := keys.Seal(ctx, at, []byte("+7 916 123-45-67"))
	if err != nil {
		log.Fatal(err)
	}
	phone, err := keys.Open(crmguard.System(ctx, "acme", "call"), at, sealed)
	fmt.Println(string(phone), err)
	// Output: +7 916 123-45-67 <nil>
}

func ExampleNew() {
	client, err := api.NewClient(api.DefaultConfig()) // VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT, …
	if err != nil {
		log.Fatal(err)
	}
	kek, err := vaultkms.New(client, "crm-kek", nil)
	if err != nil {
		log.Fatal(err)
	}
	var _ encrypt.RotatingKEK = kek
}
