package document_test

import (
	"bytes"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt/document"
)

// No bytes open as a file but those that were stored.
func FuzzFile(f *testing.F) {
	files := newFiles(f, crmguardtest.NewKeys())
	stored := store(f, files, attachment, []byte("a small file"))
	f.Add(stored)
	f.Add([]byte(nil))
	f.Add([]byte("age-encryption.org/v1\n"))
	f.Add([]byte("age-encryption.org/v1\n-> crmguard 1\n\n--- \n"))
	f.Add([]byte(strings.Replace(string(stored), "crmguard 1", "crmguard 2", 1)))
	f.Add(append(bytes.Clone(stored), stored...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Equal(data, stored) {
			return
		}
		if _, err := openAll(asAnna(t), files, attachment, data); err == nil {
			t.Error("opens")
		}
		if _, err := decryptAll(asAnna(t), files, attachment, data); err == nil {
			t.Error("decrypts")
		}
	})
}

// No stanza opens but one that the keys have sealed for the place.
func FuzzStanza(f *testing.F) {
	keys := crmguardtest.NewKeys()
	files := newFiles(f, keys)
	fileKey := []byte("0123456789abcdef")
	sealed, err := keys.Seal(f.Context(), attachment, fileKey) // at the place of the field
	if err != nil {
		f.Fatal(err)
	}
	f.Add("crmguard", "1", sealed)
	f.Add("crmguard", "1", sealed[:20])
	f.Add("crmguard", "1", []byte(nil))
	f.Add("X25519", "CHACHA", fileKey)
	f.Fuzz(func(t *testing.T, kind, arg string, body []byte) {
		var file bytes.Buffer
		w, err := age.Encrypt(&file, stanzas{fileKey, []*age.Stanza{{Type: kind, Args: []string{arg}, Body: body}}})
		if err != nil || w.Close() != nil {
			return // no such stanza can be in a file
		}
		if _, err := decryptAll(asAnna(t), files, attachment, file.Bytes()); err == nil {
			t.Error("opens")
		}
	})
}

// A signature has one spelling, and only the one that was signed verifies.
func FuzzSignature(f *testing.F) {
	anna := person(f, "anna")
	signed := seal(f, "contract", anna, "c-17", anna.Person()).plainSignature(f, anna)
	f.Add(signed)
	f.Add([]byte(nil))
	f.Add([]byte(strings.Repeat("\n", 300)))
	f.Add([]byte(strings.Replace(string(signed), "to anna\n", "to anna\nto boris\n", 1)))
	f.Add([]byte(strings.Replace(string(signed), "to anna\n", "", 1)))
	f.Add([]byte(strings.ReplaceAll(string(signed), " ", "")))
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.Equal(text, signed) {
			return
		}
		_ = document.ParseSignature(text)
		if _, err := document.Verify(text, anna.Person(), "c-17", strings.NewReader("contract")); err == nil {
			t.Error("verifies")
		}
	})
}

// What parses as a card is written again as it was.
func FuzzPerson(f *testing.F) {
	card := person(f, "anna").Person().String()
	f.Add(card)
	f.Add(classic(f, "anna").Person().String())
	f.Add("")
	f.Add("\n\n\n\n\n")
	f.Add("crmguard person 1\ntenant acme\nperson anna\nage \ned25519 \n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := document.ParsePerson(text, "acme", "anna")
		if err == nil && p.String() != text {
			t.Errorf("%q is written as %q", text, p)
		}
	})
}

// The same of identities, and nothing opens as a wrapped one but what was wrapped.
func FuzzIdentity(f *testing.F) {
	anna := person(f, "anna")
	f.Add(anna.Export())
	f.Add(classic(f, "anna").Export())
	f.Add([]byte(nil))
	f.Add([]byte("\n\n\n\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		i, err := document.ParseIdentity(text, "acme", "anna")
		if err == nil && !bytes.Equal(i.Export(), text) {
			t.Errorf("%q is written as %q", text, i.Export())
		}
	})
}

func FuzzWrappedIdentity(f *testing.F) {
	keys := crmguardtest.NewKeys()
	wrapped, err := person(f, "anna").WrapServerOpenable(f.Context(), keys)
	if err != nil {
		f.Fatal(err)
	}
	byPassphrase, err := person(f, "anna").WrapPassphraseWith([]byte("another"), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wrapped)
	f.Add(byPassphrase)
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Equal(data, wrapped) {
			return
		}
		_ = document.ServerOpenable(data)
		if _, err := document.OpenServerOpenable(t.Context(), keys, data, "acme", "anna"); err == nil {
			t.Error("opens")
		}
		if bytes.Contains(data, []byte("-> scrypt")) && !bytes.Equal(data, byPassphrase) {
			return // may ask for as much work as a real one
		}
		if _, err := document.OpenPassphrase(data, passphrase, "acme", "anna"); err == nil {
			t.Error("opens")
		}
	})
}
