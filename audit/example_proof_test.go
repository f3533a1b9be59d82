package audit_test

import (
	"context"
	"fmt"
	"log"
	"path/filepath"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// An auditor gets one file and has the public key, and needs nothing else.
func ExampleCheckProof() {
	dir, remove := temporary()
	defer remove()
	ctx := context.Background()
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "journal.key"), "crm.example/journal", true)
	if err != nil {
		log.Fatal(err)
	}
	journal, err := audit.New(ctx, audit.NewMemory(), journaltest.NewSealer(), signer, verifier, nil)
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
	file, err := journal.Prove(ctx, 1)
	if err != nil {
		log.Fatal(err)
	}

	proven, err := audit.CheckProof(file, nil, verifier)
	if err != nil {
		log.Fatal(err)
	}
	e := proven.Entry
	fmt.Println(e.Seq, "of", proven.Size, e.Event.Subject.ID, e.Event.Action, e.Event.Resource.Kind, e.Event.Resource.ID)
	// Output: 1 of 3 boris update contacts 1
}
