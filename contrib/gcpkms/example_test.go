package gcpkms_test

import (
	"context"
	"fmt"
	"log"

	kms "cloud.google.com/go/kms/apiv1"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/gcpkms"
	"github.com/crmguard/crmguard/encrypt"
)

func Example() {
	ctx := context.Background()
	_, client, stop, err := startServer(ctx) // a local server; see ExampleNew for Google Cloud
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	kek, err := gcpkms.New(client, "projects/crm/locations/europe-west3/keyRings/crm/cryptoKeys/kek", nil)
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
	ctx := context.Background()
	client, err := kms.NewKeyManagementClient(ctx)
	if err != nil {
		log.Fatal(err)
	}
	kek, err := gcpkms.New(client, "projects/crm/locations/europe-west3/keyRings/crm/cryptoKeys/kek", nil)
	if err != nil {
		log.Fatal(err)
	}
	var _ encrypt.RotatingKEK = kek
}
