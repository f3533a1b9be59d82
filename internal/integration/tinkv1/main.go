// Command tinkv1 is an application that was built with github.com/google/tink/go
// v1.7.0, the last version of Tink's first home. It is a module and a process of its
// own, because that version and tink-go v2 panic when one program imports both.
//
//	tinkv1 write DIR   leaves in DIR what such an application has stored
//	tinkv1 read DIR    opens what crmguard has left there
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/google/tink/go/aead"
	"github.com/google/tink/go/daead"
	"github.com/google/tink/go/insecurecleartextkeyset"
	"github.com/google/tink/go/keyset"
	"github.com/google/tink/go/tink"
)

// What the application calls its data.
const (
	plaintext      = "+79123456789"
	associatedData = "contacts.phone"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: tinkv1 write|read DIR")
	}
	dir := os.Args[2]
	var err error
	switch os.Args[1] {
	case "write":
		err = write(dir)
	case "read":
		err = read(dir)
	default:
		err = fmt.Errorf("no such command: %s", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func write(dir string) error {
	kek, err := writeKEK(filepath.Join(dir, "kek.json"))
	if err != nil {
		return err
	}
	direct, err := kek.Encrypt([]byte(plaintext), []byte(associatedData))
	if err != nil {
		return err
	}
	envelope, err := aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), kek).Encrypt([]byte(plaintext), []byte(associatedData))
	if err != nil {
		return err
	}
	siv, err := writeDeterministic(filepath.Join(dir, "siv-keyset"), kek)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"direct": direct, "envelope": envelope, "siv": siv} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil { //nolint:gosec // the test chooses the folder
			return err
		}
	}
	return nil
}

// writeKEK makes a keyset in JSON with two keys, the second of them in use.
func writeKEK(path string) (tink.AEAD, error) {
	manager := keyset.NewManager()
	for range 2 {
		id, err := manager.Add(aead.AES256GCMKeyTemplate())
		if err != nil {
			return nil, err
		}
		if err := manager.SetPrimary(id); err != nil {
			return nil, err
		}
	}
	handle, err := manager.Handle()
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the test chooses the path
	if err != nil {
		return nil, err
	}
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(file)); err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	return aead.New(handle)
}

// writeDeterministic makes an AES-SIV keyset in binary, encrypted by the KEK, and
// encrypts under it.
func writeDeterministic(path string, kek tink.AEAD) ([]byte, error) {
	handle, err := keyset.NewHandle(daead.AESSIVKeyTemplate())
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the test chooses the path
	if err != nil {
		return nil, err
	}
	if err := handle.Write(keyset.NewBinaryWriter(file), kek); err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	primitive, err := daead.New(handle)
	if err != nil {
		return nil, err
	}
	return primitive.EncryptDeterministically([]byte(plaintext), []byte(associatedData))
}

// read opens three ciphertexts under crmguard's key file and prints what is in them.
func read(dir string) error {
	file, err := os.Open(filepath.Join(dir, "kek.json")) //nolint:gosec // the test chooses the path
	if err != nil {
		return err
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(file))
	if err != nil {
		return err
	}
	kek, err := aead.New(handle)
	if err != nil {
		return err
	}
	envelopes := aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), kek)
	for _, c := range []struct {
		name string
		with tink.AEAD
	}{{"first", kek}, {"second", kek}, {"envelope", envelopes}} {
		ciphertext, err := os.ReadFile(filepath.Join(dir, c.name)) //nolint:gosec // the test chooses the path
		if err != nil {
			return err
		}
		text, err := c.with.Decrypt(ciphertext, []byte(associatedData))
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Println(string(text))
	}
	return nil
}
