package document

import (
	"hash"
	"io"
)

// ParseIdentity, ParseSignature and WrapPassphraseWith are for tests: of parsers,
// and of passphrases without waiting.
var ParseIdentity = parseIdentity

// ParseSignature returns whether a text is in the format.
func ParseSignature(text []byte) error {
	_, _, _, err := parseSignature(text)
	return err
}

// WrapPassphraseWith has a work factor of the caller's.
func (i *Identity) WrapPassphraseWith(passphrase []byte, work int) ([]byte, error) {
	return i.wrapPassphrase(passphrase, work)
}

// ReleaseUnchecked is OpenFile with the check of the signature broken.
func ReleaseUnchecked(path string, document io.Reader, as *Identity) error {
	return release(path, document, as, func(hash.Hash) error { return nil })
}
