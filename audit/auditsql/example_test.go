package auditsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// The change of a contact and its entry are one transaction.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "auditsql")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	db, err := sql.Open("sqlite", filepath.Join(dir, "crm.db")+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, `CREATE TABLE contacts (id TEXT PRIMARY KEY, stage TEXT)`); err != nil {
		log.Fatal(err)
	}

	store, err := auditsql.New(ctx, db, nil)
	if err != nil {
		log.Fatal(err)
	}
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "keys", "journal.key"), "crm.example/journal", true)
	if err != nil {
		log.Fatal(err)
	}
	keys := journaltest.NewSealer() // of the host: encrypt.Keyring
	journal, err := audit.New(ctx, store, keys, signer, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}

	err = journal.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO contacts (id, stage) VALUES ('17', 'new')`); err != nil {
			return err
		}
		return record(crmguard.Event{
			Subject:  crmguard.Subject{Tenant: crmguard.SingleTenant, ID: "anna", Kind: crmguard.KindEmployee},
			Action:   crmguard.Create,
			Resource: crmguard.Resource{Tenant: crmguard.SingleTenant, Kind: "contacts", ID: "17"},
			Outcome:  crmguard.Done,
		})
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := journal.Close(); err != nil { // chains what is still in the inbox
		log.Fatal(err)
	}
	report, err := audit.VerifyStore(ctx, store, verifier, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Verdict, report.Entries)
	// Output: unanchored 1
}
