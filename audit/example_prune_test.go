package audit_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// Entries of three years ago go, unless somebody needs them.
func ExampleLog_Prune() {
	ctx := crmguard.System(context.Background(), "acme", "retention")
	signer, verifier := exampleKey()
	store, now := audit.NewMemory(), time.Date(2023, 5, 1, 9, 0, 0, 0, time.UTC)
	open := func() *audit.Log {
		journal, err := audit.New(ctx, store, journaltest.NewSealer(), signer, verifier, &audit.Options{Clock: func() time.Time { return now }})
		if err != nil {
			log.Fatal(err)
		}
		return journal
	}
	journal := open()
	for i := range 700 {
		if err := journal.Record(ctx, smallEvent(i)); err != nil {
			log.Fatal(err)
		}
	}
	if err := journal.Close(); err != nil { // with a checkpoint, which covers what goes
		log.Fatal(err)
	}

	now = now.AddDate(3, 0, 1)
	journal = open()
	defer journal.Close() //nolint:errcheck // the process ends
	if err := journal.Hold(ctx, audit.Hold{ID: "7/26", Tenant: "acme", Client: "client-9", Reason: "lawsuit"}); err != nil {
		log.Fatal(err)
	}
	removed, err := journal.Prune(ctx, now.AddDate(-3, 0, 0))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(removed.From, removed.To, removed.Held == nil)
	report, err := journal.Verify(ctx, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Verdict, report.Pruned)
	// Output:
	// 0 512 true
	// unanchored 512
}

// What was done about a client is proved after the client's data was destroyed.
func ExampleCheckExtract() {
	ctx := crmguard.System(context.Background(), "acme", "destruction")
	signer, verifier := exampleKey()
	keys := journaltest.NewSealer()
	store := audit.NewMemory()
	journal, err := audit.New(ctx, store, keys, signer, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	for i := range 12 {
		if err := journal.Record(ctx, journaltest.Event(i)); err != nil {
			log.Fatal(err)
		}
	}
	keys.Erase("acme", "client-3") // the client's data is destroyed
	if err := journal.Close(); err != nil {
		log.Fatal(err)
	}
	journal, err = audit.New(ctx, store, keys, signer, verifier, nil) // all is signed
	if err != nil {
		log.Fatal(err)
	}
	defer journal.Close() //nolint:errcheck // the process ends

	var file bytes.Buffer
	if _, err := journal.Extract(ctx, audit.Query{Tenant: "acme", Client: "client-3"}, &file); err != nil {
		log.Fatal(err)
	}

	// Elsewhere, with nothing but the public key:
	extract, err := audit.CheckExtract(&file, verifier, func(p audit.Proven) error {
		fmt.Println(p.Entry.Seq, p.Entry.Event.Subject.ID, p.Entry.Event.Action)
		return nil
	})
	fmt.Println(extract.Entries, extract.Size, err)
	// Output:
	// 3 anna update
	// 7 boris update
	// 11 clara update
	// 3 12 <nil>
}

func exampleKey() (note.Signer, note.Verifier) {
	secret, public, err := note.GenerateKey(rand.Reader, "crm.example/journal")
	if err != nil {
		log.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		log.Fatal(err)
	}
	return signer, verifier
}
