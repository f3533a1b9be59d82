// Package document encrypts whole files with age: the files of a client, and
// documents that people send each other.
//
// Files of a client, such as attachments, are age files whose file key is sealed
// by the same keys as the client's fields. They die with the client, ask the norm
// when they are opened, and open at no other client, record or field. Only the
// CRM opens them.
//
//	files, err := document.NewFiles(keys)
//	at := crmguard.Place{Tenant: "acme", Client: "c7", Kind: "attachments", Record: id, Field: "file"}
//	w, err := files.Encrypt(ctx, at, stored)         // io.Copy(w, upload), then w.Close
//	r, err := files.Open(ctx, at, stored, storedSize) // http.ServeContent(..., r)
//
// Documents between people are encrypted for the people whom the sender chose, and
// signed by the sender. The standard age tool opens them with the identity that a
// person takes away.
//
//	anna, err := document.GenerateIdentity("acme", "anna")
//	stored, err := anna.WrapPassphrase(passphrase) // only she opens it
//	card := anna.Person().String()                 // public; whom it names is for the host to protect
//
//	err = document.Seal(letter, signature, contract, anna, "contract-17", boris, vera)
//	err = document.OpenFile("contract.pdf", letter, signature, borisIdentity, annaPerson, "contract-17")
//
// # Security notes
//
//   - Encryption to a public key does not say who sent it, so [Seal] signs:
//     tenant, document, sender, recipients and SHA-256 of the document. A recipient
//     who passes the document on to others cannot make it look as if the sender
//     had sent it to them.
//   - The signature is a file of its own, encrypted for the same people, so that
//     the document's payload is the document and nothing else, whatever opens it.
//     Who uses the age tool alone has checked no signature.
//   - A stream gives out what it has authenticated so far before it reaches the end.
//     [Files.Open] and [OpenFile] notice a missing end before anything is used;
//     what was read from [Files.Decrypt] counts only after io.EOF.
//   - [OpenFile] decrypts into a temporary file (0600) in the folder of the
//     destination. A process that is killed meanwhile leaves it there, named
//     ".crmguard-*".
//   - [Identity.WrapPassphrase] keeps an identity from the server's operator at rest,
//     not from an operator who changes the program that asks for the passphrase.
//     [Identity.WrapServerOpenable] does not keep it from the server at all; tell
//     people which of the two they have ([ServerOpenable]).
//   - Who can replace a person's card reads what is sealed for that person from then on.
//     Keep cards where their change is noticed, with a MAC of a
//     [crmguard.Authenticator] for instance; the example of [ParsePerson] does.
//   - Lengths are not hidden, nor how many recipients there are; their names are.
//   - An older file of the same place is accepted in place of the newer one, and so is
//     an older document under the same id. Give each version a record, or an id, of
//     its own.
//   - What was sealed for people asks no norm when they open it, and stays readable for
//     them when a client is erased. The journal is where that was noted.
//
// age's primitives do not run under GODEBUG=fips140=only: whatever makes a [Files],
// an [Identity] or a [Person] is [ErrFIPS] there.
//
// # Format and compatibility
//
// docs/formats/document.md. Encrypted files are age v1 files, of which age
// promises that later versions read them; the stanza of a client's file, cards,
// identities and signatures carry versions, and golden files are in testdata.
package document

import (
	"bufio"
	"bytes"
	"crypto/fips140"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"filippo.io/age"
)

var (
	// ErrFIPS says that the process runs under GODEBUG=fips140=only, where age
	// cannot work.
	ErrFIPS = errors.New("document: age does not run where only FIPS 140-3 algorithms may")
	// ErrMalformed says that bytes are not in the package's format.
	ErrMalformed = errors.New("document: not in the package's format")
	// ErrNotRecipient says that a document was not sealed for this person.
	ErrNotRecipient = errors.New("document: not sealed for this person")
	// ErrPassphrase says that an identity does not open with this passphrase, or
	// was changed.
	ErrPassphrase = errors.New("document: wrong passphrase")
	// ErrSignature says that a signature is not the expected sender's, or is of
	// another document, other recipients or other content.
	ErrSignature = errors.New("document: the signature does not fit")

	errName = errors.New("document: names are 1 to 512 bytes of printable UTF-8")
)

const (
	maxName = 512 // bytes, as in package encrypt
	intro   = "age-encryption.org/v1\n"
)

// usable is asked before age, which panics or fails obscurely under enforcement:
// early, by what makes the values of this package, and again by their methods.
func usable() error {
	if fips140.Enforced() {
		return ErrFIPS
	}
	return nil
}

// checkNames keeps names out of each other's lines: the texts of this package have a
// line for each.
func checkNames(names ...string) error {
	for _, name := range names {
		if name == "" || len(name) > maxName || !utf8.ValidString(name) ||
			strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return errName
		}
	}
	return nil
}

// encrypt is age.Encrypt.
func encrypt(dst io.Writer, to ...age.Recipient) (io.WriteCloser, error) {
	if err := usable(); err != nil {
		return nil, err
	}
	w, err := age.Encrypt(dst, to...)
	if err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	return w, nil
}

// decrypt is age.Decrypt, except that its errors do not quote what was never
// encrypted.
func decrypt(src io.Reader, identity age.Identity) (io.Reader, error) {
	if err := usable(); err != nil {
		return nil, err
	}
	buffered := bufio.NewReader(src)
	start, err := buffered.Peek(len(intro))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("document: %w", err)
	}
	if !bytes.Equal(start, []byte(intro)) {
		return nil, ErrMalformed
	}
	r, err := age.Decrypt(buffered, identity)
	if err != nil {
		return nil, decryptError(err)
	}
	return r, nil
}

// decryptError says in this package's words that no stanza fits.
func decryptError(err error) error {
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return ErrNotRecipient
	}
	if strings.HasPrefix(err.Error(), "failed to read header: ") {
		err = unquoted{err}
	}
	return fmt.Errorf("document: %w", err)
}

// unquoted is an error about a header without the line of it that age quotes: up to 2 MiB of
// whatever somebody has stored.
type unquoted struct{ error }

func (e unquoted) Error() string {
	text, _, _ := strings.Cut(e.error.Error(), `"`)
	return strings.TrimRight(text, ": ")
}

func (e unquoted) Unwrap() error { return e.error }

// readShort reads all of a text that has at most limit bytes.
func readShort(r io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	if int64(len(text)) > limit {
		return nil, ErrMalformed
	}
	return text, nil
}
