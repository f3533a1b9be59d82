package encryptsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

// Contact was stored in plaintext so far.
type Contact struct {
	ID          string  `encrypt:",record"`
	Phone       string  `encrypt:"phone"`
	PhoneLegacy *string `encrypt:"phone,legacy" json:"-"`
	PhoneSealed []byte  `encrypt:"phone,sealed" json:"-"`
}

// contactRows are the contacts as jobs see them.
func contactRows(ctx context.Context, db *sql.DB) (*encryptsql.Rows, error) {
	return encryptsql.NewRows(ctx, db, encryptsql.Layout{
		Table: "contacts", Tenant: "tenant", Record: "id",
		Sealed: map[string]string{"phone": "phone_sealed"},
		Legacy: map[string]string{"phone": "phone"},
	})
}

// migrateContacts seals what is left of a tenant, and may be stopped and called again.
func migrateContacts(ctx context.Context, contacts *encrypt.Table[Contact], rows encrypt.Rows, tenant string) error {
	ctx = crmguard.System(ctx, tenant, "migrate")
	report, err := contacts.Migrate(ctx, tenant, rows, &encrypt.JobOptions{
		Progress: func(_ context.Context, r encrypt.Report) error {
			fmt.Println(r.Changed, "sealed")
			return nil
		},
	})
	if err != nil {
		return err
	}
	for _, finding := range report.Findings {
		fmt.Println(finding)
	}
	left, err := contacts.Pending(ctx, tenant)
	if err == nil && left > 0 {
		err = errors.New("some rows need a look, see above")
	}
	return err
}

func ExampleNewRows() {
	ctx := crmguard.System(context.Background(), "acme", "example")
	dir, err := os.MkdirTemp("", "crm")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an example
	db, err := sql.Open("sqlite", filepath.Join(dir, "crm.db"))
	if err != nil {
		panic(err)
	}
	defer db.Close() //nolint:errcheck // an example
	if _, err := db.Exec(`CREATE TABLE contacts (tenant TEXT, id INTEGER PRIMARY KEY, phone TEXT, phone_sealed BLOB);
		INSERT INTO contacts VALUES ('acme', 9, '030 123456', NULL), ('acme', 10, '040 987654', NULL)`); err != nil {
		panic(err)
	}
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "", true)
	if err != nil {
		panic(err)
	}
	store, err := encryptsql.OpenSQLite(ctx, filepath.Join(dir, "keys", "keys.db"), true)
	if err != nil {
		panic(err)
	}
	defer store.Close() //nolint:errcheck // an example
	keys, err := encrypt.New(kek, store, nil)
	if err != nil {
		panic(err)
	}
	defer keys.Close() //nolint:errcheck // an example
	contacts, err := encrypt.NewTable[Contact](keys, "contacts", nil)
	if err != nil {
		panic(err)
	}
	rows, err := contactRows(ctx, db)
	if err != nil {
		panic(err)
	}
	collected, err := contacts.Collect(ctx, "acme", rows, nil)
	fmt.Println(collected.Changed, "to seal", err)
	fmt.Println(migrateContacts(ctx, contacts, rows, "acme"))
	report, err := contacts.Scan(ctx, "acme", rows, nil)
	fmt.Println(report.Rows, report.OK(), err)

	if _, err := db.Exec(`UPDATE contacts SET phone = 'planted', phone_sealed = NULL WHERE id = 9`); err != nil {
		panic(err)
	}
	report, err = contacts.Scan(ctx, "acme", rows, nil)
	fmt.Println(report.Plaintext, report.OK(), err)
	// Output:
	// 2 to seal <nil>
	// 2 sealed
	// <nil>
	// 2 true <nil>
	// 1 false <nil>
}
