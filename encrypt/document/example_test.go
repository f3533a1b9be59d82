package document_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt/document"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// An attachment of a client: stored while it is uploaded, read from any position,
// and gone with the client.
func ExampleFiles() {
	keys := crmguardtest.NewKeys() // in a CRM: an encrypt.Keyring
	files, err := document.NewFiles(keys)
	check(err)
	ctx := crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
	at := crmguard.Place{Tenant: "acme", Client: "c7", Kind: "attachments", Record: "17", Field: "file"}

	upload := strings.NewReader("passport of a client")
	var stored bytes.Buffer // in a CRM: a file, or an object of a store
	w, err := files.Encrypt(ctx, at, &stored)
	check(err)
	_, err = io.Copy(w, upload)
	check(err)
	check(w.Close()) // only now it is whole

	r, err := files.Open(ctx, at, bytes.NewReader(stored.Bytes()), int64(stored.Len()))
	check(err)
	part := make([]byte, 2)
	_, err = r.ReadAt(part, 9)
	check(err)
	fmt.Printf("%d bytes, in the middle %q\n", r.Size(), part)

	at.Client = "c8"
	_, err = files.Open(ctx, at, bytes.NewReader(stored.Bytes()), int64(stored.Len()))
	fmt.Println("at another client:", err != nil)

	at.Client = "c7"
	keys.Erase("acme", "c7")
	_, err = files.Open(ctx, at, bytes.NewReader(stored.Bytes()), int64(stored.Len()))
	fmt.Println("erased:", errors.Is(err, crmguard.ErrErased))
	// Output:
	// 20 bytes, in the middle "of"
	// at another client: true
	// erased: true
}

// A contract that only Boris and its sender can read, and that says who sent it.
func ExampleSeal() {
	anna, err := document.GenerateIdentity("acme", "anna")
	check(err)
	boris, err := document.GenerateIdentity("acme", "boris")
	check(err)

	var letter, signature bytes.Buffer
	contract := strings.NewReader("the contract")
	check(document.Seal(&letter, &signature, contract, anna, "contract-17", boris.Person(), anna.Person()))

	folder, err := os.MkdirTemp("", "example")
	check(err)
	defer func() { _ = os.RemoveAll(folder) }()
	path := filepath.Join(folder, "contract.txt")
	check(document.OpenFile(path, &letter, &signature, boris, anna.Person(), "contract-17"))
	text, err := os.ReadFile(path) //nolint:gosec // the example's own file
	check(err)
	fmt.Println(string(text))
	// Output: the contract
}

// Letters that do not come from whom they should leave no file.
func ExampleOpenFile() {
	anna, err := document.GenerateIdentity("acme", "anna")
	check(err)
	boris, err := document.GenerateIdentity("acme", "boris")
	check(err)
	mallory, err := document.GenerateIdentity("acme", "mallory")
	check(err)
	var letter, signature bytes.Buffer
	check(document.Seal(&letter, &signature, strings.NewReader("pay Mallory"), mallory, "order-1", boris.Person()))

	folder, err := os.MkdirTemp("", "example")
	check(err)
	defer func() { _ = os.RemoveAll(folder) }()
	err = document.OpenFile(filepath.Join(folder, "order.txt"), &letter, &signature, boris, anna.Person(), "order-1")
	fmt.Println(errors.Is(err, document.ErrSignature))
	left, err := os.ReadDir(folder)
	check(err)
	fmt.Println(len(left), "files")
	// Output:
	// true
	// 0 files
}

// What the standard age tool decrypted can be checked by anybody who has the sender's
// card.
func ExampleVerify() {
	const card = `crmguard person 1
tenant acme
person anna
age age1d05vl20yygfdum5e2erlfryn57wzpj0xm4734vsxcg0em3drryqscyvgyl
ed25519 0GIhr7gBK4nxmbxLLjgKtREUC3jqaCCvErMTB9UERiA
`
	const signature = `crmguard document signature 1
tenant acme
document contract-17
from anna
to boris
sha256 e75b45fdc2bfb98d37c9ed3f8e9158b565a3ef7393c0324119daa91c3dbaa11a
ed25519 RSCukZYwsXcS5Bc+YeN6PVWFi4JFGkWlD1MnNJCOHycJNjdG3TEIdHLf8tBNL/c1Zcint/TsK6JRMEcFTwU6BA
`
	anna, err := document.ParsePerson(card, "acme", "anna")
	check(err)
	s, err := document.Verify([]byte(signature), anna, "contract-17", strings.NewReader("the contract"))
	check(err)
	fmt.Println(s.From, "sent it to", s.To)
	// Output: anna sent it to [boris]
}

// A card is public, but whoever replaces it reads what is sealed for its person. So it
// lies in the database with a MAC.
func ExampleParsePerson() {
	ctx, keys := context.Background(), crmguardtest.NewKeys() // in a CRM: an encrypt.Keyring
	at := crmguard.Place{Tenant: "acme", Kind: "document-card", Record: "anna", Field: "card"}
	anna, err := document.GenerateIdentity("acme", "anna")
	check(err)
	card := anna.Person().String()
	mac, err := keys.MAC(ctx, at, []byte(card))
	check(err)

	// Whoever seals for Anna:
	check(keys.Verify(ctx, at, []byte(card), mac))
	_, err = document.ParsePerson(card, "acme", "anna")
	check(err)

	mallory, err := document.GenerateIdentity("acme", "anna") // with Anna's name in it
	check(err)
	planted := mallory.Person().String()
	fmt.Println(errors.Is(keys.Verify(ctx, at, []byte(planted), mac), crmguard.ErrMAC))
	// Output: true
}

// Where an identity lies: under its person's passphrase, or under the CRM's keys.
func ExampleServerOpenable() {
	ctx, keys := context.Background(), crmguardtest.NewKeys()
	anna, err := document.GenerateIdentity("acme", "anna")
	check(err)
	byPassphrase, err := anna.WrapPassphrase([]byte("correct horse battery staple"))
	check(err)
	byServer, err := anna.WrapServerOpenable(ctx, keys)
	check(err)
	fmt.Println(document.ServerOpenable(byPassphrase), document.ServerOpenable(byServer))

	again, err := document.OpenServerOpenable(ctx, keys, byServer, "acme", "anna")
	check(err)
	fmt.Println(again.Person().String() == anna.Person().String())
	fmt.Println(again)
	// Output:
	// false true
	// true
	// document.Identity=[redacted]
}
