package encrypt

import (
	"encoding/binary"

	"github.com/crmguard/crmguard"
)

// The formats are specified in docs/formats/encrypt.md.
const (
	headerSize = 8
	nonceSize  = 12
	tagSize    = 16
	keySize    = 32
	macSize    = 32

	formatVersion = 1

	// Algorithms of what follows a header.
	algorithmGCM     = 1 // AES-256-GCM: nonce, ciphertext, tag
	algorithmHMAC    = 2 // HMAC-SHA-256
	algorithmKeyset  = 3 // a Tink keyset under the KEK
	algorithmWrapped = 4 // a key under the tenant's keyset
	algorithmPadded  = 5 // as algorithmGCM, of a plaintext that was padded

	algorithmArgon2id = 6 // a KEK file under a passphrase
	algorithmPBKDF2   = 7 // likewise
)

// Domain strings keep what is authenticated for one use from passing in another.
const (
	domainField  = "crmguard/encrypt field\x00"
	domainMAC    = "crmguard/encrypt mac\x00"
	domainIndex  = "crmguard/encrypt index\x00"
	domainKeyset = "crmguard/encrypt keyset\x00"
	domainKey    = "crmguard/encrypt key\x00"

	domainKeyFile = "crmguard/encrypt key file\x00"
)

const magic = "cg"

// header starts everything that the package stores: two bytes of magic, version
// of the format, algorithm, version of the key (big-endian).
type header struct {
	algorithm byte
	key       uint32
}

func (h header) append(b []byte) []byte {
	start := uint32(magic[0])<<24 | uint32(magic[1])<<16 | formatVersion<<8 | uint32(h.algorithm)
	return binary.BigEndian.AppendUint64(b, uint64(start)<<32|uint64(h.key)) // all at once, which is faster
}

// parse returns the version of the key and what follows the header.
func parse(b []byte, algorithm byte, minimum int) (key uint32, payload []byte, err error) {
	if len(b) < headerSize+minimum || b[0] != magic[0] || b[1] != magic[1] || b[2] != formatVersion || b[3] != algorithm {
		return 0, nil, ErrMalformed
	}
	key = binary.BigEndian.Uint32(b[4:headerSize])
	if key == 0 {
		return 0, nil, ErrMalformed
	}
	return key, b[headerSize:], nil
}

// algorithmAt is where a header says its algorithm.
const algorithmAt = 3

// parseField parses the header of a sealed field.
func parseField(sealed []byte) (algorithm byte, version uint32, err error) {
	algorithm = algorithmGCM
	if len(sealed) > algorithmAt && sealed[algorithmAt] == algorithmPadded {
		algorithm = algorithmPadded
	}
	version, _, err = parse(sealed, algorithm, nonceSize+tagSize)
	return algorithm, version, err
}

// appendAD appends associated data: the domain, the header's variable part, and
// every string after its length, so that no two places share it.
func appendAD(b []byte, domain string, h header, parts ...string) []byte {
	b = append(b, domain...)
	b = append(b, formatVersion, h.algorithm)
	b = binary.BigEndian.AppendUint32(b, h.key)
	for _, part := range parts {
		b = appendString(b, part)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // strings of 4 GiB do not come here: see checkPlace
	return append(b, s...)
}

// appendPlaceAD is appendAD for a place, without the slice of parts.
func appendPlaceAD(b []byte, domain string, h header, at *crmguard.Place) []byte {
	b = appendAD(b, domain, h)
	b = appendString(b, at.Tenant)
	b = appendString(b, at.Client)
	b = appendString(b, at.Kind)
	b = appendString(b, at.Field)
	return appendString(b, at.Record)
}

// scopeAD is what a wrapped key is bound to. The header names the version of the
// wrapping key, version is the key's own.
func scopeAD(domain string, h header, s Scope, version uint32) []byte {
	const numbers = 1 + 1 + 4 + 1 + 4 + 4 + 4
	return appendScopeAD(make([]byte, 0, len(domain)+numbers+len(s.Tenant)+len(s.Name)), domain, h, &s, version)
}

func appendScopeAD(b []byte, domain string, h header, s *Scope, version uint32) []byte {
	b = appendAD(b, domain, h)
	b = append(b, byte(s.Purpose))
	b = binary.BigEndian.AppendUint32(b, version)
	b = appendString(b, s.Tenant)
	return appendString(b, s.Name)
}

// maxPart keeps the lengths in associated data far from their 32 bits.
const maxPart = 1 << 16

func checkPlace(at *crmguard.Place) error {
	if at.Kind == ownKind {
		return errOwnKind
	}
	return checkParts(at)
}

func checkParts(at *crmguard.Place) error {
	switch {
	case at.Tenant == "":
		return errTenant
	case len(at.Tenant) > maxPart, len(at.Client) > maxPart, len(at.Kind) > maxPart, len(at.Record) > maxPart, len(at.Field) > maxPart:
		return errName
	}
	return nil
}
