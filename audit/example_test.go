package audit_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// temporary returns a folder for an example.
func temporary() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }
}

func Example() {
	dir, remove := temporary()
	defer remove()
	ctx := context.Background()
	keys := journaltest.NewSealer() // of the host: encrypt.Keyring

	store, err := audit.OpenFile(filepath.Join(dir, "journal"))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "keys", "journal.key"), "crm.example/journal", true)
	if err != nil {
		log.Fatal(err)
	}
	journal, err := audit.New(ctx, store, keys, signer, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = journal.Close() }()

	anna := crmguard.Subject{Tenant: crmguard.SingleTenant, ID: "anna", Kind: crmguard.KindEmployee}
	err = journal.Record(ctx, crmguard.Event{
		Subject:  anna,
		Action:   crmguard.Update,
		Resource: crmguard.Resource{Tenant: crmguard.SingleTenant, Kind: "contacts", ID: "17"},
		Outcome:  crmguard.Done,
		Fields:   []string{"phone"},
		Private:  []crmguard.Private{{Client: "17", Name: "old phone", Value: []byte("+49 30 5550199")}},
	})
	if err != nil {
		log.Fatal(err)
	}

	page, err := journal.Find(ctx, audit.Query{Tenant: crmguard.SingleTenant, Kind: "contacts", Record: "17"})
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range page.Entries {
		fmt.Println(e.Seq, e.Event.Subject.ID, e.Event.Action, e.Event.Fields, e.Event.Private)
		values, err := journal.OpenPrivate(crmguard.WithSubject(ctx, anna), e)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", values[0].Name, values[0].Value)
	}

	report, err := journal.Verify(ctx, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.OK(), report.Verdict, report.Entries)
	// Output:
	// 0 anna update [phone] [old phone=[redacted]]
	// old phone: +49 30 5550199
	// true unanchored 1
}

// A journal is verified without the program that writes it: with a copy of its
// files and the public key.
func ExampleVerifyStore() {
	dir, remove := temporary()
	defer remove()
	ctx := context.Background()
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "journal.key"), "crm.example/journal", true)
	if err != nil {
		log.Fatal(err)
	}
	store := audit.NewMemory()
	journal, err := audit.New(ctx, store, journaltest.NewSealer(), signer, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	for i := range 3 {
		if err := journal.Record(ctx, journaltest.Event(i)); err != nil {
			log.Fatal(err)
		}
	}
	if err := journal.Close(); err != nil { // signs a last checkpoint
		log.Fatal(err)
	}

	report, err := audit.VerifyStore(ctx, store, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Verdict, report.Entries, report.Unsigned())
	fmt.Println(report.Detail)
	// Output:
	// unanchored 3 0
	// all 3 entries are as they were written; 3 of them are signed; nothing outside vouches for it
}
