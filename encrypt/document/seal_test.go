package document_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt/document"
)

// letter is what Seal wrote.
type letter struct{ document, signature []byte }

func seal(tb testing.TB, text string, from *document.Identity, id string, to ...*document.Person) letter {
	tb.Helper()
	var d, s bytes.Buffer
	require.NoError(tb, document.Seal(&d, &s, strings.NewReader(text), from, id, to...))
	return letter{d.Bytes(), s.Bytes()}
}

func (l letter) open(path string, as *document.Identity, from *document.Person, id string) error {
	return document.OpenFile(path, bytes.NewReader(l.document), bytes.NewReader(l.signature), as, from, id)
}

// refused requires that a letter does not open, and leaves nothing behind.
func (l letter) refused(tb testing.TB, as *document.Identity, from *document.Person, id string) error {
	tb.Helper()
	folder := tb.TempDir()
	err := l.open(filepath.Join(folder, "contract.txt"), as, from, id)
	require.Error(tb, err)
	left, readErr := os.ReadDir(folder)
	require.NoError(tb, readErr)
	require.Empty(tb, left)
	return err
}

// plainSignature is the signature as the recipient's age tool shows it.
func (l letter) plainSignature(tb testing.TB, as *document.Identity) []byte {
	tb.Helper()
	return decryptWithAge(tb, l.signature, as)
}

func decryptWithAge(tb testing.TB, file []byte, as *document.Identity) []byte {
	tb.Helper()
	keys, err := age.ParseIdentities(bytes.NewReader(as.Export()))
	require.NoError(tb, err)
	r, err := age.Decrypt(bytes.NewReader(file), keys...)
	require.NoError(tb, err)
	plain, err := io.ReadAll(r)
	require.NoError(tb, err)
	return plain
}

func TestEveryRecipientOpens(t *testing.T) {
	anna, boris, vera, mallory := person(t, "anna"), person(t, "boris"), person(t, "vera"), person(t, "mallory")
	l := seal(t, "contract", anna, "c-17", vera.Person(), boris.Person(), anna.Person())
	for _, i := range []*document.Identity{anna, boris, vera} {
		path := filepath.Join(t.TempDir(), "contract.txt")
		require.NoError(t, l.open(path, i, anna.Person(), "c-17"))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "contract", string(got))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
		s, err := document.Verify(l.plainSignature(t, i), anna.Person(), "c-17", strings.NewReader("contract"))
		require.NoError(t, err)
		require.Equal(t, []string{"anna", "boris", "vera"}, s.To)
		require.Equal(t, "acme", s.Tenant)
	}
	require.ErrorIs(t, l.refused(t, mallory, anna.Person(), "c-17"), document.ErrNotRecipient)
	// What is there already is replaced by a good letter and kept after a bad one.
	path := filepath.Join(t.TempDir(), "contract.txt")
	require.NoError(t, os.WriteFile(path, []byte("older"), 0o600))
	require.Error(t, letter{l.document[:len(l.document)-1], l.signature}.open(path, boris, anna.Person(), "c-17"))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "older", string(got))
	require.NoError(t, l.open(path, boris, anna.Person(), "c-17"))
	got, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "contract", string(got))
}

func TestForgedLettersAreRefused(t *testing.T) {
	anna, boris, vera, mallory := person(t, "anna"), person(t, "boris"), person(t, "vera"), person(t, "mallory")
	l := seal(t, "contract", anna, "c-17", boris.Person(), mallory.Person())
	other := seal(t, "another", anna, "c-18", boris.Person())
	again := seal(t, "contract", anna, "c-18", boris.Person())
	fromMallory := seal(t, "contract", mallory, "c-17", boris.Person())
	annaByMallory, err := document.GenerateIdentity("acme", "anna") // Mallory's key, Anna's name
	require.NoError(t, err)
	inHerName := seal(t, "contract", annaByMallory, "c-17", boris.Person())
	// Mallory, who may read it, passes it on to Vera as if Anna had sent it to her.
	passedOn := letter{
		ageTo(t, decryptWithAge(t, l.document, mallory), vera.Person()),
		ageTo(t, l.plainSignature(t, mallory), vera.Person()),
	}
	otherTenant, err := document.GenerateIdentity("other", "anna")
	require.NoError(t, err)
	borisThere, err := document.GenerateIdentity("other", "boris")
	require.NoError(t, err)
	toThere := letter{
		ageTo(t, decryptWithAge(t, l.document, mallory), borisThere.Person()),
		ageTo(t, l.plainSignature(t, mallory), borisThere.Person()),
	}
	// Anna's keys under another name: whoever may write cards takes her letters for his.
	renamed, err := document.ParsePerson(strings.Replace(anna.Person().String(), "person anna", "person mallory", 1), "acme", "mallory")
	require.NoError(t, err)
	moved, err := document.ParsePerson(strings.Replace(anna.Person().String(), "tenant acme", "tenant other", 1), "other", "anna")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		letter
		as   *document.Identity
		from *document.Person
		id   string
	}{
		"foreign sender":             {fromMallory, boris, anna.Person(), "c-17"},
		"sender's name, other key":   {inHerName, boris, anna.Person(), "c-17"},
		"not the expected sender":    {l, boris, mallory.Person(), "c-17"},
		"not the expected document":  {l, boris, anna.Person(), "c-18"},
		"signature of another":       {letter{l.document, other.signature}, boris, anna.Person(), "c-18"},
		"signature of another id":    {letter{l.document, again.signature}, boris, anna.Person(), "c-17"},
		"document of another":        {letter{other.document, l.signature}, boris, anna.Person(), "c-17"},
		"signed for others":          {passedOn, vera, anna.Person(), "c-17"},
		"another tenant's sender":    {l, boris, otherTenant.Person(), "c-17"},
		"another tenant's recipient": {toThere, borisThere, anna.Person(), "c-17"},
		"another's name":             {l, boris, renamed, "c-17"},
		"another tenant's name":      {l, boris, moved, "c-17"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, c.refused(t, c.as, c.from, c.id), document.ErrSignature)
		})
	}
	// What was passed on is well-made: only the list of recipients says that it is not
	// for Vera.
	s, err := document.Verify(passedOn.plainSignature(t, vera), anna.Person(), "c-17", strings.NewReader("contract"))
	require.NoError(t, err)
	require.Equal(t, []string{"boris", "mallory"}, s.To)
	// The planted fault: without the check of the digest the exchanged document opens.
	path := filepath.Join(t.TempDir(), "contract.txt")
	require.NoError(t, document.ReleaseUnchecked(path, bytes.NewReader(other.document), boris))
	require.FileExists(t, path)
}

// ageTo encrypts as anybody can with the age tool and somebody's card.
func ageTo(tb testing.TB, plain []byte, to *document.Person) []byte {
	tb.Helper()
	line := strings.Split(to.String(), "\n")[3]
	keys, err := age.ParseRecipients(strings.NewReader(strings.TrimPrefix(line, "age ")))
	require.NoError(tb, err)
	var file bytes.Buffer
	w, err := age.Encrypt(&file, keys...)
	require.NoError(tb, err)
	_, err = w.Write(plain)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return file.Bytes()
}

// A recipient who re-signs the list of recipients, or whatever else, has no key for
// it.
func TestEveryFlippedBitOfASignatureIsRefused(t *testing.T) {
	anna, boris := person(t, "anna"), person(t, "boris")
	text := seal(t, "contract", anna, "c-17", boris.Person()).plainSignature(t, boris)
	from := anna.Person()
	_, err := document.Verify(text, from, "c-17", strings.NewReader("contract"))
	require.NoError(t, err)
	flips(text, func(bit int, flipped []byte) {
		if _, err := document.Verify(flipped, from, "c-17", strings.NewReader("contract")); err == nil {
			t.Error("verifies with bit changed:", bit)
		}
	})
	for n := range text {
		_, err := document.Verify(text[:n], from, "c-17", strings.NewReader("contract"))
		require.Error(t, err)
	}
	for _, changed := range []string{"contracT", "", "contract "} {
		_, err := document.Verify(text, from, "c-17", strings.NewReader(changed))
		require.ErrorIs(t, err, document.ErrSignature)
	}
	down := errors.New("down")
	_, err = document.Verify(text, from, "c-17", iotest.ErrReader(down))
	require.ErrorIs(t, err, down)
	_, err = document.Verify(text, nil, "c-17", strings.NewReader("contract"))
	require.Error(t, err)
	_, err = document.Verify(text, &document.Person{}, "c-17", strings.NewReader("contract"))
	require.Error(t, err)
}

// Every bit of a sealed letter, too; classic keys make it small enough.
func TestEveryFlippedBitOfALetterIsRefused(t *testing.T) {
	anna, boris := classic(t, "anna"), classic(t, "boris")
	l := seal(t, "contract", anna, "c-17", boris.Person())
	path := filepath.Join(t.TempDir(), "contract.txt")
	require.NoError(t, l.open(path, boris, anna.Person(), "c-17"))
	require.NoError(t, os.Remove(path))
	from := anna.Person()
	flips(l.document, func(bit int, flipped []byte) {
		if err := (letter{flipped, l.signature}).open(path, boris, from, "c-17"); err == nil {
			t.Error("opens with bit of the document changed:", bit)
		}
	})
	flips(l.signature, func(bit int, flipped []byte) {
		if err := (letter{l.document, flipped}).open(path, boris, from, "c-17"); err == nil {
			t.Error("opens with bit of the signature changed:", bit)
		}
	})
	for n := range l.document {
		require.Error(t, letter{l.document[:n], l.signature}.open(path, boris, from, "c-17"))
	}
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Empty(t, left, "neither a document nor a temporary file")
}

// classic makes an identity of age before 1.3.
func classic(tb testing.TB, name string) *document.Identity {
	tb.Helper()
	key, err := age.GenerateX25519Identity()
	require.NoError(tb, err)
	i, err := document.ImportIdentity("acme", name, key.String())
	require.NoError(tb, err)
	return i
}

func TestLargeLetterThatEndsEarlyLeavesNoFile(t *testing.T) {
	anna, boris := person(t, "anna"), person(t, "boris")
	l := seal(t, string(content(3*chunk)), anna, "c-17", boris.Person())
	for chunks := range 3 {
		cut := letter{l.document[:len(l.document)-(chunks+1)*(chunk+16)], l.signature}
		require.Error(t, cut.refused(t, boris, anna.Person(), "c-17"))
	}
}

func TestWhatSealRefuses(t *testing.T) {
	anna, boris, old := person(t, "anna"), person(t, "boris"), classic(t, "vera")
	foreign, err := document.GenerateIdentity("other", "boris")
	require.NoError(t, err)
	var many []*document.Person
	for n := range 257 {
		many = append(many, person(t, fmt.Sprint("p", n)).Person())
	}
	for name, c := range map[string]struct {
		from *document.Identity
		id   string
		to   []*document.Person
	}{
		"no sender":         {nil, "c-17", []*document.Person{boris.Person()}},
		"zero sender":       {&document.Identity{}, "c-17", []*document.Person{boris.Person()}},
		"nobody":            {anna, "c-17", nil},
		"nil":               {anna, "c-17", []*document.Person{nil}},
		"zero":              {anna, "c-17", []*document.Person{{}}},
		"twice":             {anna, "c-17", []*document.Person{boris.Person(), boris.Person()}},
		"another tenant's":  {anna, "c-17", []*document.Person{foreign.Person()}},
		"too many":          {anna, "c-17", many},
		"no id":             {anna, "", []*document.Person{boris.Person()}},
		"id with two lines": {anna, "c-17\nfrom boris", []*document.Person{boris.Person()}},
		"old and new keys":  {anna, "c-17", []*document.Person{boris.Person(), old.Person()}},
	} {
		var d, s bytes.Buffer
		require.Error(t, document.Seal(&d, &s, strings.NewReader("contract"), c.from, c.id, c.to...), name)
		require.Empty(t, d.Bytes(), name)
		require.Empty(t, s.Bytes(), name)
	}
	require.NoError(t, document.Seal(io.Discard, io.Discard, strings.NewReader("contract"), anna, "c-17", many[:256]...))

	down := errors.New("down")
	var s bytes.Buffer
	require.ErrorIs(t, document.Seal(io.Discard, &s, iotest.ErrReader(down), anna, "c-17", boris.Person()), down)
	require.Empty(t, s.Bytes(), "no signature of half a document")
	require.ErrorIs(t, document.Seal(failing{down}, &s, strings.NewReader(""), anna, "c-17", boris.Person()), down)
	require.ErrorIs(t, document.Seal(io.Discard, failing{down}, strings.NewReader(""), anna, "c-17", boris.Person()), down)

	l := seal(t, "contract", anna, "c-17", boris.Person())
	require.Error(t, l.refused(t, nil, anna.Person(), "c-17"))
	require.Error(t, l.refused(t, &document.Identity{}, anna.Person(), "c-17"))
	require.Error(t, l.refused(t, boris, nil, "c-17"))
	require.Error(t, l.refused(t, boris, &document.Person{}, "c-17"))
	require.Error(t, l.open(filepath.Join(t.TempDir(), "missing", "contract.txt"), boris, anna.Person(), "c-17"))
	require.Error(t, l.open(t.TempDir(), boris, anna.Person(), "c-17"), "a folder is in the way")
	require.Error(t, letter{l.document, ageTo(t, make([]byte, 1<<20), boris.Person())}.refused(t, boris, anna.Person(), "c-17"))
	require.Error(t, letter{l.document, nil}.refused(t, boris, anna.Person(), "c-17"))
}

// Anybody with the sender's public key checks a signature; nothing of this package is
// needed.
func TestSignatureIsPlainEd25519(t *testing.T) {
	anna, boris := person(t, "anna"), person(t, "boris")
	text := seal(t, "contract", anna, "c-17", boris.Person()).plainSignature(t, boris)
	last := bytes.LastIndex(text, []byte("ed25519 "))
	card := strings.Split(anna.Person().String(), "\n")
	public := decode(t, strings.TrimPrefix(card[4], "ed25519 "))
	signature := decode(t, strings.TrimSpace(strings.TrimPrefix(string(text[last:]), "ed25519 ")))
	require.True(t, ed25519.Verify(public, text[:last], signature))
}

// A signature has one spelling, also for who could sign another.
func TestSignaturesHaveOneSpelling(t *testing.T) {
	anna, boris := person(t, "anna"), person(t, "boris")
	good := string(seal(t, "contract", anna, "c-17", anna.Person(), boris.Person()).plainSignature(t, boris))
	require.NoError(t, document.ParseSignature([]byte(good)))
	for name, change := range map[string][2]string{
		"not sorted":     {"to anna\nto boris\n", "to boris\nto anna\n"},
		"twice":          {"to anna\nto boris\n", "to anna\nto anna\n"},
		"nobody":         {"to anna\nto boris\n", ""},
		"empty name":     {"to anna\n", "to \n"},
		"odd name":       {"to anna\n", "to anna\t\n"},
		"no sender":      {"from anna\n", "from \n"},
		"no tenant":      {"tenant acme\n", "tenant \n"},
		"no document":    {"document c-17\n", "document \n"},
		"other order":    {"tenant acme\ndocument c-17\n", "document c-17\ntenant acme\n"},
		"later version":  {"signature 1\n", "signature 2\n"},
		"line ends":      {"\n", "\r\n"},
		"no last line":   {"\ned25519 ", "\n"},
		"no last digits": {"sha256 ", "sha256 00"},
	} {
		require.ErrorIs(t, document.ParseSignature([]byte(strings.ReplaceAll(good, change[0], change[1]))), document.ErrMalformed, name)
	}
	require.ErrorIs(t, document.ParseSignature([]byte(good+"\n")), document.ErrMalformed)
	require.ErrorIs(t, document.ParseSignature([]byte(strings.TrimSuffix(good, "\n"))), document.ErrMalformed)
}
