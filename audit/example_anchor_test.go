package audit_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// Checkpoints go to a file on a disk of another host, and to a receiver elsewhere.
func ExampleNewFileAnchor() {
	dir, remove := temporary()
	defer remove()
	ctx := context.Background()
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "journal.key"), "crm.example/journal", true)
	if err != nil {
		log.Fatal(err)
	}
	file, err := audit.NewFileAnchor(filepath.Join(dir, "elsewhere.anchor"), verifier)
	if err != nil {
		log.Fatal(err)
	}
	journal, err := audit.New(ctx, audit.NewMemory(), journaltest.NewSealer(), signer, verifier, &audit.Options{Anchors: []audit.Anchor{file}})
	if err != nil {
		log.Fatal(err)
	}
	for i := range 3 {
		if err := journal.Record(ctx, journaltest.Event(i)); err != nil {
			log.Fatal(err)
		}
	}
	if err := journal.Close(); err != nil { // hands over a last checkpoint
		log.Fatal(err)
	}

	report, err := journal.Verify(ctx, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Verdict, report.Entries, report.Pinned)
	for _, a := range journal.Anchors() {
		fmt.Println(a.Size, a.Err)
	}
	// Output:
	// intact 3 3
	// 3 <nil>
}

func ExampleNewWebhook() {
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.Header.Get("Webhook-Signature")[:3])
	}))
	defer receiver.Close()
	secret := []byte("32 bytes that the receiver knows") // from a file of the host's
	hook, err := audit.NewWebhook(receiver.URL, secret, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(hook.Keep(context.Background(), []byte("a checkpoint")))
	// Output:
	// POST v1,
	// <nil>
}

// A witness signs each checkpoint, under a key that is pinned here.
func ExampleNewWitness() {
	dir, remove := temporary()
	defer remove()
	_, verifier, err := audit.OpenSigner(filepath.Join(dir, "journal.key"), "crm.example/journal", true)
	if err != nil {
		log.Fatal(err)
	}
	key, err := audit.NewCosigner("witness.example/w1+eb762cc2+BNdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea") // as the witness publishes it
	if err != nil {
		log.Fatal(err)
	}
	kept, err := audit.NewFileAnchor(filepath.Join(dir, "w1.anchor"), verifier)
	if err != nil {
		log.Fatal(err)
	}
	store := audit.NewMemory() // of the journal
	witness, err := audit.NewWitness("https://witness.example/", key, store, verifier, kept, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(witness)
	// Output: witness witness.example/w1
}
