package audit_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crmguardtest"
)

func ExampleNewFailover() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an example
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "key"), "crm.example/journal", true)
	if err != nil {
		log.Fatal(err)
	}
	journal, err := audit.New(ctx, audit.NewMemory(), crmguardtest.NewKeys(), signer, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	recorder, err := audit.NewFailover(journal, filepath.Join(dir, "spool"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer recorder.Close() //nolint:errcheck // an example

	_ = journal.Close() // whatever befalls it
	for _, a := range []crmguard.Action{crmguard.Export, crmguard.Revoke, crmguard.View} {
		err := recorder.Record(ctx, crmguard.Event{
			Action: a, Outcome: crmguard.Done,
			Subject:  crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee},
			Resource: crmguard.Resource{Tenant: "acme", Kind: "contacts"},
		})
		fmt.Println(a, audit.PolicyOf(crmguard.Event{Action: a}), err)
	}
	fmt.Println("down:", recorder.Status().Down)
	// Output:
	// export block audit: closed
	// revoke spool <nil>
	// view drop <nil>
	// down: true
}
