package encrypt_test

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

func ExampleTable_Reencrypt() {
	type Contact struct {
		ID          string `encrypt:",record"`
		Phone       string `encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
	keys, _, done := openExample()
	defer done()
	contacts, err := encrypt.NewTable[Contact](keys, "contacts", nil)
	if err != nil {
		panic(err)
	}
	ctx := crmguard.System(context.Background(), "acme", "reencrypt")
	rows := encrypttest.NewMemoryRows() // a host's are encryptsql.NewRows
	for i := range 5 {
		c := &Contact{ID: fmt.Sprint(i), Phone: "030 123456"}
		if _, err := contacts.Seal(ctx, "acme", c); err != nil {
			panic(err)
		}
		rows.Put("acme", encrypt.Row{Record: c.ID, Client: c.ID, Sealed: map[string][]byte{"phone": c.PhoneSealed}})
	}
	// The key of client 3 may have been seen by somebody.
	leaked := encrypt.ClientScope("acme", "3")
	version, err := keys.Rotate(ctx, leaked)
	fmt.Println(version, err)

	report, err := contacts.Reencrypt(ctx, "acme", rows, &encrypt.JobOptions{
		Batch:    2,
		Progress: func(_ context.Context, r encrypt.Report) error { fmt.Println("up to", r.Cursor); return nil },
	})
	fmt.Println(report.Rows, report.Changed, report.OK(), err)

	// Later than encrypt.ClosingTime, nobody writes under the old version any more.
	removed, err := keys.Retire(ctx, leaked, version)
	fmt.Println(removed, err)
	// Output:
	// 2 <nil>
	// up to 1
	// up to 3
	// up to 4
	// 5 1 true <nil>
	// 1 <nil>
}

func ExampleTable_Migrate() {
	type Contact struct {
		ID          string  `encrypt:",record"`
		Phone       string  `encrypt:"phone"`
		PhoneLegacy *string `encrypt:"phone,legacy"` // the column that phones are in today
		PhoneSealed []byte  `encrypt:"phone,sealed"`
	}
	keys, _, done := openExample()
	defer done()
	contacts, err := encrypt.NewTable[Contact](keys, "contacts", nil)
	if err != nil {
		panic(err)
	}
	rows := encrypttest.NewMemoryRows() // a host's are encryptsql.NewRows
	rows.Put("acme", encrypt.Row{Record: "17", Client: "17", Legacy: map[string][]byte{"phone": []byte("030 123456")}})
	ctx := crmguard.System(context.Background(), "acme", "migrate")
	if _, err := contacts.Collect(ctx, "acme", rows, nil); err != nil {
		panic(err)
	}
	left, err := contacts.Pending(ctx, "acme")
	fmt.Println(left, err)

	plain := "030 123456"
	c := &Contact{ID: "17", PhoneLegacy: &plain}
	fmt.Println(contacts.Open(ctx, "acme", c), c.Phone)

	report, err := contacts.Migrate(ctx, "acme", rows, nil)
	fmt.Println(report.Changed, report.OK(), err)
	fmt.Println(contacts.Open(ctx, "acme", c)) // as if somebody had put it back
	// Output:
	// 1 <nil>
	// <nil> 030 123456
	// 1 true <nil>
	// encrypt: one row did not open: row 0 (record "17", field "phone"): encrypt: plaintext, where only sealed values are accepted: if the row was just sealed, read it again
}
