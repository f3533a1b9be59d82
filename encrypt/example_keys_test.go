package encrypt_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/uptime"
)

// hurry lets time pass by 50 ms whenever somebody looks at the clock, until the returned function is called.
func hurry() (stop func()) {
	var nanos atomic.Int64
	restore := uptime.Move(func() time.Duration { return time.Hour + time.Duration(nanos.Add(int64(50*time.Millisecond))) })
	return restore
}

func exampleKeys() (*encrypt.Keyring, func()) {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		panic(err)
	}
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "", true)
	if err != nil {
		panic(err)
	}
	keys, err := encrypt.New(kek, encrypt.NewMemory(), nil)
	if err != nil {
		panic(err)
	}
	return keys, func() { _ = os.RemoveAll(dir) }
}

func ExampleKeyring_Turn() {
	keys, remove := exampleKeys()
	defer remove()
	defer hurry()() // it waits for ten seconds and more
	ctx := crmguard.System(context.Background(), "acme", "example")
	at := crmguard.Place{Tenant: "acme", Client: "c1", Kind: "contacts", Record: "c1", Field: "phone"}
	sealed, err := keys.Seal(ctx, at, []byte("+79123456789"))
	if err != nil {
		panic(err)
	}
	turned, err := keys.Turn(ctx, func(p encrypt.TurnProgress) {
		if p.Step == encrypt.TurnDestroying {
			fmt.Printf("%d of %d keys, of %d tenant\n", p.Keys, p.AllKeys, p.Tenants)
		}
	})
	if err != nil {
		panic(err)
	}
	plaintext, err := keys.Open(ctx, at, sealed)
	fmt.Println(turned.Tenants, string(plaintext), err)
	// Output:
	// 2 of 2 keys, of 1 tenant
	// 1 +79123456789 <nil>
}

func ExampleKeyring_Rotate() {
	keys, remove := exampleKeys()
	defer remove()
	ctx := crmguard.System(context.Background(), "acme", "example")
	at := crmguard.Place{Tenant: "acme", Client: "c1", Kind: "contacts", Record: "c1", Field: "phone"}
	sealed, err := keys.Seal(ctx, at, []byte("+79123456789"))
	if err != nil {
		panic(err)
	}
	scope := encrypt.ClientScope("acme", "c1")
	version, err := keys.Rotate(ctx, scope)
	fmt.Println(version, err)
	plaintext, err := keys.Open(ctx, at, sealed)
	fmt.Println(string(plaintext), err)
	removed, err := keys.Retire(ctx, scope, version) // once all is sealed anew
	fmt.Println(removed, err)
	_, err = keys.Open(ctx, at, sealed)
	fmt.Println(err)
	// Output:
	// 2 <nil>
	// +79123456789 <nil>
	// 1 <nil>
	// encrypt: under a version of the key that was retired
}

func ExampleKeyring_CheckReceipt() {
	keys, remove := exampleKeys()
	defer remove()
	ctx := crmguard.System(context.Background(), "acme", "example")
	receipt, err := keys.Erase(ctx, "acme", "c1", encrypt.Copy{What: "export of March", Where: "accounting"})
	if err != nil {
		panic(err)
	}
	document, err := json.Marshal(receipt)
	if err != nil {
		panic(err)
	}
	checked, err := keys.CheckReceipt(ctx, document)
	fmt.Println(checked.State, checked.Copies[0].What, err)
	document[len(document)/2] ^= 1
	_, err = keys.CheckReceipt(ctx, document)
	fmt.Println(err)
	// Output:
	// closing export of March <nil>
	// encrypt: not a receipt of this key store, or changed
}
