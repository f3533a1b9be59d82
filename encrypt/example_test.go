package encrypt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// openExample returns a keyring as a host's main makes it, with stores in memory.
func openExample() (*encrypt.Keyring, *encrypt.MemoryIndex, func()) {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		panic(err)
	}
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "crm-data", true)
	if err != nil {
		panic(err)
	}
	index := encrypt.NewMemoryIndex()
	keys, err := encrypt.New(kek, encrypt.NewMemory(), &encrypt.Options{Index: index})
	if err != nil {
		panic(err)
	}
	return keys, index, func() { _ = keys.Close(); _ = os.RemoveAll(dir) }
}

// as returns a context in which an employee acts.
func as(tenant, id string) context.Context {
	return crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: tenant, ID: id, Kind: crmguard.KindEmployee})
}

func Example() {
	keys, _, done := openExample()
	defer done()
	ctx := as("acme", "anna")
	at := crmguard.Place{Tenant: "acme", Client: "17", Kind: "contacts", Record: "17", Field: "note"}
	sealed, err := keys.Seal(ctx, at, []byte("likes tea"))
	fmt.Println(len(sealed), err)

	note, err := keys.Open(ctx, at, sealed)
	fmt.Println(string(note), err)

	at.Record = "18"
	_, err = keys.Open(ctx, at, sealed)
	fmt.Println(err)
	// Output:
	// 45 <nil>
	// likes tea <nil>
	// encrypt: sealed for another place, or changed
}

func ExampleTable() {
	type Contact struct {
		ID          string `encrypt:",record"`
		Phone       string `encrypt:"phone,index=phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
	keys, index, done := openExample()
	defer done()
	contacts, err := encrypt.NewTable[Contact](keys, "contacts", &encrypt.TableOptions{Region: "DE"})
	if err != nil {
		panic(err)
	}
	ctx := as("acme", "anna")
	row := &Contact{ID: "17", Phone: "030 123456"}
	entries, err := contacts.Seal(ctx, "acme", row)
	if err != nil {
		panic(err)
	}
	// In the transaction that stores row.ID and row.PhoneSealed:
	err = index.Put(ctx, nil, entries)
	fmt.Println(err)

	found, err := contacts.Find(ctx, "acme", "phone", "phone", "+49 30 123456")
	fmt.Println(found, err)

	stored := &Contact{ID: "17", PhoneSealed: row.PhoneSealed}
	err = contacts.Open(ctx, "acme", stored)
	fmt.Println(stored.Phone, err)
	// Output:
	// <nil>
	// [17] <nil>
	// 030 123456 <nil>
}

func ExampleKeyring_Erase() {
	keys, _, done := openExample()
	defer done()
	ctx := as("acme", "anna")
	at := crmguard.Place{Tenant: "acme", Client: "17", Kind: "contacts", Record: "17", Field: "note"}
	sealed, err := keys.Seal(ctx, at, []byte("likes tea"))
	fmt.Println(err)

	receipt, err := keys.Erase(ctx, "acme", "17")
	fmt.Println(receipt.State, err)
	_, err = keys.Open(ctx, at, sealed)
	fmt.Println(err)

	// A job of the host, every minute: nothing is old enough yet.
	finished, err := keys.FinishErasures(context.Background())
	fmt.Println(len(finished), err)
	// Output:
	// <nil>
	// closing <nil>
	// crmguard: the data was erased
	// 0 <nil>
}

func ExampleOpenKeyFile() {
	_, err := encrypt.OpenKeyFile("crm-data/kek.json", "crm-data", true)
	fmt.Println(err)
	// Output:
	// encrypt: key file crm-data/kek.json: it lies inside the data folder: whoever takes the data would take the key
}

func ExampleKeyring_MAC() {
	keys, _, done := openExample()
	defer done()
	ctx := context.Background()
	at := crmguard.Place{Tenant: "acme", Kind: "sessions", Record: "s1"}
	mac, err := keys.MAC(ctx, at, []byte("person 7, epoch 3"))
	fmt.Println(len(mac), err)
	fmt.Println(keys.Verify(ctx, at, []byte("person 7, epoch 3"), mac))
	fmt.Println(keys.Verify(ctx, at, []byte("person 1, epoch 3"), mac))
	// Output:
	// 40 <nil>
	// <nil>
	// crmguard: the MAC does not fit: encrypt: sealed for another place, or changed
}
