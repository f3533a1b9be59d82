package document

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"

	"filippo.io/age"
)

// Seal encrypts src for the recipients into document, and from's signature of it into
// signature: two age files. It reads src once, in constant memory. Who is to
// read the document again later must be among the recipients, the sender too. The
// id names the document for the people who expect it.
//
// The signature is written last: without it there is nothing to open.
func Seal(document, signature io.Writer, src io.Reader, from *Identity, id string, to ...*Person) error {
	if from == nil || from.key == nil {
		return errIdentity
	}
	s := &Signature{Tenant: from.tenant, Document: id, From: from.id}
	var keys []age.Recipient
	for _, p := range to {
		if p == nil || p.key == nil {
			return errPerson
		}
		if p.tenant != from.tenant {
			return errRecipients
		}
		s.To = append(s.To, p.id)
		keys = append(keys, p.key)
	}
	slices.Sort(s.To)
	if err := s.check(); err != nil {
		return err
	}
	digest := sha256.New()
	if err := encryptTo(document, io.TeeReader(src, digest), keys); err != nil {
		return err
	}
	digest.Sum(s.SHA256[:0])
	return encryptTo(signature, bytes.NewReader(s.sign(from.signer)), keys)
}

func encryptTo(dst io.Writer, src io.Reader, keys []age.Recipient) error {
	w, err := encrypt(dst, keys...)
	if err != nil {
		return err
	}
	return finish(w, src)
}

// OpenFile decrypts a document that from sealed for as under this id, in constant
// memory. path becomes a new file (0600), or is replaced by it, once all of the
// document is there and the signature fits; after an error path is as it was.
func OpenFile(path string, document, signature io.Reader, as *Identity, from *Person, id string) error {
	if as == nil || as.key == nil {
		return errIdentity
	}
	if from == nil || from.key == nil {
		return errPerson
	}
	r, err := decrypt(signature, as.key)
	if err != nil {
		return err
	}
	signed, err := readShort(r, maxSignature)
	if err != nil {
		return err
	}
	s, err := verify(signed, from, id)
	if err != nil {
		return err
	}
	if s.Tenant != as.tenant || !slices.Contains(s.To, as.id) {
		return fmt.Errorf("%w: signed for others", ErrSignature)
	}
	return release(path, document, as, s.fits)
}

// release decrypts into a temporary file, which gets its name only when check
// accepts what was written.
func release(path string, document io.Reader, as *Identity, check func(written hash.Hash) error) (err error) {
	r, err := decrypt(document, as.key)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".crmguard-*")
	if err != nil {
		return fmt.Errorf("document: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	digest := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, digest), r); err != nil {
		return fmt.Errorf("document: %w", err)
	}
	if err := check(digest); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("document: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("document: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("document: %w", err)
	}
	return nil
}
