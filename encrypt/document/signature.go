package document

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
)

const (
	signatureIntro = "crmguard document signature 1"
	maxRecipients  = 256
	maxSignature   = 256 << 10
)

var errRecipients = fmt.Errorf("document: want 1 to %d recipients of the sender's tenant, each once", maxRecipients)

// Signature is what a sender signed. Only [Verify] returns one.
type Signature struct {
	Tenant   string
	Document string
	From     string
	To       []string // sorted
	SHA256   [sha256.Size]byte
}

// text is what is signed.
func (s *Signature) text() []byte {
	b := fmt.Appendf(nil, "%s\ntenant %s\ndocument %s\nfrom %s\n", signatureIntro, s.Tenant, s.Document, s.From)
	for _, to := range s.To {
		b = fmt.Appendf(b, "to %s\n", to)
	}
	return fmt.Appendf(b, "sha256 %x\n", s.SHA256)
}

// sign returns the text with its signature as the last line.
func (s *Signature) sign(key ed25519.PrivateKey) []byte {
	text := s.text()
	return fmt.Appendf(text, "ed25519 %s\n", b64.EncodeToString(ed25519.Sign(key, text)))
}

// parseSignature reads what sign returned, and splits it into what is signed and
// the signature. Nothing of it is true before that was verified.
func parseSignature(signed []byte) (s *Signature, text, sig []byte, err error) {
	lines := strings.Split(string(signed), "\n")
	n := len(lines)
	if len(signed) > maxSignature || n < 8 || n > 7+maxRecipients {
		return nil, nil, nil, ErrMalformed
	}
	s = &Signature{
		Tenant:   strings.TrimPrefix(lines[1], "tenant "),
		Document: strings.TrimPrefix(lines[2], "document "),
		From:     strings.TrimPrefix(lines[3], "from "),
	}
	for _, line := range lines[4 : n-3] {
		s.To = append(s.To, strings.TrimPrefix(line, "to "))
	}
	digest, err := hex.DecodeString(strings.TrimPrefix(lines[n-3], "sha256 "))
	if err != nil || len(digest) != len(s.SHA256) {
		return nil, nil, nil, ErrMalformed
	}
	copy(s.SHA256[:], digest)
	sig, err = b64.DecodeString(strings.TrimPrefix(lines[n-2], "ed25519 "))
	if err != nil || len(sig) != ed25519.SignatureSize {
		return nil, nil, nil, ErrMalformed
	}
	text = s.text()
	again := fmt.Appendf(slices.Clip(text), "ed25519 %s\n", b64.EncodeToString(sig))
	if !bytes.Equal(again, signed) || s.check() != nil { // another spelling
		return nil, nil, nil, ErrMalformed
	}
	return s, text, sig, nil
}

// check refuses what sign is never given.
func (s *Signature) check() error {
	if err := checkNames(s.Tenant, s.Document, s.From); err != nil {
		return err
	}
	if len(s.To) < 1 || len(s.To) > maxRecipients {
		return errRecipients
	}
	for n, to := range s.To {
		if err := checkNames(to); err != nil {
			return err
		}
		if n > 0 && s.To[n-1] >= to {
			return errRecipients
		}
	}
	return nil
}

// verify returns what a person signed about a document, whose content is still to
// be compared.
func verify(signed []byte, from *Person, id string) (*Signature, error) {
	s, text, sig, err := parseSignature(signed)
	if err != nil {
		return nil, err
	}
	if s.Tenant != from.tenant || s.From != from.id || s.Document != id || !ed25519.Verify(from.verifier, text, sig) {
		return nil, ErrSignature
	}
	return s, nil
}

// Verify checks a decrypted signature against a document in the clear: that under this id this
// person signed exactly this, and for whom. It needs no secret. src is read to its
// end.
func Verify(signature []byte, from *Person, id string, src io.Reader) (*Signature, error) {
	if from == nil || from.key == nil {
		return nil, errPerson
	}
	s, err := verify(signature, from, id)
	if err != nil {
		return nil, err
	}
	digest := sha256.New()
	if _, err := io.Copy(digest, src); err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	if err := s.fits(digest); err != nil {
		return nil, err
	}
	return s, nil
}

// fits says whether what was hashed is what was signed.
func (s *Signature) fits(digest hash.Hash) error {
	if [sha256.Size]byte(digest.Sum(nil)) != s.SHA256 {
		return fmt.Errorf("%w: other content", ErrSignature)
	}
	return nil
}
