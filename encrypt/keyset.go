package encrypt

import (
	"bytes"
	"crypto/cipher"
	"crypto/fips140"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// ErrFIPS says that a key file needs an algorithm that GODEBUG=fips140=only forbids.
var ErrFIPS = errors.New("encrypt: FIPS 140-3 is enforced, where only keysets of AES-GCM and passphrases by PBKDF2 work")

// gcmKeyset is a Tink keyset of AES-GCM keys on the standard library's GCM. It makes
// and reads the same bytes as Tink's own primitive, in a third of the time to build,
// and where FIPS 140-3 is enforced: there GCM has to choose the nonce itself, which
// Tink's does not let it.
type gcmKeyset struct {
	primary gcmKey
	keys    []gcmKey // with the primary; disabled ones are left out
}

type gcmKey struct {
	prefix []byte // Tink's output prefix: 0x01 and the key's id, 0x00 and the id, or nothing
	aead   cipher.AEAD
}

// keysetAEAD is an AEAD that can decrypt into memory of the caller's.
type keysetAEAD interface {
	tink.AEAD
	decryptTo(dst, ciphertext, associatedData []byte) ([]byte, error)
}

// newKeysetAEAD returns the AEAD of a keyset. Keysets with keys of other types than
// AES-GCM are left to Tink.
func newKeysetAEAD(handle *keyset.Handle) (keysetAEAD, error) {
	var all gcmKeyset
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return nil, err
		}
		if entry.KeyStatus() != keyset.Enabled {
			continue
		}
		key, ok, err := newGCMKey(entry)
		if err != nil {
			return nil, err
		}
		if !ok {
			return otherAEAD(handle)
		}
		all.keys = append(all.keys, key)
		if entry.IsPrimary() {
			all.primary = key
		}
	}
	if all.primary.aead == nil {
		return nil, errors.New("encrypt: the keyset's primary key is not enabled")
	}
	return &all, nil
}

// newGCMKey returns false for what Tink's AES-GCM would not take either.
func newGCMKey(entry *keyset.Entry) (gcmKey, bool, error) {
	key, ok := entry.Key().(*aesgcm.Key)
	if !ok {
		return gcmKey{}, false, nil
	}
	p, ok := key.Parameters().(*aesgcm.Parameters)
	if !ok || p.IVSizeInBytes() != nonceSize || p.TagSizeInBytes() != tagSize || p.KeySizeInBytes() != 16 && p.KeySizeInBytes() != keySize {
		return gcmKey{}, false, nil
	}
	gcm, err := newGCM(key.KeyBytes().Data(insecuresecretdataaccess.Token{}))
	return gcmKey{key.OutputPrefix(), gcm}, true, err
}

// tinkAEAD is Tink's own primitive of a keyset.
type tinkAEAD struct{ tink.AEAD }

func (a tinkAEAD) decryptTo(dst, ciphertext, associatedData []byte) ([]byte, error) {
	plaintext, err := a.Decrypt(ciphertext, associatedData)
	return append(dst, plaintext...), err
}

func otherAEAD(handle *keyset.Handle) (keysetAEAD, error) {
	if fips140.Enforced() {
		return nil, ErrFIPS
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("encrypt: not an AEAD keyset: %w", err)
	}
	return tinkAEAD{primitive}, nil
}

func (s *gcmKeyset) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	key := s.primary
	out := make([]byte, 0, len(key.prefix)+nonceSize+len(plaintext)+tagSize)
	return key.aead.Seal(append(out, key.prefix...), nil, plaintext, associatedData), nil //nolint:gosec // it makes its nonce itself
}

// errNoDecrypt says no more than Tink's.
var errNoDecrypt = errors.New("encrypt: decryption failed")

func (s *gcmKeyset) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	return s.decryptTo(nil, ciphertext, associatedData)
}

func (s *gcmKeyset) decryptTo(dst, ciphertext, associatedData []byte) ([]byte, error) {
	for _, key := range s.keys { // keys without a prefix fit everything
		if sealed, ok := bytes.CutPrefix(ciphertext, key.prefix); ok {
			if plaintext, err := key.aead.Open(dst, nil, sealed, associatedData); err == nil {
				return plaintext, nil
			}
		}
	}
	return nil, errNoDecrypt
}
