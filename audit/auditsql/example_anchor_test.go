package auditsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// The journal lies in the CRM's database, its checkpoints in one of somebody else.
func ExampleNewAnchor() {
	dir, err := os.MkdirTemp("", "auditsql")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	elsewhere, err := sql.Open("sqlite", filepath.Join(dir, "elsewhere.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = elsewhere.Close() }()
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "keys", "journal.key"), "crm.example/journal", true)
	if err != nil {
		log.Fatal(err)
	}

	anchor, err := auditsql.NewAnchor(ctx, elsewhere, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	journal, err := audit.New(ctx, audit.NewMemory(), journaltest.NewSealer(), signer, verifier, &audit.Options{Anchors: []audit.Anchor{anchor}})
	if err != nil {
		log.Fatal(err)
	}
	if err := journal.Record(ctx, journaltest.Event(0)); err != nil {
		log.Fatal(err)
	}
	if err := journal.Close(); err != nil {
		log.Fatal(err)
	}
	report, err := journal.Verify(ctx, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Verdict, report.Pinned)
	// Output: intact 1
}
