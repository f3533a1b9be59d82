package encrypt

import (
	"context"
	"crypto/cipher"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
)

// Matcher looks at values as a search does.
type Matcher struct{ *matcher }

// NewMatcher reads a query.
func NewMatcher(query string) Matcher { return Matcher{newMatcher(query)} }

// Match folds values and looks at them.
func (m Matcher) Match(values ...string) bool {
	var room [haystackRoom]byte
	haystack := room[:0]
	for _, value := range values {
		haystack = append(fold(haystack, value), 0)
	}
	return !m.empty() && m.match(haystack)
}

// WaitForPoll waits until polls in the background have ended.
func (k *Keyring) WaitForPoll() { k.background.Wait() }

// Cached says of how many scopes keys are in memory.
func (k *Keyring) Cached() int { return k.cache.len() }

// OpenKeyFileStepping is OpenKeyFile with create. It says what it and later changes
// have just done to the file.
func OpenKeyFileStepping(path string, step func(string)) (RotatingKEK, error) {
	return (&keyFile{name: path, content: clearContent{}, step: step}).open(true)
}

// NewKeysetAEAD is the AEAD of KEK files and tenants' keysets.
func NewKeysetAEAD(handle *keyset.Handle) (tink.AEAD, error) { return newKeysetAEAD(handle) }

// SealUnderPassphrase returns a passphrase file's content, and what opens it: as when
// it is opened first, and as when it is read again later.
func SealUnderPassphrase(passphrase, json []byte) (file []byte, first, later func([]byte) ([]byte, error), err error) {
	opening := &passphraseContent{passphrase: passphrase}
	file, err = opening.seal(json)
	running := &passphraseContent{derivation: opening.derivation, key: opening.key}
	return file, opening.open, running.open, err
}

// ParsePassphraseFile reads what stands before the nonce, and writes it again.
func ParsePassphraseFile(file []byte) (head, sealed []byte, err error) {
	d, sealed, err := parseDerivation(file)
	if err != nil {
		return nil, nil, err
	}
	return d.append(nil), sealed, nil
}

// HMAC is what MACs are made of.
func HMAC(secret []byte, version uint32, at crmguard.Place, data []byte) []byte {
	return (&key{mac: &macKey{secret: secret}, version: version}).hmac(domainMAC, &at, data)
}

// HMACMessage is what HMAC authenticates.
func HMACMessage(version uint32, at crmguard.Place, data []byte) []byte {
	return append(appendPlaceAD(nil, domainMAC, header{algorithmHMAC, version}, &at), data...)
}

// NewGCM is what seals fields.
func NewGCM(secret []byte) (cipher.AEAD, error) { return newGCM(secret) }

// Unwrap makes stored keys of one scope ready for use, as for a client that is opened
// for the first time.
func (k *Keyring) Unwrap(ctx context.Context, records, tenantRecords []Record) error {
	unwrap := unwrapper{keyring: k, keysets: tenantRecords}
	return unwrap.all(ctx, newScopeKeys(len(records)), records)
}

// ExactIndexes are the names of all indexes; those that are exact find whole values.
func ExactIndexes() map[string]bool {
	exact := make(map[string]bool, len(indexes))
	for name, kind := range indexes {
		exact[name] = kind.exact
	}
	return exact
}

// Usable says whether the keys of a scope may be used, as jobs find them.
func Usable(ctx context.Context, k *Keyring, s Scope) error {
	keys, err := k.keysOfAll(ctx, s.Tenant, []Scope{s}, false)
	if err != nil {
		return err
	}
	return keys[0].usable(&s)
}
