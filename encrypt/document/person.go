package document

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"filippo.io/age"
)

const (
	identityIntro = "# crmguard identity 1"
	personIntro   = "crmguard person 1"
)

var (
	errIdentity = errors.New("document: an Identity is made by GenerateIdentity, ImportIdentity or one of the Open functions")
	errPerson   = errors.New("document: a Person is made by ParsePerson or Identity.Person")
	errKeyFile  = errors.New("document: want one age secret key, AGE-SECRET-KEY-PQ-1… or AGE-SECRET-KEY-1…")

	b64 = base64.RawStdEncoding.Strict()
)

// Identity is a person's private keys: an age identity that opens documents, and an
// Ed25519 key that signs them. It redacts itself wherever it is printed;
// [Identity.Export] does not.
type Identity struct {
	tenant, id string
	secret     string // the age identity as text
	key        age.Identity
	public     age.Recipient
	signer     ed25519.PrivateKey
}

// GenerateIdentity makes new keys for a person, safe against quantum computers as
// far as opening goes (ML-KEM-768 with X25519).
func GenerateIdentity(tenant, person string) (*Identity, error) {
	if err := usable(); err != nil {
		return nil, err
	}
	key, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	return ImportIdentity(tenant, person, key.String())
}

// ImportIdentity adds a new signing key to an age secret key that a person already
// has. Keys made for age before 1.3 (X25519) cannot be mixed with newer ones in
// the recipients of one document.
func ImportIdentity(tenant, person, secret string) (*Identity, error) {
	if err := usable(); err != nil {
		return nil, err
	}
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	return newIdentity(tenant, person, secret, signer)
}

func newIdentity(tenant, person, secret string, signer ed25519.PrivateKey) (*Identity, error) {
	if err := checkNames(tenant, person); err != nil {
		return nil, err
	}
	i := &Identity{tenant: tenant, id: person, secret: secret, signer: signer}
	keys, err := age.ParseIdentities(strings.NewReader(secret))
	if err != nil || len(keys) != 1 {
		return nil, errKeyFile // age's error might say what it found
	}
	i.key = keys[0]
	switch key := keys[0].(type) {
	case *age.HybridIdentity:
		i.secret, i.public = key.String(), key.Recipient()
	case *age.X25519Identity:
		i.secret, i.public = key.String(), key.Recipient()
	default:
		return nil, errKeyFile
	}
	return i, nil
}

// Person returns the public half.
func (i *Identity) Person() *Person {
	return &Person{tenant: i.tenant, id: i.id, key: i.public, verifier: i.signer.Public().(ed25519.PublicKey)}
}

// Export returns the secret keys as an identity file of the standard age tool (age
// -d -i FILE), which reads the signing key as a comment. It is for the person
// alone.
func (i *Identity) Export() []byte {
	return fmt.Appendf(nil, "%s\n# tenant %s\n# person %s\n# ed25519 %s\n%s\n",
		identityIntro, i.tenant, i.id, b64.EncodeToString(i.signer.Seed()), i.secret)
}

// parseIdentity reads what Export wrote for this person.
func parseIdentity(text []byte, tenant, person string) (*Identity, error) {
	lines := strings.Split(string(text), "\n")
	if len(lines) != 6 {
		return nil, ErrMalformed
	}
	seed, err := b64.DecodeString(strings.TrimPrefix(lines[3], "# ed25519 "))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, ErrMalformed
	}
	i, err := newIdentity(tenant, person, lines[4], ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, err
	}
	if string(i.Export()) != string(text) { // another person's, or another spelling
		return nil, ErrMalformed
	}
	return i, nil
}

// String hides the keys.
func (i Identity) String() string { return "document.Identity=[redacted]" }

// GoString hides the keys.
func (i Identity) GoString() string { return i.String() }

// Format hides the keys, whatever the verb.
func (i Identity) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, i.String()) }

// LogValue hides the keys.
func (i Identity) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalJSON hides the keys.
func (i Identity) MarshalJSON() ([]byte, error) { return json.Marshal(i.String()) }

// Person is a person's public keys: for whom to seal, and whose signature to
// expect. Its text is the person's card.
type Person struct {
	tenant, id string
	key        age.Recipient // prints itself as age1…
	verifier   ed25519.PublicKey
}

// ParsePerson reads a card that must be this person's. It cannot tell who wrote
// the card.
func ParsePerson(card, tenant, person string) (*Person, error) {
	if err := usable(); err != nil {
		return nil, err
	}
	if err := checkNames(tenant, person); err != nil {
		return nil, err
	}
	lines := strings.Split(card, "\n")
	if len(lines) != 6 {
		return nil, ErrMalformed
	}
	keys, err := age.ParseRecipients(strings.NewReader(strings.TrimPrefix(lines[3], "age ")))
	if err != nil || len(keys) != 1 {
		return nil, ErrMalformed
	}
	verifier, err := b64.DecodeString(strings.TrimPrefix(lines[4], "ed25519 "))
	if err != nil || len(verifier) != ed25519.PublicKeySize {
		return nil, ErrMalformed
	}
	p := &Person{tenant: tenant, id: person, key: keys[0], verifier: verifier}
	if p.String() != card { // another person's, or another spelling
		return nil, ErrMalformed
	}
	return p, nil
}

// String returns the card.
func (p *Person) String() string {
	return fmt.Sprintf("%s\ntenant %s\nperson %s\nage %s\ned25519 %s\n",
		personIntro, p.tenant, p.id, p.key, b64.EncodeToString(p.verifier))
}
