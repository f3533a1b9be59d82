package encrypt

import (
	"crypto/fips140"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/argon2"
)

// ErrPassphrase says that a passphrase does not open a key file, or that the file was
// changed: the two look the same.
var ErrPassphrase = errors.New("encrypt: the passphrase is wrong, or the file was changed")

var (
	errPassphraseShort = errors.New("a passphrase for a key file has at least 12 bytes")
	errSealedAnew      = errors.New("somebody has made it anew: open it again with its passphrase")
)

// OpenPassphraseFile is [OpenKeyFile] for a keyset that is itself sealed under a
// passphrase, so that a copy of the file is of no use. Somebody has to enter the
// passphrase at each start; it is not kept. To make a file it must have at least 12 bytes. The
// rules of place and mode are the same, and so is rotating, which keeps the passphrase.
//
// The key comes from the passphrase by argon2id (64 MiB, three passes), and in FIPS
// 140-3 mode by PBKDF2 with HMAC-SHA-256 (600,000 rounds). A file by argon2id is
// [ErrFIPS] under GODEBUG=fips140=only. A wrong passphrase is [ErrPassphrase].
func OpenPassphraseFile(path, dataDir string, passphrase []byte, create bool) (RotatingKEK, error) {
	content := &passphraseContent{passphrase: append([]byte{}, passphrase...)} // never nil
	defer content.forget()
	return (&keyFile{name: path, dataDir: dataDir, content: content}).open(create)
}

// saltSize of NIST SP 800-132 and RFC 9106.
const saltSize = 16

// derivation is how a key comes from a passphrase. It is comparable.
type derivation struct {
	algorithm byte
	passes    uint32 // of argon2id; of PBKDF2: iterations
	memory    uint32 // KiB
	threads   uint8
	salt      [saltSize]byte
}

// What new files are made with: RFC 9106, section 4, the second recommended choice;
// OWASP's Password Storage Cheat Sheet for PBKDF2 with HMAC-SHA-256. Files with less
// are refused, and so is what could keep a process busy for minutes: whoever can plant
// a file need not know the passphrase to make it costly.
const (
	argonPasses, mostArgonPasses   = 3, 16
	argonMemory, mostArgonMemory   = 64 << 10, 1 << 20 // KiB
	argonThreads, mostArgonThreads = 4, 16
	pbkdf2Rounds, mostPBKDF2Rounds = 600_000, 10_000_000
)

func newDerivation() derivation {
	d := derivation{algorithm: algorithmArgon2id, passes: argonPasses, memory: argonMemory, threads: argonThreads}
	if fips140.Enabled() {
		d = derivation{algorithm: algorithmPBKDF2, passes: pbkdf2Rounds}
	}
	_, _ = rand.Read(d.salt[:]) // never fails, see crypto/rand
	return d
}

// append writes what stands before the nonce.
func (d *derivation) append(b []byte) []byte {
	b = header{d.algorithm, 1}.append(b)
	b = binary.BigEndian.AppendUint32(b, d.passes)
	if d.algorithm == algorithmArgon2id {
		b = binary.BigEndian.AppendUint32(b, d.memory)
		b = append(b, d.threads)
	}
	return append(b, d.salt[:]...)
}

// parseDerivation returns what follows it, too.
func parseDerivation(file []byte) (d derivation, sealed []byte, err error) {
	if len(file) < headerSize {
		return d, nil, ErrKeyFileMalformed
	}
	d.algorithm = file[algorithmAt]
	size := 4 + saltSize
	if d.algorithm == algorithmArgon2id {
		size += 5
	}
	version, rest, err := parse(file, d.algorithm, size+nonceSize+tagSize)
	if err != nil || version != 1 {
		return d, nil, ErrKeyFileMalformed
	}
	fields, sealed := rest[:size], rest[size:]
	d.passes = binary.BigEndian.Uint32(fields)
	copy(d.salt[:], fields[size-saltSize:])
	ok := false
	switch d.algorithm {
	case algorithmArgon2id:
		d.memory, d.threads = binary.BigEndian.Uint32(fields[4:]), fields[8]
		ok = between(argonPasses, d.passes, mostArgonPasses) && between(argonMemory, d.memory, mostArgonMemory) &&
			between(1, uint32(d.threads), mostArgonThreads)
	case algorithmPBKDF2:
		ok = between(pbkdf2Rounds, d.passes, mostPBKDF2Rounds)
	}
	if !ok {
		return d, nil, ErrKeyFileMalformed
	}
	return d, sealed, nil
}

func keyFileAD(head []byte) []byte { return append([]byte(domainKeyFile), head...) }

func between(least, n, most uint32) bool { return least <= n && n <= most }

func (d *derivation) key(passphrase []byte) ([]byte, error) {
	if d.algorithm == algorithmPBKDF2 {
		return pbkdf2.Key(sha256.New, string(passphrase), d.salt[:], int(d.passes), keySize)
	}
	if fips140.Enforced() {
		return nil, ErrFIPS
	}
	return argon2.IDKey(passphrase, d.salt[:], d.passes, d.memory, d.threads, keySize), nil
}

// passphraseContent seals a keyset under a passphrase. The key file calls it for one
// read or write at a time.
type passphraseContent struct {
	passphrase []byte // nil once the file is open
	derivation derivation
	key        []byte // of the derivation
}

func (c *passphraseContent) forget() {
	clear(c.passphrase)
	c.passphrase = nil
}

// derive sets the key, unless it is that of the derivation already.
func (c *passphraseContent) derive(d derivation) (err error) {
	if c.key != nil && c.derivation == d {
		return nil
	}
	if c.passphrase == nil {
		return errSealedAnew
	}
	c.key, err = d.key(c.passphrase)
	c.derivation = d
	return err
}

func (c *passphraseContent) seal(json []byte) ([]byte, error) {
	if c.key == nil {
		if len(c.passphrase) < 12 {
			return nil, errPassphraseShort
		}
		if err := c.derive(newDerivation()); err != nil {
			return nil, err
		}
	}
	gcm, err := newGCM(c.key)
	if err != nil {
		return nil, err
	}
	head := c.derivation.append(nil)
	return gcm.Seal(head, nil, json, keyFileAD(head)), nil //nolint:gosec // it makes its nonce itself
}

func (c *passphraseContent) open(file []byte) ([]byte, error) {
	d, sealed, err := parseDerivation(file)
	if err != nil {
		return nil, err
	}
	if err := c.derive(d); err != nil {
		return nil, err
	}
	gcm, err := newGCM(c.key)
	if err != nil {
		return nil, err
	}
	json, err := gcm.Open(nil, nil, sealed, keyFileAD(d.append(nil)))
	if err != nil {
		return nil, ErrPassphrase
	}
	return json, nil
}
