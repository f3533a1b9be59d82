package awskms_test

import (
	"context"
	"fmt"
	"log"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/awskms"
	"github.com/crmguard/crmguard/encrypt"
)

func Example() {
	ctx := context.Background()
	_, client, stop := startServer() // a local server; see ExampleNew for AWS
	defer stop()
	kek, err := awskms.New(client, "arn:aws:kms:eu-central-1:111122223333:alias/crm-kek", nil)
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
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		log.Fatal(err)
	}
	kek, err := awskms.New(kms.NewFromConfig(cfg), "arn:aws:kms:eu-central-1:111122223333:alias/crm-kek", nil)
	if err != nil {
		log.Fatal(err)
	}
	var _ encrypt.RotatingKEK = kek
}

func ExampleNewFixed() {
	_, client, stop := startServer()
	defer stop()
	_, err := awskms.NewFixed(client, "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
	fmt.Println(err)
	_, err = awskms.NewFixed(client, "alias/crm-kek")
	fmt.Println(err)
	// Output:
	// <nil>
	// awskms: "alias/crm-kek" is not arn:PARTITION:kms:REGION:ACCOUNT:key/…
}
